"""The picture of a map says what the numbers say."""

import matplotlib as mpl
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from losslab.figures import spatial_map as module
from losslab.figures.layout import coloured, text
from losslab.figures.spatial_map import spatial_map


def colour(share: float) -> list[int]:
    return [int(part) for part in mpl.colormaps[module.COLOURS](share, bytes=True)[:3]]


def areas(page: Tensor, wanted: list[int], side: int) -> int:
    """Count the places where a whole square of a colour begins."""
    hit = (page == torch.tensor(wanted, dtype=torch.uint8)[:, None, None]).all(0)[None, None].float()
    rows = torch.nn.functional.avg_pool2d(hit, (side, 1), 1) == 1
    return int((torch.nn.functional.avg_pool2d(rows.float(), (1, side), 1) == 1).sum())


def test_each_pixel_is_a_square_of_its_colour() -> None:
    """From zero to the largest value, whatever the smallest is; nothing is blurred."""
    values = torch.tensor([[2.0, 4.0], [3.0, 1.0]])
    page = spatial_map({"a": torch.zeros(3, 2, 2)}, {"loss": (values, 2.5)})
    for share in (0.25, 0.5, 0.75, 1.0):
        assert areas(page, colour(share), 128) == 1
    assert page[:, 20, -8].tolist() == [255, 255, 255]


def test_pictures_stand_beside_the_maps() -> None:
    """Both pictures as they are, and a map a loss, each with a scale of its own."""
    red, blue = torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)
    red[0], blue[2] = 1, 1
    values = torch.linspace(0, 1, 64 * 64).reshape(64, 64)
    one = spatial_map({"a": red, "b": blue}, {"x": (values, 0.5)})
    assert areas(one, [255, 0, 0], 256) == areas(one, [0, 0, 255], 256) == 1
    two = spatial_map({"a": red, "b": blue}, {"x": (values, 0.5), "y": (1000 * values, 500.0)})
    assert two.shape[-1] >= one.shape[-1] + 256
    assert two.shape[-2] == one.shape[-2]
    assert torch.equal(one[:, 28:284, 530:786], two[:, 28:284, 530:786])
    assert (two[:, 28:284, -300:] == torch.tensor(colour(1.0), dtype=torch.uint8)[:, None, None]).all(0).any()


def test_large_pictures_keep_their_pixels() -> None:
    values = torch.rand(300, 20)
    page = spatial_map({"a": torch.rand(3, 300, 20)}, {"x": (values, 0.5)})
    assert page.shape[-2] > 300
    assert page.shape[-2] < 400


def test_maps_of_one_value_or_none() -> None:
    """Equal pictures have a map of zeros; NaN is refused by name."""
    page = spatial_map({"a": torch.zeros(3, 8, 8)}, {"x": (torch.zeros(8, 8), 0.0)})
    assert areas(page, colour(0.0), 256) >= 1
    with pytest.raises(ValueError, match="x has a map with NaN or infinite values"):
        spatial_map({"a": torch.zeros(3, 8, 8)}, {"x": (torch.full((8, 8), torch.nan), 0.0)})


def test_text_tells_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names, the distance, and the smallest, largest and mean value."""
    lines: list[str] = []

    def kept(line: str) -> Picture.Image:
        lines.append(line)
        return text(line)

    monkeypatch.setattr(module, "text", kept)
    spatial_map({"one.png": torch.zeros(3, 8, 8)}, {"lpips": (torch.tensor([[1.0, 2.0], [2.0, 3.0]]), 0.25)})
    assert lines == ["one.png", "values 1 to 3, mean 2", "lpips: distance 0.25"]


def test_colours_are_shares_of_the_range() -> None:
    shown = coloured(torch.tensor([[-1.0, 0.0, 1.0]]), -1, 1, "viridis")
    assert [shown.getpixel((x, 0)) for x in range(3)] == [
        tuple(int(part) for part in mpl.colormaps["viridis"](share, bytes=True)[:3]) for share in (0.0, 0.5, 1.0)
    ]
