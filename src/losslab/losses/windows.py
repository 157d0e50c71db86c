"""A wrapper that compares two images window by window."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from losslab.losses.base import Loss
from losslab.types import Distance, Image


class Windows(Loss[Any]):
    """Any loss in each window of the images, averaged over the windows.

    Formula: mean_W loss(x|W, y|W) over the window×window squares W whose corners lie at multiples of `stride`.

    Each window is an image of its own for the inner loss. A loss that sees a set of patches without their places, such
    as `PatchSWD`, is told by this roughly where they are. Pixels beyond the last whole window are not seen.

    Args:
        loss: what compares two windows.
        window: side of a window in pixels, at least the inner loss's smallest image.
        stride: step from window to window in pixels, 1 or more.

    Raises:
        ValueError: the window is too small for the loss, or the stride less than 1.

    Source: WindowLoss of ariel415el/PerceptualLossExperiments, which loops over the batch.

    Example:
        >>> import torch
        >>> from losslab.losses.pixel import L1
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> Windows(L1())(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    def __init__(self, loss: Loss[Any], window: int = 32, stride: int = 16) -> None:
        """Check the window against the loss in it."""
        super().__init__()
        if window < loss.min_side:
            raise ValueError(f"window is at least the {loss.min_side} pixels that {loss.name} needs, got {window}")
        if stride < 1:
            raise ValueError(f"stride is 1 or more pixels, got {stride}")
        self.loss, self.window, self.stride = loss, window, stride
        self.min_side = window
        self.own_axes = loss.own_axes + 2  # rows and columns of windows

    def embed(self, images: Image) -> Any:
        """Embed each window, with the axes (*, rows, columns) first."""
        return self.loss.embed(_cut(images, self.window, self.stride))

    def terms(self, a: Any, b: Any) -> dict[str, Distance]:
        """Give the inner loss's terms, averaged over the windows."""
        return {name: part.mean(dim=(-2, -1)) for name, part in self.loss.terms(a, b).items()}

    def draw(self, step: int) -> None:
        """Draw the inner loss's random state of `step`."""
        self.loss.draw(step)


def _cut(images: Image, window: int, stride: int) -> Float[Tensor, "*#batch rows columns channels side side"]:
    """View images as windows, without a copy."""
    return images.unfold(-2, window, stride).unfold(-2, window, stride).movedim(-5, -3)
