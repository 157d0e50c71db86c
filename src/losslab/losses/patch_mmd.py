"""Maximum mean discrepancy (MMD) between all patches of two images, wherever they are."""

from typing import Any

from losslab.images import SIGNED
from losslab.losses.base import Loss
from losslab.losses.exact_mmd import squared_mmd
from losslab.losses.kernels import Gaussian, Kernel
from losslab.losses.mean_kernel import within
from losslab.losses.patches import Patches
from losslab.types import Distance, Image


class PatchMMD(Loss[dict[str, Any]]):
    """The squared MMD between the sets of all patches of two images.

    Formula: mean k(p, p') + mean k(q, q') - 2 mean k(p, q), with p, p' the patches of x and q, q' those of y, each
    patch with itself among them; patches end at the border.

    It sees which patches an image has and not where they are. It has a first derivative only.

    Args:
        patch_size: side of a patch in pixels.
        stride: step from patch to patch in pixels.
        kernel: of two patches in [-1, 1], from `losslab.losses.kernels`; without one, Gaussian of sigma .05.
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean.

    Raises:
        ValueError: a size below 1, or a patch of which its mean leaves nothing.

    Paper and code: The original scales the kernels of an image with itself by the number of patches of the *other*
        one; for images of one size, the only ones that are compared here, that is the same. Its normalize_patch
        "mean" and "channel_mean" take one mean over the whole batch off all patches, so that an image's distance
        depends on its neighbours; `remove_mean` is of each patch. The default, none, is the original's.

    Source: PatchMMD_RBF, PatchMMDMultiRBF and PatchMMD_Inverse of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> PatchMMD()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self, patch_size: int = 7, stride: int = 1, kernel: Kernel | None = None, *, remove_mean: bool | str = False
    ) -> None:
        """Check the sizes."""
        super().__init__()
        self.kernel = kernel or Gaussian([0.05])
        self.patches = Patches(patch_size, stride, remove_mean=remove_mean)
        self.patch_size, self.min_side = patch_size, self.patches.min_side

    def embed(self, images: Image) -> dict[str, Any]:
        """Keep the images, and compute the kernel of each with itself."""
        return {"images": images, "within": within(images, self.patches, self.kernel)[..., None, None, None]}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give the squared discrepancy of each pair, (*,)."""
        return {self.name: squared_mmd(a, b, self.patches, self.kernel).to(a["images"].dtype)}


class LinearPatchMMD(Loss[dict[str, Any]]):
    """The squared MMD between all patches of two images under the linear kernel: they are compared by their mean.

    Formula: |mean p - mean q|², with p the patches of x and q those of y, images taken in [-1, 1].

    Under k(p, q) = p · q, the means of the kernel are products of mean patches, so that no pair is ever formed.

    Args:
        patch_size: side of a patch in pixels; patches end at the border.
        stride: step from patch to patch in pixels.

    Raises:
        ValueError: a size below 1.

    Source: PatchMMD_DotProd of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> LinearPatchMMD(patch_size=2)(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5))
        tensor([12.])
    """

    def __init__(self, patch_size: int = 7, stride: int = 1) -> None:
        """Check the sizes."""
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.min_side = Patches(patch_size, stride).min_side

    def embed(self, images: Image) -> dict[str, Any]:
        """Give the mean patch, and the images, for their size."""
        size, stride = self.patch_size, self.stride
        patches = images.unfold(-2, size, stride).unfold(-2, size, stride)  # a view: pixels are not repeated
        return {"mean": SIGNED * patches.mean(dim=(-4, -3)), "images": images}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give the squared distance of the mean patches of each pair, (*,)."""
        return {self.name: (a["mean"] - b["mean"]).square().sum(dim=(-3, -2, -1))}
