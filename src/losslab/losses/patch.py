"""Losses that compare the small patches of two images at the same place."""

from torch import Tensor
from torch.nn import functional

from losslab.images import SIGNED
from losslab.losses.base import Loss
from losslab.types import Distance, Image


class PatchRBF(Loss[Tensor]):
    """One minus a Gaussian kernel of the patches around each pixel, averaged over the pixels.

    Formula: mean_i [1 - exp(-D_i / (2 s²))], s = sigma · patch_size², where D_i is the sum of (x - y)² over the
    channels and the patch around pixel i, with zeros beyond the border and images taken in [-1, 1].
    It is (2 - 2k)/2, half the squared maximum mean discrepancy of two single patches: the *aligned* term of MMD++.

    Args:
        patch_size: side of a patch in pixels, odd.
        sigma: bandwidth a pixel for images in [-1, 1]; it is multiplied by the *square* of the patch size.

    Source: PatchRBFLoss of ariel415el/PerceptualLossExperiments (models of Amir and Weiss, CVPR 2021).

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> PatchRBF()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(self, patch_size: int = 3, sigma: float = 0.1) -> None:
        """Check the patch and set the bandwidth."""
        super().__init__()
        if patch_size % 2 == 0 or patch_size < 1:
            raise ValueError(f"patch_size is an odd number of pixels, got {patch_size}")
        self.patch_size = patch_size
        self.min_side = patch_size // 2 + 1  # smaller images would lie inside the border for the most part
        self.bandwidth = sigma * patch_size**2 / SIGNED

    def embed(self, images: Image) -> Image:
        """Keep the images as they are."""
        return images

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give the mean of one minus the kernel of each pair, (*,), in [0, 1)."""
        squares = (a - b).square().sum(-3)
        planes = squares.reshape(-1, 1, *squares.shape[-2:])
        # The average counts the zeros beyond the border, so times the area it is the sum over the patch.
        size, area = self.patch_size, self.patch_size**2
        distance = functional.avg_pool2d(planes, size, stride=1, padding=size // 2) * area
        similarity = (distance / (-2 * self.bandwidth**2)).exp()
        return {self.name: 1 - similarity.reshape(squares.shape).mean(dim=(-2, -1))}
