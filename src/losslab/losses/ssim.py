"""SSIM and MS-SSIM: luminance, contrast and structure in a Gaussian window that slides over both images."""

from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor
from torch.nn import functional

from losslab.comparisons.base import Map
from losslab.losses.base import Loss
from losslab.types import Distance, Features, Image

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first: Wang, Simoncelli and Bovik 2003, section 3.2. They add up to 1.0001."""

STEEPEST = 1e-4
"""Below it x^w goes on as a line to zero, or its slope would be infinite there."""

GREY = 0.5
"""Middle of the range: second moments about it lose fewer digits than those about black."""

Seen: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Images, their local means and their local variances, (*, C, H, W) and twice (*, C, H - taps + 1, W - taps + 1)."""


@dataclass(frozen=True)
class _Window:
    """The sliding window and the constants of SSIM."""

    taps: int
    sigma: float
    k1: float
    k2: float

    def __post_init__(self) -> None:
        if self.taps < 1 or self.taps % 2 == 0:
            raise ValueError(f"taps is an odd number of pixels, got {self.taps}")
        if min(self.sigma, self.k1, self.k2) <= 0:
            raise ValueError(f"sigma, k1 and k2 are more than 0, got {self.sigma}, {self.k1} and {self.k2}")

    def look(self, images: Image) -> Seen:
        """Give what the window sees of one image."""
        centred = images - GREY
        mean, moment = self._blur(torch.cat([centred, centred.square()], dim=-3)).chunk(2, dim=-3)
        return images, mean + GREY, moment - mean.square()

    def losses(self, a: Seen, b: Seen) -> tuple[Tensor, Tensor]:
        """Give 1 - luminance and 1 - contrast·structure at each place.

        With v the variance, 2cov(a, b) = v(a) + v(b) - v(a - b). So the contrast·structure term is
        1 - v(a - b) / (v(a) + v(b) + c2), which keeps all digits where the images are close, and 2ab = a² + b² - (a -
        b)² does the same for the luminance.
        """
        (x, mean_x, variance_x), (y, mean_y, variance_y) = a, b
        mean_step = (mean_x - mean_y).square()
        variance_step = self._blur((x - y).square()) - mean_step
        luminance = mean_step / (mean_x.square() + mean_y.square() + self.k1**2)
        return luminance, variance_step / (variance_x + variance_y + self.k2**2)

    def share(self, found: Map) -> Map:
        """Share out what was found at each place among the pixels that the window sees there; the mean stays."""
        places, beyond = found.shape[-2:].numel(), self.taps - 1
        shared = self._blur(functional.pad(found, (beyond,) * 4))
        return shared * (shared.shape[-2:].numel() / places)

    def _blur(self, images: Tensor) -> Tensor:
        """Filter each channel where the window lies inside the image.

        One convolution with a group for each channel takes a quarter of the time of one over single planes.
        """
        taps = get_gaussian_kernel1d(self.taps, self.sigma, device=images.device, dtype=images.dtype)
        batch = images.reshape(-1, *images.shape[-3:])
        blurred = filter2d_separable(batch, taps, taps, padding="valid")
        return blurred.reshape(*images.shape[:-3], *blurred.shape[1:])


class SSIM(Loss[Seen]):
    """Half of one minus the structural similarity (SSIM), averaged over places and channels.

    Formula: mean ½ [1 - (2 m_x m_y + k1²)(2 c_xy + k2²) / ((m_x² + m_y² + k1²)(v_x + v_y + k2²))], with the means m,
    the variances v and the covariance c under a Gaussian window, for images in [0, 1] and each channel by itself.

    It lies in [0, 1]. Only windows that lie inside the image count.

    Args:
        taps: side of the window in pixels, odd.
        sigma: of the Gaussian in pixels.
        k1: constant of the luminance term, as a share of the range of images.
        k2: constant of the contrast and structure term, likewise.

    Raises:
        ValueError: taps is even, or another argument is not more than 0.

    Paper and code: the authors' program takes grey images, and shrinks large ones to about 256 pixels first; as in the
        other losses here, channels are compared one by one and nothing is shrunk.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
        similarity", IEEE Trans. Image Processing 13 (2004), section III-B; ½ - SSIM/2 from SSIM of
        ariel415el/PerceptualLossExperiments.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> SSIM()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(self, taps: int = 11, sigma: float = 1.5, k1: float = 0.01, k2: float = 0.03) -> None:
        """Set the window."""
        super().__init__()
        self.window = _Window(taps, sigma, k1, k2)
        self.min_side = taps

    def embed(self, images: Image) -> Seen:
        """Give the images, and their local means and variances."""
        return self.window.look(images)

    def terms(self, a: Seen, b: Seen) -> dict[str, Distance]:
        """Give ½ - SSIM/2 of each pair, (*,)."""
        luminance, structure = self.window.losses(a, b)
        return {self.name: _either(luminance, structure).mean(dim=(-3, -2, -1)) / 2}

    def places(self, a: Seen, b: Seen) -> Map:
        """Give each pixel's share, (*, 1, H, W): ½ - SSIM/2 of all windows that see it, by its weight in them."""
        luminance, structure = self.window.losses(a, b)
        return self.window.share(_either(luminance, structure).mean(dim=-3, keepdim=True) / 2)


