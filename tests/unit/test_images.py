"""Pictures are read, scaled, laid out and written as they should look."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from losslab import images


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_reads_every_mode_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Picture.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = images.read(path)
    assert image.shape == (3, 4, 5)
    assert (image > 250).all()


def test_reads_16_bits_without_clipping(tmp_path: Path) -> None:
    """PIL's own conversion would turn everything above 255 white."""
    Picture.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16)).save(tmp_path / "x.png")
    assert (images.read(tmp_path / "x.png") == 0x80).all()


def test_turns_pictures_upright(tmp_path: Path) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 6  # turned by 90°
    Picture.new("RGB", (8, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert images.read(tmp_path / "x.jpg").shape == (3, 8, 4)


def test_write_and_read_again(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 6, 7), dtype=torch.uint8)
    images.write(tmp_path / "new" / "x.png", image)
    assert torch.equal(images.read(tmp_path / "new" / "x.png"), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]
    with pytest.raises(ValueError, match="one picture"):
        images.write(tmp_path / "x.png", image[None])


def test_bytes_and_floats_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(images.to_bytes(images.to_float(every)), every)
    assert images.to_bytes(torch.tensor([[[-1.0, 2.0]]])).tolist() == [[[0, 255]]]


def test_resize_removes_what_the_grid_cannot_hold() -> None:
    """A checkerboard becomes grey, not black or white; what has the size is given as it is."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    assert images.resize(whole := torch.rand(2, 3, 8, 6), 8, 6) is whole
    small = images.resize(board.float().expand(2, 3, 64, 64), 16, 16)
    assert small.shape == (2, 3, 16, 16)
    torch.testing.assert_close(small, torch.full_like(small, 0.5), rtol=0, atol=0.02)


def test_a_grid_of_one_has_its_border() -> None:
    """It lines up with grids of more."""
    shape = images.grid([torch.zeros(1, 3, 8, 8)], 4).shape
    assert shape == (3, 12, 12)
    assert images.grid([torch.zeros(2, 3, 8, 8)], 4).shape == (3, 12, 22)


def test_grid_pairs_rows() -> None:
    """Originals stand above their reconstructions, band by band, also where the last band is short."""
    black, white = torch.zeros(3, 3, 4, 4), torch.ones(3, 3, 4, 4)
    picture = images.grid([black, white], columns=3, border=1)
    assert picture.shape == (3, 11, 16)
    assert (picture[:, 1:5, 1:5] == 0).all()
    assert (picture[:, 6:10, 1:5] == 255).all()
    short = images.grid([torch.zeros(5, 3, 4, 4), torch.full((5, 3, 4, 4), 0.2)], columns=3, border=1)
    assert short[0, [3, 8, 13, 18], 8].tolist() == [0, 51, 0, 51]
    assert short[0, [3, 8, 13, 18], 13].tolist() == [0, 51, 255, 255]
    assert images.grid([black[:2], white[:2]], columns=8, border=1).shape == (3, 11, 11)
