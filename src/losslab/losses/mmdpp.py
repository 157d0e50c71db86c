"""MMD++, the perceptual loss without a network of Amir and Weiss."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from losslab.images import SIGNED
from losslab.losses.base import Loss
from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.patch import PatchRBF
from losslab.losses.pixel import L2
from losslab.losses.weighted_sum import WeightedSum
from losslab.types import Distance, Image


class MMDpp(Loss[dict[str, Any]]):
    """MMD++: a little L2, patches at the same place, and above all the distribution of patches in 32×32 windows.

    Formula: weights.l2 · L2 + weights.local · PatchRBF(local_patch_size, local_sigma)
    + weights.mmd · RandomFeatureMMD(patch 3, sigma), images taken in [-1, 1].

    Args:
        features: random features of the MMD term.
        weights: of the parts `l2`, `local` and `mmd`, for images in [-1, 1].
        local_patch_size: side of the patches of `local` in pixels, odd; MMD+++ has 11.
        local_sigma: bandwidth a pixel of `local`.
        sigma: bandwidth a pixel of `mmd`.
        seed: of the random features.
        redraw_every: steps between two draws of the random features; 0 keeps the first one.
        window: side of a window of `mmd` in pixels; None takes the whole image as one.
        stride: step from window to window in pixels.

    Paper and code: no code of the paper is known; the class MMD_PP is the code of record. It draws new features at each
        call, so that its values are noisy; here redraw_every=0 keeps one draw, 1 draws at each step. Before July 2021
        its local_sigma was 0.06, which is what the .74 of its 2AFC table was measured with; 0.1, its last value, is the
        default. MMD+++ (MMD_PPP) has local patches of 11 pixels with 0.02, and sigma 0.03; an older MMD+++ had four
        terms, of which `loss=mmdppp` is not made.

    Source: Amir and Weiss, "Understanding and Simplifying Perceptual Distances", CVPR 2021; constants from the class
        MMD_PP of ariel415el/PerceptualLossExperiments, the code of record, whose MMD_PPP is conf/loss/mmdppp.yaml.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> MMDpp()(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    def __init__(
        self,
        features: int = 512,
        weights: Mapping[str, float] = MappingProxyType({"l2": 0.001, "local": 0.05, "mmd": 1.0}),
        local_patch_size: int = 3,
        local_sigma: float = 0.1,
        sigma: float = 0.06,
        seed: int = 0,
        redraw_every: int = 0,
        window: int | None = 32,
        stride: int = 16,
    ) -> None:
        """Build the three terms."""
        super().__init__()
        self.sum = WeightedSum(
            {
                "l2": L2(),
                "local": PatchRBF(local_patch_size, local_sigma),
                "mmd": RandomFeatureMMD(features, 3, sigma, window, stride, seed=seed, redraw_every=redraw_every),
            },
            {**weights, "l2": weights["l2"] * SIGNED**2},  # L2 sees [0, 1]: a square there is 4 in [-1, 1]
        )
        self.min_side = self.sum.min_side

    def embed(self, images: Image) -> dict[str, Any]:
        """Embed under each of the three terms."""
        return self.sum.embed(images)

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give the weighted terms `l2`, `local` and `mmd`."""
        return self.sum.terms(a, b)

    def draw(self, step: int) -> None:
        """Draw the random features of `step`."""
        self.sum.draw(step)
