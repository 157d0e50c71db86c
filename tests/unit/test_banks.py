"""Filter banks: their filters by formula, and responses, rectification and averages by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.config import build, load, plain
from losslab.networks.banks import FilterBank, gabor, prewitt

LAYERS = {"response": "", "relu": "", "pool": ""}


def bank(select: str | list[str], filters: Tensor | None = None, **arguments: Any) -> FilterBank:
    return FilterBank("bank", LAYERS, [], select, prewitt() if filters is None else filters, **arguments)


def test_prewitt_by_loops() -> None:
    """Responses are differences of sums of three grey pixels in [-1, 1], with grey beyond the border."""
    x = torch.rand(1, 3, 5, 6)
    grey = functional.pad((2 * x - 1).mean(1), (1, 1, 1, 1))[0]
    found = bank(["response", "relu", "pool"], bias=0.1).read(x)
    expected = torch.zeros(2, 5, 6)
    for row in range(5):
        for column in range(6):
            square = grey[row : row + 3, column : column + 3]
            expected[0, row, column] = square[0].sum() - square[2].sum()
            expected[1, row, column] = square[:, 0].sum() - square[:, 2].sum()
    torch.testing.assert_close(found["response"][0], expected)
    torch.testing.assert_close(found["relu"][0], (expected + 0.1).clamp(min=0))
    torch.testing.assert_close(found["pool"][0, :, 0, 0], (expected + 0.1).clamp(min=0).mean(dim=(1, 2)))


def test_windows() -> None:
    """Windows start at multiples of the stride and never leave the image."""
    x = torch.rand(2, 3, 21, 30)
    relu = bank("relu").read(x)["relu"]
    pool = bank("pool", window=8, stride=4).read(x)["pool"]
    assert pool.shape == (2, 2, 4, 6)
    torch.testing.assert_close(pool[:, :, 3, 5], relu[:, :, 12:20, 20:28].mean(dim=(2, 3)))


def test_gabor_by_formula() -> None:
    """Each of the 64 filters is an envelope times a wave, in the order angle, width, wavelength, aspect."""
    filters = gabor()
    index = 0
    for angle in range(8):
        theta = angle * math.pi / 8
        for sigma in (2.2, 4.4):
            for wavelength in (2.75, 5.5):
                for aspect in (1, 2):
                    for x, y in ((0, 0), (1, 0), (0, 1), (-3, 2), (5, 5)):
                        u = x * math.cos(theta) + y * math.sin(theta)
                        v = y * math.cos(theta) - x * math.sin(theta)
                        envelope = math.exp(-(u**2 + aspect**2 * v**2) / (2 * sigma**2))
                        expected = envelope * math.cos(2 * math.pi * u / wavelength + math.pi)
                        assert float(filters[index, 5 + y, 5 + x]) == pytest.approx(expected, abs=1e-6)
                    index += 1
    assert index == len(filters)


def test_gabor_answers_its_own_orientation_most() -> None:
    """Stripes are found by the filter along them, and not by the one across."""
    stripes = (torch.arange(64) * 2 * math.pi / 5.5).cos().mul(0.5).add(0.5).expand(1, 3, 64, 64)
    pool = build(plain(load("loss=gabor"))["loss"]).network.read(stripes)["pool"].reshape(8, 2, 2, 2)
    assert pool[:, 1, 1, 0].argmax() == 0
    assert pool[0, 1, 1, 0] > 20 * pool[4, 1, 1, 0]


def test_any_number_of_channels() -> None:
    """Grey is the mean of the channels."""
    x = torch.rand(2, 1, 12, 12)
    torch.testing.assert_close(bank("pool").read(x)["pool"], bank("pool").read(x.expand(2, 5, 12, 12))["pool"])


@pytest.mark.parametrize(
    ("select", "arguments", "side"),
    [
        ("pool", {}, 1),
        ("pool", {"pad": False}, 3),
        ("pool", {"window": 8, "pad": False}, 10),
        ("relu", {"window": 8}, 1),
        ("pixels", {"pad": False}, 1),
        ("pool", {"filters": gabor(), "pad": False}, 11),
    ],
)
def test_smallest_side(select: str, arguments: dict[str, Any], side: int) -> None:
    mine = bank(select, **arguments)
    assert mine.min_side == side
    assert mine.read(torch.rand(1, 3, side, side))[select].numel() > 0


def test_sizes_are_told_apart_after_averages() -> None:
    """Features that are means over an image don't make images of two sizes comparable."""
    loss = build(plain(load("loss=gabor"))["loss"])
    with pytest.raises(ValueError, match="different sizes"):
        loss.compare(loss.encode(torch.rand(1, 3, 20, 20)), loss.encode(torch.rand(1, 3, 20, 30)))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got 0 and 1"):
        bank("pool", window=0)
    with pytest.raises(ValueError, match="at least 1 pixel, got None and 0"):
        bank("pool", stride=0)
    with pytest.raises(ValueError, match="size is odd"):
        gabor(10)
    with pytest.raises(ValueError, match="more than 0"):
        gabor(sigmas=[0.0])
    with pytest.raises(KeyError, match="unknown layer"):
        bank("conv1")
