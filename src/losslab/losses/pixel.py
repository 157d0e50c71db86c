"""Losses of single pixels: L1, L2, and powers of the difference that are smooth at zero."""

import math

from torch import Tensor

from losslab.comparisons.base import Map
from losslab.differences import differences
from losslab.losses.base import Loss
from losslab.types import Distance, Image

LEAST_EPS = 1e-12
"""(d / eps)² has to stay a number of 32 bits, and this leaves room."""


class L1(Loss[Tensor]):
    """Mean over channels and pixels of |x - y|, images in [0, 1].

    Formula: mean |x - y|.

    Source: the mean absolute error.

    Example:
        >>> import torch
        >>> L1()(torch.zeros(2, 3, 8, 8), torch.ones(1, 3, 8, 8))
        tensor([1., 1.])
    """

    def embed(self, images: Image) -> Image:
        """Keep the images as they are."""
        return images

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give the mean absolute difference of each pair, (*,)."""
        return {self.name: differences(a, b, "l1").mean(dim=(-3, -2, -1))}

    def places(self, a: Tensor, b: Tensor) -> Map:
        """Give the mean over the channels, (*, 1, H, W)."""
        return differences(a, b, "l1").mean(dim=-3, keepdim=True)


class L2(Loss[Tensor]):
    """Mean over channels and pixels of (x - y)², images in [0, 1].

    Formula: mean (x - y)².

    Source: the mean squared error.

    Example:
        >>> import torch
        >>> L2()(torch.zeros(2, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5))
        tensor([0.2500, 0.2500])
    """

    def embed(self, images: Image) -> Image:
        """Keep the images as they are."""
        return images

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give the mean squared difference of each pair, (*,)."""
        return {self.name: differences(a, b, "l2").mean(dim=(-3, -2, -1))}

    def places(self, a: Tensor, b: Tensor) -> Map:
        """Give the mean over the channels, (*, 1, H, W)."""
        return differences(a, b, "l2").mean(dim=-3, keepdim=True)


class Lp(Loss[Tensor]):
    """Mean over channels and pixels of |x - y|^p, made smooth at zero; p = 1 is the Charbonnier loss.

    Formula: mean [(d² + eps²)^(p/2) - eps^p], d = x - y; with eps = 0 it is mean |d|^p.

    It is 0 for equal images, close to |d|^p - eps^p where |d| is well above eps, and quadratic below.

    Args:
        p: the power, more than 0.
        eps: the difference below which it turns quadratic, for images in [0, 1]; 0 only where p is 1 or more.

    Raises:
        ValueError: p or eps is out of its range.

    Paper and code: the original LP has p = 0.5 and no eps, so its gradient is infinite where two pixels are equal.
        `eps=1e-3` is the default for every p; it is usual in Charbonnier losses of images in [0, 1].

    Source: LP of ariel415el/PerceptualLossExperiments (p = 0.5); Charbonnier et al., "Two deterministic half-quadratic
        regularization algorithms for computed imaging", ICIP 1994 (p = 1).

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> Lp()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(self, p: float = 0.5, eps: float = 1e-3) -> None:
        """Check the power and the size of the smooth region."""
        super().__init__()
        if not 0 < p < math.inf:
            raise ValueError(f"p is a number more than 0, got {p}")
        if not (LEAST_EPS <= eps <= 1 or (eps == 0 and p >= 1)):
            raise ValueError(f"eps is from {LEAST_EPS:g} to 1, or 0 where p is 1 or more, got eps {eps} and p {p}")
        self.p, self.eps = p, eps

    def embed(self, images: Image) -> Image:
        """Keep the images as they are."""
        return images

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give the mean smooth power of the difference of each pair, (*,)."""
        return {self.name: self._power(a - b).mean(dim=(-3, -2, -1))}

    def places(self, a: Tensor, b: Tensor) -> Map:
        """Give the mean over the channels, (*, 1, H, W)."""
        return self._power(a - b).mean(dim=-3, keepdim=True)

    def _power(self, difference: Tensor) -> Tensor:
        if self.eps == 0:
            return difference.abs().pow(self.p)
        # eps^p · [(1 + u)^(p/2) - 1] with u = (d/eps)²: the difference of the formula would cancel near zero
        growth = (difference / self.eps).square().log1p() * (self.p / 2)
        return growth.expm1() * self.eps**self.p
