"""The data sets hand out what they promise, the same each time, and name what they can't read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from losslab import images
from losslab.data.base import Batch
from losslab.data.folder import Folder
from losslab.data.photos import Photos, region

needs_real_data = pytest.mark.skipif(
    "LOSSLAB_DATA" not in os.environ, reason="LOSSLAB_DATA names no folder of real data"
)


def save(path: Path, height: int, width: int, value: int = 100, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Picture.fromarray(noise).convert(mode).save(path)


def test_photos_are_a_function_of_the_seed() -> None:

    def small(**options: int) -> Photos:
        return Photos(train_count=24, val_count=8, **options)  # type: ignore[arg-type]

    first, again, other = small(), small(), small(crop_seed=1)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert small(seed=5).fingerprint() == first.fingerprint()  # the training's seed changes no data
    assert len(first.train or ()) == 24
    assert len(first.val or ()) == 8


def test_photos_show_something() -> None:
    """No crop is flat, and no two of a set are the same."""
    data = Photos()
    data.setup()
    for split in (data.train, data.val):
        assert split is not None
        assert (images.to_float(split.stored).std(dim=(1, 2, 3)) > 0.01).all()
        assert len({crop.numpy().tobytes() for crop in split.stored}) == len(split)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50)])
def test_no_pixel_is_in_both_splits(height: int, width: int) -> None:
    """Regions share nothing and leave nothing out."""
    rows, columns = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    places = torch.stack([rows, columns, columns]).to(torch.uint8)  # each pixel holds its own place

    def held(split: str) -> set[tuple[int, ...]]:
        return {tuple(pixel) for pixel in region(places, split).flatten(1).T.tolist()}

    train, val = held("train"), held("val")
    assert not train & val
    assert len(train | val) == height * width
    assert len(val) == pytest.approx(0.25 * height * width, rel=0.05)


def test_crops_come_from_their_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the val part of each photograph marked, no training crop shows the mark, and val crops nothing else."""
    read = images.read

    def marked(path: Path) -> torch.Tensor:
        photograph = read(path).clone()
        region(photograph, "train")[0] %= 100
        region(photograph, "val")[0] = region(photograph, "val")[0] % 100 + 150
        return photograph

    monkeypatch.setattr("losslab.images.read", marked)
    train, val = Photos(train_count=64, val_count=32).load()
    assert train[:, 0].max() < 105
    assert val[:, 0].min() > 145


def test_scales_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no scale of .* fits a region"):
        Photos(scales=(900,)).setup()


def test_batches_carry_their_indices() -> None:
    data = Photos(train_count=8, val_count=0, batch_size=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, Batch)
    assert data.train is not None
    assert torch.equal(batch.images, images.to_float(data.train.stored[batch.indices]))
    assert [index for batch in data.test_dataloader() for index in batch.indices.tolist()] == list(range(8))


def test_too_few_images_for_a_batch() -> None:
    data = Photos(train_count=8, val_count=0, batch_size=16)
    data.setup()
    with pytest.raises(ValueError, match=r"8 training images are fewer than data.batch_size=16"):
        data.train_dataloader()


def test_folder_is_read_recursively(tmp_path: Path) -> None:
    for number, name in enumerate(["a.png", "deep/er/b.JPG", "deep/c.webp", ".hidden.png", "notes.txt"]):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            save(tmp_path / name, 70, 90, number)
    data = Folder(tmp_path, val_share=0)
    data.setup()
    assert data.facts() == {"train_images": 3, "val_images": 0, "skipped_images": 0}


def test_folder_splits_without_overlap(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", 64, 64, number)
    train, val = Folder(tmp_path, val_share=0.3).load()
    assert (len(train), len(val)) == (7, 3)
    assert len({image.numpy().tobytes() for image in torch.cat([train, val])}) == 10


def test_content_counts_and_place_does_not(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "here" / f"{number}.png", 64, 64, number)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = Folder(tmp_path / "here").fingerprint(), Folder(tmp_path / "there").fingerprint()
    assert here == there
    save(tmp_path / "there" / "2.png", 64, 64, 99)
    assert Folder(tmp_path / "there").fingerprint() != here


@pytest.mark.parametrize("fit", Folder.FITS)
def test_fits(tmp_path: Path, fit: str) -> None:
    """Each way to bring a picture to size gives that size; a crop keeps pixels as they are."""
    save(tmp_path / "wide.png", 80, 200)
    original = images.read(tmp_path / "wide.png")
    stored = Folder(tmp_path, fit=fit, val_share=0).load()[0]
    assert stored.shape == (1, 3, 64, 64)
    if fit == "crop":
        assert torch.equal(stored[0], original[:, 8:72, 68:132])
    assert torch.equal(stored, Folder(tmp_path, fit=fit, val_share=0).load()[0])


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_unreadable_files_are_named_or_counted(tmp_path: Path, damage: str) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", 64, 64, number)
    bad = tmp_path / "bad.png"
    whole = (tmp_path / "0.png").read_bytes()
    bad.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not a picture"}[damage])
    with pytest.raises(ValueError, match="bad.png"):
        Folder(tmp_path).setup()
    data = Folder(tmp_path, on_bad="skip", val_share=0)
    assert data.facts() == {"train_images": 3, "val_images": 0, "skipped_images": 1}
    assert "bad.png" in data.skipped[0]


def test_folder_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        Folder(tmp_path).setup()
    with pytest.raises(ValueError, match="is no folder"):
        Folder(tmp_path / "nowhere").setup()
    with pytest.raises(ValueError, match="data.fit is one of"):
        Folder(tmp_path, fit="centre")
    with pytest.raises(ValueError, match="data.on_bad is"):
        Folder(tmp_path, on_bad="ignore")
    with pytest.raises(ValueError, match="data.val_share"):
        Folder(tmp_path, val_share=1)
    with pytest.raises(ValueError, match="data.batch_size is a number of images, got 0"):
        Folder(tmp_path, batch_size=0)
    save(tmp_path / "tiny.png", 20, 30)
    with pytest.raises(ValueError, match="tiny.png has 20×30 pixels, too small for a crop of 64"):
        Folder(tmp_path, fit="crop").setup()
    (tmp_path / "tiny.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        Folder(tmp_path, on_bad="skip").setup()


@needs_real_data
def test_folder_reads_real_photographs() -> None:
    folder = Path(os.environ["LOSSLAB_DATA"]) / "kodak"
    count = len(list(folder.glob("*.png")))
    data = Folder(folder, val_share=0.25)
    assert data.facts() == {"train_images": count - count // 4, "val_images": count // 4, "skipped_images": 0}
