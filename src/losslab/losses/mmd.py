"""Maximum mean discrepancy (MMD) between the patch distributions of two images, window by window."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from losslab.losses.base import Loss, same_draw
from losslab.losses.patches import WHOLE, check_mean, without_mean
from losslab.losses.random_features import Recipe, mean_features
from losslab.seeds import Draws
from losslab.types import Distance, Drawn, Image


class RandomFeatureMMD(Loss[Drawn[Tensor]]):
    """Half the squared MMD of the patches in each window, by random Fourier features, averaged over the windows.

    Formula: mean over windows W and features j of (F_j(x, W) - F_j(y, W))², where
    F_j(x, W) = mean over the patches p in W of cos(w_j · p + b_j), w_j ~ N(0, I / s²), b_j ~ U[0, 2π),
    s = sigma · patch_size². Its expectation is ½ MMD² under k(p, q) = exp(-|Pp - Pq|² / (2 s²)), images taken in
    [-1, 1], where P takes means off each patch as `remove_mean` says, and is the identity where that is false.

    Args:
        features: number of random features; the relative error of the loss falls as 1/√features.
        patch_size: side of a patch in pixels; odd where the border is reflected.
        sigma: bandwidth a pixel for images in [-1, 1]; it is multiplied by the *square* of the patch size. A list has
            all features for each of its bandwidths, at the price of their cosines alone: k is the mean of the kernels.
        window: side of a window, counted in patches; None takes the whole image as one window.
        stride: step from window to window, counted in patches. Windows start at its multiples and never leave the
            image. The larger its greatest common divisor with `window`, the less there is to add up.
        patch_stride: step from patch to patch, in pixels.
        border: "reflect" pads by half a patch, so that each pixel has a patch; "none" takes inner patches only.
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean; taking it
            off each filter is the same.
        pairs: half as many filters, with cos(w · p) and sin(w · p) each in place of cos(w · p + b): the same
            expectation and about the same error for half the convolution.
        orthogonal: filters orthogonal to each other in groups of as many as patches have dimensions, each with the
            length of a normal vector: the same expectation, less error (Yu et al., NeurIPS 2016).
        seed: of the filters.
        redraw_every: steps between two draws of the filters; 0 keeps the first one.

    Raises:
        ValueError: sizes that fit no patch or window, or a patch of which its mean leaves nothing.

    Paper and code: the code of record, MMDApproximate, draws new filters at each call, so that two distances of one
        image are measured with different rulers, and targets can't be encoded once. Here a draw is fixed by default;
        redraw_every=1 draws at each step of a training, and both sides always see one draw. Its default
        normalize_patch is "none" with 1024 features, MMD++ uses "channel_mean" with 512; here remove_mean=true, which
        is that, and 512 are the defaults; its "mean" is remove_mean=patch. Its MMDExact has another kernel and no ½:
        it is not twice what MMDApproximate tends to.

    Source: MMDApproximate of ariel415el/PerceptualLossExperiments (models of Amir and Weiss, "Understanding and
        Simplifying Perceptual Distances", CVPR 2021); random features of Rahimi and Recht, NeurIPS 2007.

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
        sigma: float | Sequence[float] = 0.06,
        window: int | None = 32,
        stride: int = 16,
        *,
        patch_stride: int = 1,
        border: str = "reflect",
        remove_mean: bool | str = True,
        pairs: bool = False,
        orthogonal: bool = False,
        seed: int = 0,
        redraw_every: int = 0,
    ) -> None:
        """Check the sizes and make the first draw."""
        super().__init__()
        sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,)
        if features < 1 or not sigmas or not all(0 < each < math.inf for each in sigmas):
            raise ValueError(f"features and sigma are more than 0, got {features} and {sigma}")
        if pairs and features % 2:
            raise ValueError(f"pairs need an even number of features, got {features}")
        if min(patch_size, patch_stride, stride, 1 if window is None else window) < 1:
            sizes = f"{patch_size}, {patch_stride}, {window} and {stride}"
            raise ValueError(f"patch_size, patch_stride, window and stride are 1 or more, got {sizes}")
        check_mean(patch_size, remove_mean=remove_mean)
        if border not in ("reflect", "none"):
            raise ValueError(f"border is 'reflect' or 'none', got {border!r}")
        if border == "reflect" and patch_size % 2 == 0:
            raise ValueError(f"patch_size is an odd number of pixels where the border is reflected, got {patch_size}")
        self.patch_size, self.bandwidths = patch_size, tuple(each * patch_size**2 for each in sigmas)
        scales = tuple(self.bandwidths[-1] / each for each in self.bandwidths)
        margin = patch_size // 2 if border == "reflect" else 0
        self.recipe = Recipe(margin, patch_stride, window, stride, scales, pairs)
        self.min_side = max(((window or 1) - 1) * patch_stride + patch_size - 2 * margin, margin + 1)
        self.remove_mean, self.orthogonal = remove_mean, orthogonal
        self.draws = Draws(seed, redraw_every)
        count = features // 2 if pairs else features
        self.register_buffer("filters", torch.empty(count, 3, patch_size, patch_size), persistent=False)
        self.register_buffer("phases", torch.empty(count), persistent=False)
        self.draw(0)

    def draw(self, step: int) -> None:
        """Draw the filters of `step`, where `redraw_every` says that new ones are due."""
        random = self.draws.due(step)
        if random is None:
            return
        if self.orthogonal:
            filters = _orthogonal(len(self.filters), self.patch_size, random, remove_mean=self.remove_mean)
        else:
            filters = torch.randn(self.filters.shape, generator=random)
        phases = torch.rand(self.phases.shape, generator=random) * (0 if self.recipe.pairs else 2 * math.pi)
        filters = without_mean(filters, remove_mean=self.remove_mean)
        # New tensors: a backward pass that is still to come needs the old ones.
        self.phases = phases.to(self.phases)
        self.filters = (filters / self.bandwidths[-1]).to(self.filters)

    def embed(self, images: Image) -> Drawn[Tensor]:
        """Give the mean features of each window, (*, features, rows, columns)."""
        if images.shape[-3] != 3:
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        batch = images.reshape(-1, *images.shape[-3:])
        windows = mean_features(batch, self.filters, self.phases, self.recipe).flatten(1, 2)
        kind = f"filters {tuple(self.filters.shape)}, orthogonal {self.orthogonal}, mean removed {self.remove_mean}"
        draw = f"{kind}, bandwidths {self.bandwidths}, {self.recipe}, {self.draws}"
        return Drawn(windows.reshape(*images.shape[:-3], *windows.shape[1:]), draw)

    def terms(self, a: Drawn[Tensor], b: Drawn[Tensor]) -> dict[str, Distance]:
        """Give the mean squared difference of the windows' features of each pair, (*,)."""
        p, q = same_draw(a, b)
        return {self.name: (p - q).square().mean(dim=(-3, -2, -1))}


