"""Fourier losses see the frequencies that they say, and count each of them once."""

import math

import pytest
import torch
from torch import Tensor

from losslab.losses.fourier import Fourier
from losslab.losses.pixel import L2

SIZES = [(24, 24), (25, 24), (24, 25), (21, 27)]


def wave(down: int, right: int, side: int = 32) -> Tensor:
    """Give a cosine of whole periods along both axes, around grey."""
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    return (0.5 + 0.4 * (2 * math.pi * (down * rows + right * columns) / side).cos())[None]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parseval(height: int, width: int) -> None:
    """Orthonormal, squared, and over all frequencies, it is L2 of the pixels; the two parts share it."""
    x, y = torch.rand(2, 3, height, width).double(), torch.rand(2, 3, height, width).double()
    torch.testing.assert_close(Fourier("complex", "l2")(x, y), L2()(x, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(Fourier("real_imag", "l2")(x, y), L2()(x, y) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_low_and_high_share_the_spectrum(height: int, width: int) -> None:
    """With signed frequencies each coefficient is in one of the two bands; (2 · 7 - 1)² of them are low."""
    x, y = torch.rand(1, 3, height, width).double(), torch.rand(1, 3, height, width).double()
    whole, low, high = (Fourier(band=band, cut=7, centred=True)(x, y) for band in ("all", "low", "high"))
    share = 13**2 / (height * width)
    torch.testing.assert_close(share * low + (1 - share) * high, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("down", "right", "seen"),
    [
        (3, 3, {"low", "high", "low_centred"}),  # (-3, -3) is stored at (29, 29), in the high corner
        (3, -3, {"low_centred"}),  # stored at (3, 29) and (29, 3), in neither corner
        (0, 4, {"low", "low_centred"}),
        (0, 12, {"high_centred"}),
        (12, 12, {"high", "high_centred"}),
        (9, 9, {"low", "high", "low_centred"}),
        (10, 9, {"high", "high_centred"}),  # (-10, -9) is stored at (22, 23)
    ],
)
def test_bands_see_their_frequencies(down: int, right: int, seen: set[str]) -> None:
    """The blog's corners miss a quadrant of low frequencies and hold low ones as high; signed bands do neither."""
    x = wave(down, right).double()
    flat = torch.full_like(x, 0.5)
    bands = {
        "low": ("low", False),
        "high": ("high", False),
        "low_centred": ("low", True),
        "high_centred": ("high", True),
    }
    found = {name for name, (band, centred) in bands.items() if Fourier(band=band, centred=centred)(x, flat) > 1e-6}
    assert found == seen


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("band", ["all", "low", "high"])
def test_backward_is_the_unscaled_transform(norm: str, power: int, band: str) -> None:
    """Its loss grows with the image, as √(H·W), or as H·W for squares."""
    x, y = torch.rand(2, 3, 20, 25), torch.rand(2, 3, 20, 25)
    ortho, backward = (Fourier("real_imag", norm, band, scale=scale)(x, y) for scale in ("ortho", "backward"))
    torch.testing.assert_close(backward, ortho * math.sqrt(500) ** power)


def test_half_the_transform_is_kept() -> None:
    """The other half is its conjugate."""
    spectrum, shape = Fourier().encode(torch.rand(2, 3, 20, 25))
    assert spectrum.is_complex()
    assert spectrum.shape == (2, 3, 20, 13)
    assert shape.numel() == 0


def test_widths_of_one_half_transform_are_told_apart() -> None:
    """24 and 25 columns have 13 coefficients a row, of different frequencies."""
    loss = Fourier()
    with pytest.raises(ValueError, match="different sizes"):
        loss.compare(loss.encode(torch.rand(1, 3, 24, 24)), loss.encode(torch.rand(1, 3, 24, 25)))


@pytest.mark.parametrize(("centred", "side"), [(False, 8), (True, 14)])
def test_smallest_side_of_a_high_band(centred: bool, side: int) -> None:
    """One coefficient at least is in the band, and at a pixel less there is none to take the mean of."""
    loss = Fourier(band="high", cut=7, centred=centred)
    assert loss.min_side == side
    assert loss(torch.rand(1, 1, side, side), torch.rand(1, 1, side, side)).isfinite().all()
    assert not loss._in_band(torch.arange(side - 1), torch.arange(side - 1)).any()
    assert Fourier(band="low", cut=7, centred=centred).min_side == 1


def test_options_are_checked() -> None:
    for argument in ("form", "norm", "band", "scale"):
        with pytest.raises(ValueError, match=f"{argument} is one of .*, got 'l3'"):
            Fourier(**{argument: "l3"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cut is 1 or more, got 0"):
        Fourier(cut=0)
