"""Losses that compare the small patches of two images at the same place, without ever cutting a patch out."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from losslab.comparisons.base import Map
from losslab.comparisons.pairs import wide
from losslab.images import SIGNED
from losslab.losses.base import Loss
from losslab.losses.patches import WHOLE, check_mean
from losslab.types import Distance, Features, Image

SMALLEST = 1e-20
"""Below it a squared distance is zero: the square root has a gradient there."""

SEPARATE_ABOVE = 5
"""Patch size in pixels from which two thin boxes are faster than a square one."""

SIMILARITIES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian": lambda squares, s: (squares / (-2 * s**2)).exp(),
    "laplacian": lambda squares, s: (squares.clamp(min=SMALLEST).sqrt() / -s).exp(),
    "simple": lambda squares, s: (squares / -s).exp(),
}


class PatchRBF(Loss[Any]):
    """One minus a radial kernel of the patches around each pixel, averaged over the pixels.

    Formula: mean_i [1 - k(D_i)], s = sigma · patch_size², where D_i is the squared distance of the two patches around
    pixel i, summed over channels and pixels, images taken in [-1, 1], and k(D) is exp(-D / (2 s²)) for "gaussian",
    exp(-√D / s) for "laplacian", and exp(-D / s) for "simple".

    For the Gaussian this is (2 - 2k)/2, half the squared maximum mean discrepancy of two single patches: the *aligned*
    term of MMD++. D needs no patches: it is Σ_c box((x - y)²), less Σ_c box(x - y)² / patch_size² without the means of
    channels, and for patches of unit norm 2 - 2 box(x y) / (|p| |q|).

    Args:
        patch_size: side of a patch in pixels, odd where the border is padded.
        sigma: bandwidth a pixel for images in [-1, 1]; it is multiplied by the *square* of the patch size.
        kernel: "gaussian", "laplacian" or "simple".
        border: "zero" pads both images in [-1, 1] by half a patch; "none" takes inner patches only.
        stride: step from patch to patch in pixels.
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean.
        unit_norm: divide each patch by its norm, the root of |p|² + eps².
        eps: what keeps the norm of a flat patch from being zero, for images in [-1, 1].

    Raises:
        ValueError: an unknown kernel or border, or a patch that does not fit it.

    Paper and code: "simple" is the class SimplePatchLoss, whose bandwidth is not squared (with patch_size 3, sigma 0.06
        and border "none"). With mean removal the original's patch extraction takes off one mean for all patches of a
        batch, not each patch's own; here it is each patch's own, as its MMD and the paper's mean-free patches have it.

    Source: PatchRBFLoss, PatchRBFLaplacianLoss and SimplePatchLoss of ariel415el/PerceptualLossExperiments (models of
        Amir and Weiss, CVPR 2021).

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> PatchRBF()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self,
        patch_size: int = 3,
        sigma: float = 0.1,
        kernel: str = "gaussian",
        border: str = "zero",
        stride: int = 1,
        *,
        remove_mean: bool | str = False,
        unit_norm: bool = False,
        eps: float = 0.01,
    ) -> None:
        """Check the patch and set the bandwidth."""
        super().__init__()
        if kernel not in SIMILARITIES:
            raise ValueError(f"kernel is one of {', '.join(SIMILARITIES)}, got {kernel!r}")
        if border not in ("zero", "none"):
            raise ValueError(f"border is 'zero' or 'none', got {border!r}")
        if patch_size < 1 or (border == "zero" and patch_size % 2 == 0):
            raise ValueError(f"patch_size is an odd number of pixels where the border is padded, got {patch_size}")
        check_mean(patch_size, remove_mean=remove_mean)
        if stride < 1 or not 0 < sigma < math.inf or eps <= 0:
            raise ValueError(f"stride, sigma and eps are more than 0, got {stride}, {sigma} and {eps}")
        self.patch_size, self.stride, self.kernel = patch_size, stride, kernel
        self.padding = patch_size // 2 if border == "zero" else 0
        # A padded image that is smaller would lie inside the border for the most part.
        self.min_side = patch_size // 2 + 1 if self.padding else patch_size
        self.bandwidth = sigma * patch_size**2
        self.remove_mean, self.unit_norm, self.eps = remove_mean, unit_norm, eps

    def embed(self, images: Image) -> Any:
        """Keep the images, with the squared norm of each patch where it is needed."""
        if not self.unit_norm:
            return images
        return images, self._squares(_signed(images))

    def terms(self, a: Any, b: Any) -> dict[str, Distance]:
        """Give the mean of one minus the kernel of each pair, (*,), in [0, 1)."""
        distance = 1 - self._similarity(a, b).mean(dim=(-3, -2, -1))
        return {self.name: distance.to(a[0].dtype) if self.unit_norm else distance}

    def places(self, a: Any, b: Any) -> Map:
        """Give one minus the kernel of the patches around each pixel, (*, 1, H, W).

        Raises:
            ValueError: not every pixel has a patch around it.
        """
        if self.stride > 1 or (self.patch_size > 1 and not self.padding):
            given = f"stride {self.stride}, border {'zero' if self.padding else 'none'}"
            raise ValueError(f"{self.name} has a patch around each pixel with stride 1 and border zero, got {given}")
        found = 1 - self._similarity(a, b)
        return found.to(a[0].dtype) if self.unit_norm else found

    def _similarity(self, a: Any, b: Any) -> Features:
        squares = self._unit_squares(*a, *b) if self.unit_norm else self._squares(SIGNED * (a - b))
        return SIMILARITIES[self.kernel](squares, self.bandwidth)

    def _unit_squares(self, x: Tensor, x_norms: Tensor, y: Tensor, y_norms: Tensor) -> Features:
        """Give the squared distances of patches of unit norm, where a flat patch stays near zero."""
        p, q = x_norms + self.eps**2, y_norms + self.eps**2
        squares = x_norms / p + y_norms / q - 2 * self._products(_signed(x), _signed(y)) / (p * q).sqrt()
        return squares.clamp(min=0)

    def _squares(self, x: Tensor) -> Features:
        return self._products(x, x)

    def _products(self, x: Tensor, y: Tensor) -> Features:
        """Give the inner products of the patches of two images at the same place, (*, 1, rows, columns)."""
        products = self._boxes((x * y).sum(-3, keepdim=True))
        if not self.remove_mean:
            return products
        sums = self._sums(x)
        both = sums.square() if y is x else sums * self._sums(y)
        counted = self.patch_size**2 * x.shape[-3] // sums.shape[-3]
        without = products - both.sum(-3, keepdim=True) / counted
        return without.clamp(min=0) if y is x else without

    def _sums(self, x: Tensor) -> Features:
        """Give the sums of what each mean is of: the channels of a patch, or all of it."""
        return self._boxes(x.sum(-3, keepdim=True) if self.remove_mean == WHOLE else x)

    def _boxes(self, planes: Tensor) -> Features:
        """Give the sum over each patch, with zeros beyond the border."""
        size, pad = self.patch_size, self.padding
        batch = planes.reshape(-1, *planes.shape[-3:])
        # The average counts the zeros beyond the border, so times the area it is the sum over the patch.
        if size <= SEPARATE_ABOVE:
            means = functional.avg_pool2d(batch, size, self.stride, pad)
        else:
            columns = functional.avg_pool2d(batch, (size, 1), (self.stride, 1), (pad, 0))
            means = functional.avg_pool2d(columns, (1, size), (1, self.stride), (0, pad))
        sums = means * size**2
        return sums.reshape(*planes.shape[:-2], *sums.shape[-2:])


def _signed(images: Tensor) -> Tensor:
    """Take images in [-1, 1], in 64 bits: of nearly flat patches, the little beside their means decides."""
    return (SIGNED * images - 1).to(wide(images))
