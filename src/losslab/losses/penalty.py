"""Penalties: numbers of one image that a task adds to its loss; they compare nothing."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from losslab import images as contract
from losslab.types import Distance, Image


class Penalty(nn.Module, ABC):
    """What an image costs by itself, whatever it is compared with."""

    @abstractmethod
    def forward(self, images: Image) -> Distance:
        """Give one number an image, (*,), of images (*, C, H, W) in [0, 1]."""


class NoPenalty(Penalty):
    """Zero for every image.

    Formula: 0.

    Example:
        >>> import torch
        >>> NoPenalty()(torch.rand(2, 3, 8, 8))
        tensor([0., 0.])
    """

    def forward(self, images: Image) -> Distance:
        """Give zeros, (*,)."""
        return images.new_zeros(images.shape[:-3])


class TotalVariation(Penalty):
    """Weighted total variation: the mean size of the steps between neighbouring pixels.

    Formula: weight · (mean |∂_x|^power + mean |∂_y|^power), ∂ the forward difference of images in [0, 1], each mean
    over its own differences and the channels.

    Args:
        weight: of the sum, 0 or more.
        power: 1 (anisotropic total variation) or 2 (the squared form, which blurs edges more).

    Raises:
        ValueError: weight or power is out of its range; in use, the image is smaller than 2×2.

    Paper and code: the original defines it with sums over the image; means, as here, weigh images of all sizes alike,
        and so does the style transfer of ariel415el/PerceptualLossExperiments (power 1; its retargeting has power 2).

    Source: Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60 (1992).

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> TotalVariation()(x).sum().backward()
    """

    def __init__(self, weight: float = 1e-3, power: int = 1) -> None:
        """Check the weight and the power."""
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight is 0 or more, got {weight}")
        if power not in (1, 2):
            raise ValueError(f"power is 1 or 2, got {power}")
        self.weight, self.power = weight, power

    def forward(self, images: Image) -> Distance:
        """Give the weighted variation of each image, (*,); values may leave [0, 1], as those of a search do."""
        contract.check_finite(images, 2, "total variation")
        return self.weight * (self._size(images.diff(dim=-1)) + self._size(images.diff(dim=-2)))

    def _size(self, steps: Tensor) -> Distance:
        sizes = steps.abs() if self.power == 1 else steps.square()
        return sizes.mean(dim=(-3, -2, -1))
