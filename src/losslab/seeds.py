"""The one seed function: random numbers of a seed and a count, the same on every device and in every process."""

import torch

STRIDE = 1_000_003
"""A prime between the streams of two seeds, far more than any run draws."""


def generator(seed: int, count: int = 0) -> torch.Generator:
    """Give a generator on the CPU that is a function of `seed` and `count` alone."""
    return torch.Generator().manual_seed(seed * STRIDE + count)


def draws_before(step: int, redraw_every: int) -> int:
    """Count the draws before that of `step`, where every `redraw_every` steps have one, and 0 means a single one."""
    if redraw_every < 0:
        raise ValueError(f"redraw_every is a number of steps, or 0 for a single draw, got {redraw_every}")
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
            ValueError: redraw_every is less than 0.
        """
        index = draws_before(step, self.redraw_every)
        if index == self.index:
            return None
        self.index = index
        return generator(self.seed, index)

    def __str__(self) -> str:
        return f"seed {self.seed}, draw {self.index}"
