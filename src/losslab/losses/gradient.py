"""Losses that compare the slopes of two images, and no colours."""

import torch
from torch import Tensor

from losslab.differences import differences
from losslab.losses.base import Loss
from losslab.types import Distance, Image

SIDE_WEIGHTS = {"prewitt": 1.0, "sobel": 2.0}
"""Weight of the middle line across a 3×3 kernel; the lines beside it have 1."""


class Gradient(Loss[tuple[Tensor, Tensor]]):
    """Mean absolute difference of the slopes of two images, along both axes.

    Formula: ½ (mean |g_x(x) - g_x(y)| + mean |g_y(x) - g_y(y)|), where g_x and g_y filter each channel, or the mean of
    the channels if `gray`, without padding.

    The filters are [-1, 1] ("forward"), [-1, 0, 1] across [1, 1, 1] ("prewitt") or across [1, 2, 1] ("sobel").
    A constant added to a channel is invisible.

    Args:
        operator: "forward", "prewitt" or "sobel".
        gray: filter the mean of the channels, as one channel.
        normalized: scale the filters so that a ramp that grows by 1 a pixel answers 1; without it, Prewitt's and
            Sobel's whole numbers make it answer 6 and 8. It changes nothing for "forward".

    Raises:
        ValueError: an unknown operator.

    Paper and code: GradLoss of the original is `operator="forward", gray=True`, and GradLoss3Channels `gray=False`.
        FastGradLoss is `operator="prewitt", normalized=False`; its name says nothing of Prewitt. The default is
        `normalized=True`, so that losses of all three operators are of one size. The original has images in [-1, 1],
        which doubles its distances.

    Source: GradLoss, GradLoss3Channels and FastGradLoss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> Gradient()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(self, operator: str = "forward", *, gray: bool = False, normalized: bool = True) -> None:
        """Check the operator and set its scale."""
        super().__init__()
        if operator != "forward" and operator not in SIDE_WEIGHTS:
            raise ValueError(f"operator is 'forward', 'prewitt' or 'sobel', got {operator!r}")
        self.operator, self.gray = operator, gray
        self.middle = SIDE_WEIGHTS.get(operator, 0.0)
        self.min_side = 2 if operator == "forward" else 3
        ramp = 1.0 if operator == "forward" else 2 * (2 + self.middle)
        self.scale = 1 / ramp if normalized else 1.0

    def embed(self, images: Image) -> tuple[Tensor, Tensor]:
        """Filter along the rows, and along the columns."""
        if self.gray:
            images = images.mean(dim=-3, keepdim=True)
        return self._slope(images), self._slope(images.mT).mT

    def terms(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> dict[str, Distance]:
        """Give half the sum of the mean absolute differences of both slopes of each pair, (*,)."""
        means = [differences(p, q, "l1").mean(dim=(-3, -2, -1)) for p, q in zip(a, b, strict=True)]
        return {self.name: torch.stack(means).mean(0)}

    def _slope(self, images: Tensor) -> Tensor:
        """Filter along the last axis, by slices: kernels this small and this sparse are slower as convolutions."""
        if self.operator == "forward":
            return images.diff(dim=-1)
        central = (images[..., 2:] - images[..., :-2]) * self.scale
        return central[..., :-2, :] + self.middle * central[..., 1:-1, :] + central[..., 2:, :]
