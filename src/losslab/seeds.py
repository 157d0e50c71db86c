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
