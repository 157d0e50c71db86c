"""The comparison protocol: what `encode` and `compare` are to a loss, for the features of one layer."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from itertools import chain
from numbers import Integral, Real
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


def check_switch(name: str, value: Any) -> None:
    """Refuse a word where a switch is meant: every word but an empty one would count as true.

    Raises:
        ValueError: the value is neither true nor false.
    """
    if not isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 - the word comes from a config
            f"{name} is true or false, got {value!r} (each is for compare=each)"
        )


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse words, infinity, what is no number, and numbers out of range.

    Raises:
        ValueError: the message names the range.

    Example:
        >>> check_number("weight", "half", least=0, below=1)
        Traceback (most recent call last):
        ValueError: weight is a number from 0 and less than 1, got 'half'
    """
    limits = [(operator.gt, "more than", above), (operator.ge, "from", least), (operator.lt, "less than", below),
              (operator.le, "at most", most)]  # fmt: skip
    given = [(holds, f"{words} {limit}", limit) for holds, words, limit in limits if limit is not None]
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and all(holds(value, limit) for holds, _, limit in given)):
        raise ValueError(f"{name} is a number {' and '.join(words for _, words, _ in given)}, got {value!r}")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number from `least`.

    Raises:
        ValueError: the message names the range.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number from {least}, got {value!r}")


def check_weights(name: str, weights: Mapping[str, Any]) -> None:
    """Refuse weights under which a sum is no distance, or the same for any images.

    Raises:
        ValueError: one is no number from 0, or none is more.
    """
    for part, weight in weights.items():
        check_number(f"{name} of {part}", weight, least=0)
    if not any(weights.values()):
        raise ValueError(f"{name} are all 0, so that nothing is compared: {', '.join(weights)}")


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
