"""Maximum mean discrepancy (MMD) between the patches of two images, window by window, without random features."""

from typing import Any

from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.kernels import Gaussian, Kernel
from losslab.losses.mean_kernel import between, within
from losslab.losses.patches import Patches
from losslab.types import Distance, Image


class ExactMMD(Loss[dict[str, Any]]):
    """The squared MMD of the patches in each window, averaged over the windows.

    Formula: mean over windows W of mean k(p, p') + mean k(q, q') - 2 mean k(p, q), with p, p' the patches of x in W,
    q, q' those of y, each patch with itself among them; half of that if `half`.

    With the Gaussian kernel, `half` and `remove_mean` it is what RandomFeatureMMD tends to with more features. With
    ArcCosine(depth, unit_norm), border "zero" and neither of the two, it is what the loss between the pooled features
    of `losslab.networks.scnn.SCNN` tends to with more width. Its rounding error is about 1e-8 for 32 bits, whatever
    its value. It has a first derivative only.

    Args:
        patch_size: side of a patch in pixels, odd where there is a border.
        kernel: of two patches in [-1, 1], from `losslab.losses.kernels`; without one, Gaussian of sigma .06.
        window: side of a window, counted in patches; None takes the whole image as one window.
        stride: step from window to window, counted in patches; `window` is a multiple of it. Windows start at its
            multiples and never leave the image.
        patch_stride: step from patch to patch, in pixels.
        border: what lies beyond an image: "reflect", "zero" (which is grey), or "none", where patches end at it.
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean.
        half: times ½, as random features without a factor √2 have it.

    Raises:
        ValueError: a size below 1, an unknown border, an even patch that needs a border, a patch of which its mean
            leaves nothing, or a window that is no multiple of the stride.

    Paper and code: MMDExact has the kernel exp(-|p - q|² / s²), no ½ and no removal of means, so that it is not the
        limit of MMDApproximate of the same repository; it is kernel Gaussian of sigma / √2, half and remove_mean
        False. The defaults here are that limit, because MMD++ is made of MMDApproximate.

    Source: Amir and Weiss, CVPR 2021, theorem 2.1; MMDExact of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 48, 48, requires_grad=True)
        >>> ExactMMD()(x, torch.rand(1, 3, 48, 48)).sum().backward()
    """

    def __init__(
        self,
        patch_size: int = 3,
        kernel: Kernel | None = None,
        window: int | None = 32,
        stride: int = 16,
        patch_stride: int = 1,
        border: str = "reflect",
        *,
        remove_mean: bool | str = True,
        half: bool = True,
    ) -> None:
        """Check the sizes."""
        super().__init__()
        self.kernel = kernel or Gaussian()
        self.patches = Patches(patch_size, patch_stride, border, remove_mean, window, stride)
        self.patch_size, self.min_side = patch_size, self.patches.min_side
        self.scale = 0.5 if half else 1.0

    def embed(self, images: Image) -> dict[str, Any]:
        """Keep the images, and compute the kernel of each with itself."""
        return {"images": images, "within": within(images, self.patches, self.kernel)[..., None, None, None]}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give the mean squared discrepancy of each pair, (*,)."""
        return {self.name: (self.scale * squared_mmd(a, b, self.patches, self.kernel)).to(a["images"].dtype)}


def squared_mmd(a: dict[str, Tensor], b: dict[str, Tensor], patches: Patches, kernel: Kernel) -> Distance:
    """Give the squared MMD of each pair, (*,), of encodings with `images` and `within`."""
    own = (a["within"] + b["within"]).flatten(-3).squeeze(-1)
    return own - 2 * between(a["images"], b["images"], patches, kernel)
