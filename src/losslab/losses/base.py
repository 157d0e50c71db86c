"""The loss protocol: encode each image once, then compare encodings as often as you like."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from losslab import images as contract
from losslab.types import Distance, Drawn, Image

Kept = TypeVar("Kept")
"""The kind of `losslab.types.Encoding` that a loss makes."""
Value = TypeVar("Value")


class Loss(nn.Module, ABC, Generic[Kept]):
    """A distance between images, in two halves.

    `encode` does all the work that needs one image only, `compare` all the work that needs both; neither changes its
    input or any state. Leading axes broadcast as torch's do: N against N, or 1 against N. What is random in a loss
    changes by `draw` alone.
    """

    min_side: int = 1
    """Smallest legal height and width of an image, in pixels."""

    @property
    def name(self) -> str:
        """What logs and errors call this loss."""
        return type(self).__name__.lower()

    def encode(self, images: Tensor) -> Kept:
        """Check the images and do the work that needs one image only.

        Args:
            images: (*, C, H, W) in [0, 1], at least `min_side` pixels a side.

        Returns:
            Tensors with the batch axes first; they may alias `images`.

        Raises:
            ValueError: the images break the range contract or are too small.
        """
        contract.check(images, self.min_side, self.name)
        return self._encode(images)

    @abstractmethod
    def _encode(self, images: Image) -> Kept:
        """Do `encode`'s work, on images that were checked."""

    @abstractmethod
    def compare(self, a: Kept, b: Kept) -> Distance:
        """Give the distance of two encodings, one number a pair; leading axes broadcast."""

    def parts(self, a: Kept, b: Kept) -> dict[str, Distance]:
        """Give the terms that `compare` adds up, by name; a loss of one term has one part."""
        return {self.name: self.compare(a, b)}

    def draw(self, step: int) -> None:
        """Set the random state to that of `step`, a function of the loss's seed and the step alone."""

    def forward(self, x: Tensor, y: Tensor) -> Distance:
        """Give the distance of each pair of images, (*,)."""
        return self.compare(self.encode(x), self.encode(y))


def total(parts: dict[str, Distance]) -> Distance:
    """Add up the terms of a loss, (*,)."""
    return torch.stack(list(parts.values())).sum(0)


def same_draw(a: Drawn[Value], b: Drawn[Value]) -> tuple[Value, Value]:
    """Unwrap two encodings that were made under the same draw.

    Raises:
        ValueError: they were not; a distance between them would be noise.
    """
    if a.draw != b.draw:
        raise ValueError(f"can't compare encodings of two draws ({a.draw} and {b.draw}): encode the older one again")
    return a.value, b.value