def _orthogonal(count: int, size: int, random: torch.Generator, *, remove_mean: bool | str) -> Tensor:
    """Draw filters that are orthogonal in groups, each distributed as one of normal numbers, or as that less its means.

    Without means a filter lies in a space of one dimension less, or one less a channel: there the groups are drawn.
    """
    basis = torch.eye(3 * size**2, dtype=torch.float64)
    if remove_mean == WHOLE:
        basis = _mean_free(3 * size**2)
    elif remove_mean:
        basis = torch.block_diag(*[_mean_free(size**2)] * 3)
    width = len(basis)
    groups = []
    for _ in range(0, count, width):
        square, lengths = (torch.randn(width, width, generator=random, dtype=torch.float64) for _ in range(2))
        rotation, triangle = torch.linalg.qr(square)
        rotation *= triangle.diagonal().sign()  # without the signs it is not uniform over the rotations
        groups.append(rotation * lengths.norm(dim=1, keepdim=True))
    return (torch.cat(groups)[:count] @ basis).float().reshape(count, 3, size, size)


def _mean_free(count: int) -> Tensor:
    """Give Helmert's orthonormal basis of the vectors of `count` numbers whose mean is zero, as rows."""
    rows = torch.ones(count - 1, count, dtype=torch.float64).tril()
    rows.diagonal(1).copy_(-torch.arange(1.0, count))
    return rows / rows.norm(dim=1, keepdim=True)
