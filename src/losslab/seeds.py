"""The one seed function: random numbers of a seed and a count, the same on every device and in every process."""

from numbers import Integral

import torch

STRIDE = 1_000_003
"""A prime between the streams of two seeds, far more than any run draws."""


def generator(seed: int, count: int = 0) -> torch.Generator:
    """Give a generator on the CPU that is a function of `seed` and `count` alone.

    Raises:
        ValueError: the seed is no whole number.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ValueError(f"seed is a whole number, got {seed!r}")  # noqa: TRY004 - it comes from a config
    return torch.Generator().manual_seed(seed * STRIDE + count)


def draws_before(step: int, redraw_every: int) -> int:
    """Count the draws before that of `step`, where every `redraw_every` steps have one, and 0 means a single one.

    Raises:
        ValueError: `redraw_every` is no whole number from 0.
    """
    if not isinstance(redraw_every, Integral) or isinstance(redraw_every, bool) or redraw_every < 0:
        raise ValueError(f"redraw_every is a number of steps, or 0 for a single draw, got {redraw_every!r}")
    return step // redraw_every if redraw_every else 0


class Draws:
    """The draws of one random state, of which it holds one at a time.

    Args:
        seed: of all draws.
        redraw_every: steps between two of them; 0 has a single one.
    """

    def __init__(self, seed: int, redraw_every: int) -> None:
        """Begin before the first draw."""
        self.seed, self.redraw_every, self.index = seed, redraw_every, -1

    def due(self, step: int) -> torch.Generator | None:
        """Give the generator of the draw of `step`, or None where that is the draw there is.

        Raises:
            ValueError: the seed is no whole number, or redraw_every none from 0.
        """
        index = draws_before(step, self.redraw_every)
        if index == self.index:
            return None
        self.index = index
        return generator(self.seed, index)

    def __str__(self) -> str:
        return f"seed {self.seed}, draw {self.index}"
