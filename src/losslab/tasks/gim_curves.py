"""The loss of each image at each step: what a search has done, and whether it still moves."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHARE_OF_FALL = 0.99
"""Of a loss's whole fall; where so much of it is done, an image counts as settled."""


class Curves:
    """Losses (steps, images); of images that another device computes, zeros.

    Args:
        count: images.
    """

    def __init__(self, count: int) -> None:
        """Begin before the first step."""
        self.count = count
        self.steps: list[Tensor] = []

    def note(self, step: int, which: Sequence[int], losses: Tensor) -> None:
        """Keep the losses of some images at a step; the others keep their last."""
        if len(self.steps) == step:
            before = self.steps[-1] if self.steps else losses.new_zeros(self.count)
            self.steps.append(before.clone())
        self.steps[step][[*which]] = losses.to(self.steps[step])

    def state(self) -> Tensor:
        """Give all steps, (steps, images)."""
        return torch.stack(self.steps) if self.steps else torch.zeros(0, self.count)

    def load(self, state: Tensor) -> None:
        """Go on from what `state` gave."""
        self.steps = [*state.unbind()]

    def falling(self, patience: int, tolerance: float, everywhere: Callable[[Tensor], Tensor]) -> Tensor:
        """Tell whose loss has fallen, in the mean over `patience` steps, by `tolerance` of itself, (images,).

        Args:
            patience: steps; there are twice as many at least.
            tolerance: least share.
            everywhere: adds a tensor up over devices.
        """
        before, now = everywhere(torch.stack(self.steps[-2 * patience :])).unflatten(0, (2, -1)).mean(1).cpu()
        fallen: Tensor = before - now >= tolerance * before.abs()
        return fallen


def settled_after(curve: Tensor, since: int) -> int:
    """Give the first step from `since` on with 99 % of the fall of a loss done, of its curve (steps,).

    Example:
        >>> settled_after(torch.tensor([9.0, 5.0, 1.0, 0.02, 0.01, 0.0]), 1)
        3
    """
    rest = curve[since:]
    if len(rest) == 0 or not bool(rest[0] > rest[-1]):
        return since
    return since + int((rest[0] - rest >= SHARE_OF_FALL * (rest[0] - rest[-1])).int().argmax())
