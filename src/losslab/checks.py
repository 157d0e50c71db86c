"""Checks of words and numbers that come from a config."""

import math
import operator
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def check_switch(name: str, value: Any) -> None:
    """Refuse a word where a switch is meant: every word but an empty one would count as true.

    Raises:
        ValueError: the value is neither true nor false.
    """
    if not isinstance(value, bool):
        hint = "; each is for compare=each" if value == "each" else ""
        raise ValueError(f"{name} is true or false, got {value!r}{hint}")  # noqa: TRY004 - the word comes from a config


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
