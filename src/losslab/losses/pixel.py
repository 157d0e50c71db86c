"""L1 and L2: the mean absolute and the mean squared difference of pixels."""

from torch import Tensor

from losslab.losses.base import Loss
from losslab.types import Distance, Image


class L1(Loss[Tensor]):
    """Mean over channels and pixels of |x - y|, images in [0, 1].

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
        return {self.name: (a - b).abs().mean(dim=(-3, -2, -1))}


class L2(Loss[Tensor]):
    """Mean over channels and pixels of (x - y)², images in [0, 1].

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
        return {self.name: (a - b).square().mean(dim=(-3, -2, -1))}
