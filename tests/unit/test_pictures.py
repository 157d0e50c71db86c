"""A table of pictures holds what the files hold, is made once, and is never half made."""

import errno
import logging
import os
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from losslab import images
from losslab.data import pictures
from losslab.data.pictures import PictureTable


def save(path: Path, height: int = 40, width: int = 40, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Picture.fromarray(noise).save(path)
    return path


def several(folder: Path, count: int = 5) -> list[Path]:
    return [save(folder / f"{number}.png", seed=number) for number in range(count)]


def read(table: PictureTable, paths: list[Path]) -> torch.Tensor:
    """Give the picture of each path."""
    found, places = table.read(paths)
    return found[places]


def tables(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [16, 40, 64, 7])
@pytest.mark.parametrize("shape", [(40, 40), (33, 70)])
def test_size_is_changed_as_pil_does(tmp_path: Path, size: int, shape: tuple[int, int]) -> None:
    """With antialias, bytes are those of PIL's BILINEAR, on which the published numbers rest."""
    path = save(tmp_path / "a.png", *shape)
    with Picture.open(path) as picture:
        wanted = np.asarray(picture.resize((size, size), Picture.Resampling.BILINEAR))
    assert np.array_equal(read(PictureTable(size), [path])[0].permute(1, 2, 0).numpy(), wanted)


def test_size_is_changed_without_a_filter(tmp_path: Path) -> None:
    """Without antialias a pixel is made of the nearest four alone: at a quarter of the size, of the middle ones."""
    path = save(tmp_path / "a.png", 64, 64)
    whole = images.read(path).float()
    wanted = (whole[:, 1::4, 1::4] + whole[:, 1::4, 2::4] + whole[:, 2::4, 1::4] + whole[:, 2::4, 2::4]) / 4
    found = read(PictureTable(16, antialias=False), [path])[0]
    assert torch.allclose(found.float(), wanted, atol=0.501)
    assert not torch.allclose(read(PictureTable(16), [path])[0].float(), wanted, atol=10)


def test_order_is_that_of_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over threads and blocks, each picture stands where its path does; a path may come twice."""
    monkeypatch.setattr(pictures, "BLOCK", 3)
    paths = several(tmp_path, 8)
    paths = [*reversed(paths), paths[2]]
    wanted = torch.stack([images.read(path) for path in paths])
    assert torch.equal(read(PictureTable(40), paths), wanted)
    assert torch.equal(read(PictureTable(40, cache=tmp_path / "kept"), paths), wanted)


def test_files_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opening reads no picture, warns of nothing, and what is done to its tensor changes no file."""
    paths = several(tmp_path / "in")
    table = PictureTable(16, cache=tmp_path / "kept")
    first = read(table, paths).clone()
    monkeypatch.setattr(images, "read", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(table, paths)
    assert torch.equal(found, first)
    found.zero_()
    assert torch.equal(read(table, paths), first)
    assert len(tables(tmp_path / "kept")) == 1


def test_what_decides_the_bytes_makes_another_table(tmp_path: Path) -> None:
    """Size, filter, order, other content and other files are never answered from a table that is not theirs."""
    paths, cache = several(tmp_path / "in"), tmp_path / "kept"
    base = read(PictureTable(16, cache=cache), paths)
    assert read(PictureTable(20, cache=cache), paths).shape[-1] == 20
    assert not torch.equal(read(PictureTable(16, antialias=False, cache=cache), paths), base)
    assert torch.equal(read(PictureTable(16, cache=cache), paths[::-1]), base.flip(0))
    assert len(read(PictureTable(16, cache=cache), paths[:2])) == 2
    twins = [path.rename(path.with_name(f"new{path.name}")) for path in several(tmp_path / "twin")]
    assert torch.equal(read(PictureTable(16, cache=cache), twins), base)
    assert len(tables(cache)) == 6
    save(paths[0], seed=99)
    os.utime(paths[0], ns=(0, 10**18))
    assert not torch.equal(read(PictureTable(16, cache=cache), paths), base)


def test_place_decides_where_size_and_time_are_one(tmp_path: Path) -> None:
    """Files of one size and time, as an archive may bring them, are told apart by their places."""
    first, second = (save(tmp_path / folder / "a.bmp", seed=seed) for seed, folder in enumerate(("one", "two")))
    for path in (first, second):
        os.utime(path, ns=(0, 10**18))
    table = PictureTable(16, cache=tmp_path / "kept")
    assert first.stat().st_size == second.stat().st_size
    assert not torch.equal(read(table, [first]), read(table, [second]))


def test_bad_pictures_are_counted_and_named(tmp_path: Path) -> None:
    """All are counted, the first ones named with what is wrong, and no table is left."""
    paths = several(tmp_path / "in", 12)
    for path in paths[3:11]:
        path.write_bytes(path.read_bytes()[:500])
    words = r"8 of 12 pictures are bad: can't read .*in/3\.png as an image: .*truncated.*in/7\.png.*; and 3 more$"
    for cache in (None, tmp_path / "kept"):
        with pytest.raises(images.UnreadableImageError, match=words):
            read(PictureTable(16, cache=cache), paths)
    assert tables(tmp_path / "kept") == []
    with pytest.raises(images.UnreadableImageError, match="8 of 8 pictures are bad"):
        PictureTable(16).read(paths[3:11])


def test_missing_file_is_named(tmp_path: Path) -> None:
    paths = [*several(tmp_path), tmp_path / "gone.png"]
    with pytest.raises(images.UnreadableImageError, match=r"gone\.png"):
        read(PictureTable(16), paths)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read(PictureTable(16, cache=tmp_path / "kept"), paths)


def test_full_disk_leaves_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the disk is what is told, and nothing is left that could be taken for a table."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    paths = several(tmp_path / "in")
    monkeypatch.setattr(pictures, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        read(PictureTable(16, cache=tmp_path / "kept"), paths)
    assert tables(tmp_path / "kept") == []


def test_pictures_that_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is of one state of its files, or there is none."""
    paths = several(tmp_path / "in")
    decode = images.read

    def changing(path: Path) -> torch.Tensor:
        os.utime(paths[0], ns=(0, 10**18))
        return decode(path)

    monkeypatch.setattr(images, "read", changing)
    with pytest.raises(ValueError, match="were changed while they were read"):
        read(PictureTable(16, cache=tmp_path / "kept"), paths)
    assert tables(tmp_path / "kept") == []


@pytest.mark.parametrize("kept", [True, False])
def test_equal_pictures_are_one(tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their names, formats and sizes on disk: what is equal in the table is there once, at its first place."""
    monkeypatch.setattr(pictures, "BLOCK", 2)
    paths = several(tmp_path / "in", 3)
    shutil.copy(paths[1], tmp_path / "in" / "copy.png")
    with Picture.open(paths[0]) as picture:
        picture.save(tmp_path / "in" / "same.bmp")
    paths = [paths[0], paths[1], tmp_path / "in" / "copy.png", tmp_path / "in" / "same.bmp", paths[2], paths[0]]
    table = PictureTable(40, cache=tmp_path / "kept" if kept else None)
    for _ in range(2):
        found, places = table.read(paths)
        assert places.tolist() == [0, 1, 1, 0, 2, 0]
        assert torch.equal(found, torch.stack([images.read(paths[at]) for at in (0, 1, 4)]))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no table", None])
def test_damaged_table_is_named(tmp_path: Path, content: bytes | None) -> None:
    """What lies where a table was kept is checked, not believed."""
    paths, table = several(tmp_path / "in"), PictureTable(16, cache=tmp_path / "kept")
    read(table, paths)
    kept = next((tmp_path / "kept").iterdir())
    kept.write_bytes(kept.read_bytes()[:-1] if content is None else content)
    with pytest.raises(ValueError, match=f"{kept.name}.*remove it"):
        read(table, paths)
    for shape, places in (((5, 3, 16, 17), 5), ((5, 3, 16, 16), 4)):
        with kept.open("wb") as file:
            np.save(file, np.zeros(shape, np.uint8))
            np.save(file, np.arange(places))
        with pytest.raises(ValueError, match=f"{kept.name} holds uint8 of shape .*remove it"):
            table.read(paths)
    np.save(kept, np.array([{}] * 5, dtype=object))
    with pytest.raises(ValueError, match=f"{kept.name} is no table"):
        read(table, paths)


def test_two_at_once_make_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decodes, the other one waits and maps the same file: the lock is of the file, so threads will do."""
    paths, decode, decoded = several(tmp_path / "in"), images.read, []

    def slow(path: Path) -> torch.Tensor:
        time.sleep(0.05)
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(images, "read", slow)
    table = PictureTable(16, cache=tmp_path / "kept")
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(table.read, [paths, paths])
    assert torch.equal(first.table, second.table)
    assert len(decoded) == len(paths)
    assert len(tables(tmp_path / "kept")) == 1


def test_first_decoding_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What takes minutes says what it is, once."""
    paths, table = several(tmp_path / "in"), PictureTable(16, cache=tmp_path / "kept")
    with caplog.at_level(logging.INFO):
        read(table, paths)
        read(table, paths)
    assert caplog.text.count("decoding 5 pictures once") == 1


@pytest.mark.parametrize("size", [0, -1, "64", 1.5])
def test_size_that_is_none(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="size|not an instance"):  # in tests annotations are checked first
        PictureTable(size)


def test_table_without_pictures() -> None:
    with pytest.raises(ValueError, match="one file at least"):
        PictureTable().read([])