class MSSSIM(Loss[tuple[Seen, ...]]):
    """Half of one minus the multi-scale structural similarity (MS-SSIM), averaged over the channels.

    Formula: mean over channels of ½ [1 - S^w_M · Π_{j<M} C_j^w_j], where C_j is the mean over places of the contrast ·
    structure term of SSIM after the image was halved j - 1 times, S the mean of SSIM itself at the coarsest scale M,
    and both count as 0 where they are negative.

    It lies in [0, ½]. An image is halved by the mean of 2×2 pixels; an odd row or column at the lower or right border
    is averaged by itself. Powers of values below 1e-4 go on as a line to 0, so that the gradient is finite; where a
    mean is negative, its channel has none.

    Args:
        scales: how many, 1 to 5; an image needs 10 · 2^(scales - 1) + 1 pixels a side with 11 taps. Fewer than 5 take
            the first of the published weights, divided by their sum.
        taps: side of the window in pixels, odd.
        sigma: of the Gaussian in pixels.
        k1: constant of the luminance term, as a share of the range of images.
        k2: constant of the contrast and structure term, likewise.

    Raises:
        ValueError: scales is not from 1 to 5, taps is even, or another argument is not more than 0.

    Paper and code: the paper is about grey images and says nothing of negative terms, of which the authors' program
        takes complex powers; channels one by one and zero for negative terms are as in piq. The authors' program
        mirrors odd sizes at the lower right, which is what is done here; piq repeats a row and a column at the upper
        left where either size is odd, and torchmetrics drops the odd ones.

    Source: Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar
        Conference on Signals, Systems and Computers, 2003, section 3.

    Example:
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> MSSSIM(scales=3)(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    def __init__(self, scales: int = 5, taps: int = 11, sigma: float = 1.5, k1: float = 0.01, k2: float = 0.03) -> None:
        """Set the window and the weights."""
        super().__init__()
        if scales not in range(1, len(WEIGHTS) + 1):
            raise ValueError(f"scales is from 1 to {len(WEIGHTS)}, got {scales}")
        self.window = _Window(taps, sigma, k1, k2)
        self.min_side = (taps - 1) * 2 ** (scales - 1) + 1
        first = WEIGHTS[:scales]
        self.weights = first if scales == len(WEIGHTS) else tuple(weight / sum(first) for weight in first)

    def embed(self, images: Image) -> tuple[Seen, ...]:
        """Give the images, and their local means and variances, at each scale."""
        seen = [self.window.look(images)]
        while len(seen) < len(self.weights):
            seen.append(self.window.look(_halve(seen[-1][0])))
        return tuple(seen)

    def terms(self, a: tuple[Seen, ...], b: tuple[Seen, ...]) -> dict[str, Distance]:
        """Give ½ - MS-SSIM/2 of each pair, (*,)."""
        losses = [self.window.losses(p, q) for p, q in zip(a, b, strict=True)]
        maps = [*(structure for _, structure in losses[:-1]), _either(*losses[-1])]
        powers = [_power(each.mean(dim=(-2, -1)), weight) for each, weight in zip(maps, self.weights, strict=True)]
        return {self.name: reduce(_either, powers).mean(-1) / 2}


def _either(p: Tensor, q: Tensor) -> Tensor:
    """Give 1 - (1 - p)(1 - q) with all digits of small p and q."""
    return p + q - p * q


def _power(losses: Tensor, exponent: float) -> Tensor:
    """Give 1 - s^exponent with s = 1 - losses, a line to 1 where s is below `STEEPEST`, and 1 where it is negative."""
    within = losses.clamp(max=1 - STEEPEST)
    beyond = (losses - within).clamp(max=STEEPEST)
    return beyond * STEEPEST ** (exponent - 1) - (exponent * (-within).log1p()).expm1()


def _halve(images: Image) -> Features:
    """Average 2×2 pixels into one, and what is left over of them at the end."""
    planes = functional.avg_pool2d(images.reshape(-1, 1, *images.shape[-2:]), 2, ceil_mode=True)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])
