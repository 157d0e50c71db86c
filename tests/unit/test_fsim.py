"""Feature similarity where its value can be worked out by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.losses import fsim
from losslab.losses.fsim import FSIM


def colour(red: float, green: float, blue: float, side: int = 32) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64)[:, None, None].expand(3, side, side)


def test_phase_congruency_is_high_at_edges_and_blind_to_contrast() -> None:
    """A step of any height has nearly the same phase congruency, highest beside it; a constant has none.

    Images go on periodically, so that there is a step at the border too.
    """
    step = torch.zeros(1, 48, 48, dtype=torch.float64)
    step[..., 24:] = 200
    high, low = fsim._phase_congruency(step), fsim._phase_congruency(step / 4 + 20)
    torch.testing.assert_close(high, low, rtol=1e-3, atol=1e-4)
    beside = [0, 23, 24, 47]
    others = [place for place in range(48) if place not in beside]
    assert high[0, 24, beside].min() > high[0, 24, others].max() + 0.05
    assert not fsim._phase_congruency(torch.full((1, 48, 48), 77.7)).any()


def test_low_contrast_keeps_its_digits() -> None:
    """In 32 bits, a bright level does not drown the phases of what is faint upon it."""
    faint = (200 + 0.1 * torch.rand(1, 47, 51)).float()
    exact = fsim._phase_congruency(faint.double())
    torch.testing.assert_close(fsim._phase_congruency(faint).double(), exact, rtol=0, atol=1e-5)


def test_flat_images_are_compared_place_by_place() -> None:
    """Without phase congruency all places count alike: inside, only the colours differ; at the border, the slopes."""
    a, b = colour(0.5, 0.5, 0.5), colour(0.5, 0.2, 0.5)
    found = FSIM()(a, b)
    i, q = 255 * 0.3 * 0.274, 255 * 0.3 * 0.523
    similar = (200 / (i**2 + 200) * 200 / (q**2 + 200)) ** 0.03
    levels = [255 * 0.5, 255 * (0.5 - 0.3 * 0.587)]
    # against black, (3, 10, 3)/16 of the level along an edge; two directions with 13/16 of it in a corner
    slopes = [torch.tensor([1.0, math.hypot(13, 13) / 16]) * level for level in levels]
    s_g = (2 * slopes[0] * slopes[1] + 160) / (slopes[0] ** 2 + slopes[1] ** 2 + 160)
    places = torch.tensor([4 * 30, 4])
    expected = 1 - similar * (30 * 30 + (places * s_g).sum()) / 32**2
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)


def test_opposite_hues() -> None:
    """A negative similarity of colours is raised as the authors' program does it, or as its absolute value."""
    a, b = colour(0.5, 0.5, 0.5), colour(0.5, 0.5, 0.5)
    a, b = a + colour(0.1, 0, 0), b - colour(0.1, 0, 0)
    i, q = 25.5 * 0.596, 25.5 * 0.211
    s_i, s_q = ((200 - 2 * c**2) / (200 + 2 * c**2) for c in (i, q))
    assert s_i * s_q < 0
    inside = slice(8, 24)
    for negative, turned in (("real", math.cos(0.03 * math.pi)), ("absolute", 1.0)):
        loss = FSIM(negative=negative, t2=1e12)  # slopes don't count
        expected = 1 - turned * abs(s_i * s_q) ** 0.03
        torch.testing.assert_close(float(loss(a[:, inside], b[:, inside])), expected, rtol=1e-6, atol=0)


def test_weights_are_the_higher_phase_congruency() -> None:
    """Σ m (1 - S)/Σ m, with everything of the formula put together from the parts of the encodings."""
    loss = FSIM()
    x, y = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    a, b = loss.encode(x), loss.encode(y)
    t = (0.85, 160, 200, 200)
    s = [(2 * p * q + c) / (p**2 + q**2 + c) for p, q, c in zip(a, b, t, strict=True)]
    chroma = s[2] * s[3]
    power = torch.where(chroma < 0, math.cos(0.03 * math.pi), 1) * chroma.abs() ** 0.03
    m = torch.maximum(a[0], b[0])
    expected = 1 - (m * s[0] * s[1] * power).sum() / m.sum()
    torch.testing.assert_close(loss(x, y), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("side", "block"), [(383, 1), (384, 2), (640, 3)])
def test_large_images_are_shrunk(side: int, block: int) -> None:
    """The shorter side over 256, rounded with halves up, says how much; images of that size keep their own."""
    image = torch.rand(3, side, side + 7)
    found = FSIM().embed(image)
    assert found.shape[-2:] == (side // block, (side + 7) // block)
    if block > 1:
        torch.testing.assert_close(found, FSIM().embed(functional.avg_pool2d(image, block)))


def test_close_images_keep_their_digits() -> None:
    """A thousandth of the step has about a millionth of the distance, also in 32 bits."""
    x = 0.25 + torch.rand(1, 3, 40, 40) / 2
    noise = torch.randn_like(x)
    coarse, fine = FSIM()(x, x + 1e-3 * noise), FSIM()(x, x + 1e-4 * noise)
    exact = FSIM()(x.double(), x.double() + 1e-4 * noise.double())
    torch.testing.assert_close(fine.double(), exact, rtol=1e-3, atol=0)
    assert 60 < coarse / fine < 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t2": 0.0}, "more than 0"),
        ({"power": 0.6}, "up to 0.5"),
        ({"negative": "imaginary"}, r"one of \['real', 'absolute'\], got 'imaginary'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FSIM(**arguments)  # type: ignore[arg-type]
