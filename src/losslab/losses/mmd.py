"""Maximum mean discrepancy (MMD) between the patch distributions of two images, window by window."""

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from losslab.images import SIGNED
from losslab.losses.base import Loss, same_draw
from losslab.seeds import draws_before, generator
from losslab.types import Distance, Drawn, Features, Image

# Measured on 32×3×64×64 with 512 features, forward and backward: chunks that fit the cache take 0.35 of the time of one
# map of all features, and autograd keeps one chunk's map at a time.
# Other devices have no such cache, and are kept busy by larger chunks.
IMAGES_A_CHUNK = {True: 4, False: 64}
FEATURES_A_CHUNK = 64


class RandomFeatureMMD(Loss[Drawn[Tensor]]):
    """Half the squared MMD of the patches in each window, by random Fourier features, averaged over the windows.

    Formula: mean over windows W and features j of (F_j(x, W) - F_j(y, W))², where
    F_j(x, W) = mean over the patches p in W of cos(w_j · p + b_j), w_j ~ N(0, I / s²), b_j ~ U[0, 2π),
    s = sigma · patch_size². Its expectation is ½ MMD² under k(p, q) = exp(-|Pp - Pq|² / (2 s²)), images taken in
    [-1, 1], where P takes each patch's mean off each channel if `remove_mean`, and is the identity otherwise.
    The filters are one fixed draw of the seed by default; `redraw_every=k` draws new ones every k steps.

    Args:
        features: number of random features; the relative error of the loss falls as 1/√features.
        patch_size: side of a patch in pixels, odd; borders are reflected.
        sigma: bandwidth a pixel for images in [-1, 1]; it is multiplied by the *square* of the patch size.
        window: side of a window in pixels.
        stride: step from window to window in pixels; `window` is a multiple of it.
        remove_mean: take each patch's mean off each channel, by taking it off each filter, which is the same.
        seed: of the filters.
        redraw_every: steps between two draws; 0 keeps the first one.

    Source: MMDApproximate of ariel415el/PerceptualLossExperiments (models of Amir and Weiss, CVPR 2021), with
        normalize_patch="channel_mean". The original draws new filters at each call, so that two distances of one
        image are measured with different rulers; here both sides always see one draw.

    Example:
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> RandomFeatureMMD(features=64)(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    filters: Tensor
    phases: Tensor

    def __init__(
        self,
        features: int = 512,
        patch_size: int = 3,
        sigma: float = 0.06,
        window: int = 32,
        stride: int = 16,
        *,
        remove_mean: bool = True,
        seed: int = 0,
        redraw_every: int = 0,
    ) -> None:
        """Check the sizes and make the first draw."""
        super().__init__()
        if patch_size % 2 == 0:
            raise ValueError(f"patch_size is an odd number of pixels, got {patch_size}")
        if features < 1 or sigma <= 0:
            raise ValueError(f"features and sigma are more than 0, got {features} and {sigma}")
        if stride < 1 or window < 1 or window % stride:
            raise ValueError(f"window is a multiple of stride, got window {window} and stride {stride}")
        self.patch_size, self.bandwidth = patch_size, sigma * patch_size**2
        self.window, self.stride, self.min_side = window, stride, window
        self.remove_mean, self.seed, self.redraw_every = remove_mean, seed, redraw_every
        self.register_buffer("filters", torch.empty(features, 3, patch_size, patch_size), persistent=False)
        self.register_buffer("phases", torch.empty(features), persistent=False)
        self._draw_index = -1
        self.draw(0)

    def draw(self, step: int) -> None:
        """Draw the filters of `step`, where `redraw_every` says that new ones are due."""
        index = draws_before(step, self.redraw_every)
        if index == self._draw_index:
            return
        random = generator(self.seed, index)
        filters = torch.randn(self.filters.shape, generator=random) / self.bandwidth
        phases = torch.rand(self.phases.shape, generator=random) * (2 * math.pi)
        if self.remove_mean:
            filters -= filters.mean(dim=(-2, -1), keepdim=True)
        # Images are in [0, 1]: w · (2p - 1) + b = 2w · p + (b - Σw), so the change of range costs nothing.
        self.phases.copy_(phases - filters.sum(dim=(1, 2, 3)))
        self.filters.copy_(SIGNED * filters)
        self._draw_index = index

    def embed(self, images: Image) -> Drawn[Tensor]:
        """Give the mean features of each window."""
        if images.shape[-3] != 3:
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        batch = images.reshape(-1, *images.shape[-3:])
        border = self.patch_size // 2
        padded = functional.pad(batch, (border,) * 4, mode="reflect")
        blocks = torch.cat([self._blocks(chunk) for chunk in padded.split(IMAGES_A_CHUNK[images.device.type == "cpu"])])
        # The mean over a window is the mean of the blocks in it, which overlapping windows share.
        windows = functional.avg_pool2d(blocks, self.window // self.stride, stride=1)
        kind = f"{self.filters.shape[0]} features, bandwidth {self.bandwidth:g}, mean removed: {self.remove_mean}"
        draw = f"{kind}, seed {self.seed}, draw {self._draw_index}"
        return Drawn(windows.reshape(*images.shape[:-3], *windows.shape[1:]), draw)

    def _blocks(self, padded: Image) -> Features:
        """Give the mean features of each stride×stride block of a few images, feature chunk by feature chunk."""
        chunks = zip(self.filters.split(FEATURES_A_CHUNK), self.phases.split(FEATURES_A_CHUNK), strict=True)
        # Computing a chunk again in the backward pass is faster than keeping it: the map is 170 times the image.
        means = [
            checkpoint(_mean_cosines, padded, *chunk, self.stride, use_reentrant=False, preserve_rng_state=False)
            for chunk in chunks
        ]
        return torch.cat(means, dim=1)

    def terms(self, a: Drawn[Tensor], b: Drawn[Tensor]) -> dict[str, Distance]:
        """Give the mean squared difference of the windows' features of each pair, (*,).

        Raises:
            ValueError: the encodings were made under different draws.
        """
        p, q = same_draw(a, b)
        return {self.name: (p - q).square().mean(dim=(-3, -2, -1))}


def _mean_cosines(padded: Image, filters: Tensor, phases: Tensor, stride: int) -> Features:
    return functional.avg_pool2d(functional.conv2d(padded, filters, phases).cos(), stride)
