"""Sets of crops are where they should be."""

from pathlib import Path

import pytest
import torch

from losslab import images
from losslab.config import build, load, plain
from losslab.data.choosing import middle_square
from losslab.data.crops import Crops


def test_corners_are_the_four_of_the_source() -> None:
    """(0, 0), (o, 0), (o, o) and (0, o): the blog's order, rows first."""
    data = Crops(names=["coffee"], size=32, offset=3)
    data.setup()
    a, b, c, d = data.sets.pictures
    assert torch.equal(a[:, 3:], b[:, :-3])
    assert torch.equal(a[:, :, 3:], d[:, :, :-3])
    assert torch.equal(a[:, 3:, 3:], c[:, :-3, :-3])
    assert data.sets.names == ("coffee",)


def test_shifts_stay_within_the_offset() -> None:
    """Every crop is a part of the same square, and the seed alone says which."""

    def make(seed: int, places: str = "shifts") -> Crops:
        names = ["coffee", "chelsea"]
        return Crops(names=names, size=24, offset=5, count=7, places=places, crop_seed=seed)

    data, again, other = make(0), make(0), make(1)
    for one in (data, again, other):
        one.setup()
    assert data.sets.sizes == (7, 7)
    assert torch.equal(data.sets.pictures, again.sets.pictures)
    assert not torch.equal(data.sets.pictures, other.sets.pictures)
    whole = images.to_bytes(middle_square(data._paths()[0], 1.0, 29, "size"))
    parts = whole.unfold(1, 24, 1).unfold(2, 24, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    assert all(bool((parts == one).flatten(1).all(1).any()) for one in data.sets.pictures[:7])
    turned = make(0, "jitter")
    turned.setup()
    there = [bool((parts == one).flatten(1).all(1).any()) for one in turned.sets.pictures[:7]]
    assert 0 < sum(there) < 7


def test_zoom_takes_the_middle(tmp_path: Path) -> None:
    """Of a picture whose rim is white, a zoom sees nothing of the rim."""
    picture = torch.full((3, 80, 100), 255, dtype=torch.uint8)
    picture[:, 20:60, 30:70] = 0
    images.write(tmp_path / "a.png", picture)
    near, far = (Crops(root=tmp_path, size=16, offset=2, zoom=zoom) for zoom in (0.4, 1.0))
    near.setup()
    far.setup()
    assert int(near.sets.pictures.max()) == 0
    assert int(far.sets.pictures.max()) == 255
    assert near.files() == [tmp_path / "a.png"]


def test_bad_words(tmp_path: Path) -> None:
    """Each is named with what there is."""
    for words, message in {
        "places='middle'": "corners, shifts, jitter, got 'middle'",
        "zoom=0": "zoom is more than 0",
        "size=0": "data.size and data.count are from 1",
        "names=['cofee']": "there is no 'cofee'; there are astronaut, chelsea, coffee",
        "size=500": "to cut 503 from: lower data.size",
        f"root='{tmp_path}'": "holds no picture",
        "root='nowhere'": "is no folder",
    }.items():
        with pytest.raises(ValueError, match=message):
            eval(f"Crops({words}).setup()", {"Crops": Crops})


def test_default_sets_are_always_there() -> None:
    """What task=gim begins with needs no download."""
    data = build(plain(load("task=gim"))["data"])
    data.setup()
    assert len(data.sets) == 4
    assert data.sets.pictures.shape[1:] == (3, 96, 96)
    assert data.files() == []
