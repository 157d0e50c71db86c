"""Lap1 weighs the levels of its pyramid as the paper does, or as the named code."""

import pytest
import torch
from torch.nn import functional

from losslab.losses.laplacian import Laplacian


def test_a_shift_of_brightness_lives_in_the_rest() -> None:
    """A constant difference c is invisible to every band, so Lap1 is |c|, and 4³|c| with the over-weighted levels."""
    x = torch.rand(2, 3, 32, 32) * 0.5
    torch.testing.assert_close(Laplacian()(x, x + 0.25), torch.full((2,), 0.25))
    torch.testing.assert_close(Laplacian(level_weights="ariel")(x, x + 0.25), torch.full((2,), 16.0))


def test_levels_add_up_to_the_image() -> None:
    """What the blur takes away and what it leaves are the whole image again."""
    x = torch.rand(1, 3, 16, 16)
    band, rest = Laplacian(levels=1).encode(x)
    smooth = x - band
    torch.testing.assert_close(functional.avg_pool2d(smooth, 2), rest)


def test_paper_is_the_plain_sum_of_level_means() -> None:
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    loss = Laplacian()
    levels = zip(loss.encode(x), loss.encode(y), strict=True)
    torch.testing.assert_close(loss(x, y), sum((a - b).abs().mean() for a, b in levels)[None])  # type: ignore[index]


def test_blur_is_binomial() -> None:
    """An impulse comes out as the outer product of (1, 4, 6, 4, 1)/16."""
    impulse = torch.zeros(1, 1, 16, 16)
    impulse[..., 8, 8] = 1
    taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    blurred = impulse - Laplacian(levels=1).encode(impulse)[0]
    torch.testing.assert_close(blurred[0, 0, 6:11, 6:11], torch.outer(taps, taps))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="'paper' or 'ariel'"):
        Laplacian(level_weights="seed")
    with pytest.raises(ValueError, match="levels"):
        Laplacian(levels=0)
