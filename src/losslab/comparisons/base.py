"""The comparison protocol: what `encode` and `compare` are to a loss, for the features of one layer."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from losslab.types import Distance, Features

Kept = TypeVar("Kept")
"""The kind of `losslab.types.Encoding` that a comparison makes."""

Arranged: TypeAlias = Float[Tensor, "*#batch features _ _"]
"""Features after the costly first half of `encode`, which may leave fewer places than it found."""

Map: TypeAlias = Float[Tensor, "*#batch 1 _ _"]
"""One number a place and pair."""


class Comparison(nn.Module, ABC, Generic[Kept]):
    """A distance between the features of one layer, in the two halves of the loss protocol.

    A comparison writes `settle` and `compare`. One that begins with something costly that others could share, such as
    sorting, writes it as `arrange` and names it in `arrangement`. The tensors of an encoding have the batch axes first
    and then three axes of their own, also where two would do; like images, leading axes broadcast as torch's do.

    What is public among a comparison's attributes is what its numbers depend on, and hashable: `recipe` reads it.
    """

    arrangement: str = "as it is"
    """Names what `arrange` does: comparisons of equal names can share its results."""

    def arrange(self, features: Features) -> Arranged:
        """Do the part of `encode` that depends on no argument of the comparison: nothing, unless it says so."""
        return features

    @abstractmethod
    def settle(self, arranged: Arranged) -> Kept:
        """Do the rest of `encode`, on what `arrange` gave."""

    @abstractmethod
    def compare(self, a: Kept, b: Kept) -> Distance:
        """Give the distance of two encodings, one number a pair; leading axes broadcast."""

    def encode(self, features: Features) -> Kept:
        """Do the work that needs the features of one image only; the features may be aliased, and are not changed."""
        return self.settle(self.arrange(features))

    def maps(self, a: Kept, b: Kept) -> Map:
        """Give the distance at each place, (*, 1, h, w), whose mean is `compare`.

        Raises:
            ValueError: the comparison does not go place by place.
        """
        raise ValueError(f"{type(self).__name__} does not compare features place by place: it has no maps")

    def draw(self, step: int) -> str:
        """Set what is random to that of `step`, a function of the seed and the step alone, and name the draw."""
        return "fixed"

    def summands(self) -> list[tuple[float, "Comparison[Any]"]]:
        """Give the weighted comparisons that this one adds up: itself, unless it is a sum."""
        return [(1.0, self)]

    def recipe(self) -> Hashable:
        """Describe the comparison: two of equal recipes give the same numbers.

        One with tensors of its own, such as channel weights, equals itself alone.
        """
        inner = list(self.children())
        tensors = chain(self.parameters(recurse=False), self.buffers(recurse=False))
        if any(True for _ in tensors) or not all(isinstance(one, Comparison) for one in inner):
            return self
        own = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        return (
            type(self),
            tuple(sorted(own.items())),
            tuple(one.recipe() for one in inner if isinstance(one, Comparison)),
        )
