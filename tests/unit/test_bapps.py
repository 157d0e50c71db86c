"""BAPPS's files belong together by their names, and what is wrong with them is told before anything is decoded."""

import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bapps_tree import make_tree, save

from losslab import images
from losslab.config import build, load, plain
from losslab.data import bapps_files
from losslab.data.bapps import Bapps, BappsJND
from losslab.data.bapps_files import JND, TRAIN, VAL
from losslab.metrics.resampling import share_pictures


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tree that no test changes."""
    return make_tree(tmp_path_factory.mktemp("bapps"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree of two subsets to damage."""
    return make_tree(tmp_path / "own", [VAL, JND], count=4)


def two(root: Path, **options: Any) -> Bapps:
    return Bapps(root, ["cnn", "color"], **options)


def test_triplets_are_those_of_the_files(whole: Path) -> None:
    """Of all six subsets: each label stands with the three pictures of its name."""
    held = Bapps(whole, size=16).load()
    assert held.subsets == ("traditional", "cnn", "superres", "deblur", "color", "frameinterp")
    assert (len(held), held.pictures.shape) == (18, (54 - 6, 3, 16, 16))  # a subset's first p0 is its reference
    row = 0
    for place, subset in enumerate(held.subsets):
        for number in range(3):
            folder = whole / "2afc" / "val" / subset
            for name, index in (("ref", held.reference), ("p0", held.p0), ("p1", held.p1)):
                assert torch.equal(held.pictures[index[row]], images.read(folder / name / f"{number:06}.png"))
            assert held.judge[row] == np.load(folder / "judge" / f"{number:06}.npy").item()
            assert held.subset[row] == place
            row += 1
    assert held.votes is not None
    assert held.votes.tolist() == [5] * 18


def test_pairs_are_those_of_the_files(whole: Path) -> None:
    held = BappsJND(whole, size=16).load()
    assert held.subsets == ("traditional", "cnn")
    for row, (subset, number) in enumerate((one, number) for one in held.subsets for number in range(3)):
        folder = whole / "jnd" / "val" / subset
        for name, index in (("p0", held.p0), ("p1", held.p1)):
            assert torch.equal(held.pictures[index[row]], images.read(folder / name / f"{number:06}.png"))
        assert held.same[row] == np.load(folder / "same" / f"{number:06}.npy").item()


def test_equal_files_are_one_picture(tree: Path) -> None:
    """Triplets whose files differ by name alone share a picture, and so do pairs."""
    for folder, first in (("2afc/val/cnn", "ref"), ("jnd/val/cnn", "p0")):
        shutil.copy(tree / folder / first / "000001.png", tree / folder / first / "000002.png")
    held, pairs = Bapps(tree, ["cnn"], size=16).load(), BappsJND(tree, ["cnn"], size=16).load()
    assert held.reference.tolist() == [0, 2, 2, 7]  # the first triplet's p0 is its reference
    assert held.p0.tolist() == [0, 3, 5, 8]
    assert held.p1.tolist() == [1, 4, 6, 9]
    assert pairs.p0.tolist() == [0, 2, 2, 5]
    assert pairs.p1.tolist() == [1, 3, 4, 5]  # the last ones are equal
    assert share_pictures(torch.stack([held.reference, held.p0, held.p1], 1))


def test_training_has_all_three_subsets(whole: Path) -> None:
    """data=bapps_train judges on val and trains on train, where two people answered; data=bapps trains nothing."""
    settings = plain(load("data=bapps_train", f"data.root={whole}", "data.cache=null"))["data"]
    data = build(settings)
    data.setup()
    assert data.train is not None
    assert (len(data.test), len(data.train), data.train.subsets) == (18, 9, ("cnn", "mix", "traditional"))
    assert data.train.votes.unique().tolist() == [2]
    assert {"train", "val"} == {path.relative_to(whole).parts[1] for path in data.files()}
    assert build(plain(load("data=bapps", f"data.root={whole}", "data.cache=null"))["data"]).load_train() is None


def test_configs_name_what_is_known() -> None:
    """Each option is the class with its own defaults, but for where things lie, and no wish to download."""
    for name, part in (("bapps", VAL), ("bapps_train", VAL), ("bapps_jnd", JND)):
        settings = plain(load(f"data={name}"))["data"]
        assert settings["subsets"] == list(part.subsets)
        assert settings["download"] is False
        assert settings.get("train_subsets", []) == (list(TRAIN.subsets) if name == "bapps_train" else [])
        assert build(settings).place.mirrors == list(Bapps("x").place.mirrors)


def test_root_may_have_a_folder_dataset(whole: Path, tmp_path: Path) -> None:
    """As upstream's script unpacks it; the place does not count for the content."""
    shutil.copytree(whole, tmp_path / "dataset")
    assert two(tmp_path).fingerprint() == two(whole).fingerprint() != Bapps(whole, ["cnn"]).fingerprint()


def test_subsets_are_chosen_in_order(whole: Path) -> None:
    held = Bapps(whole, ["superres", "cnn"], size=8).load()
    assert (held.subsets, held.subset.tolist()) == (("superres", "cnn"), [0, 0, 0, 1, 1, 1])
    assert torch.equal(held.judge, Bapps(whole, ["cnn", "superres"], size=8).load().judge.roll(3))


def test_files_are_all_that_counts(tree: Path) -> None:
    """A change of any file changes what the content's hash hangs on; other subsets don't count."""
    files = two(tree).files()
    assert len(files) == len(set(files)) == 2 * 4 * 4
    assert {path.suffix for path in files} == {".png", ".npy"}
    assert {path.relative_to(tree).parts[2] for path in files} == {"cnn", "color"}


def test_differing_counts_are_told(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part of BAPPS is legal, and never silently so: log and result row say how much of it there is."""
    data = two(whole, size=8)
    with caplog.at_level(logging.WARNING):
        told = data.facts()
    assert told["incomplete"] == "2afc/val: cnn has 3 of 4720, color has 3 of 4720"
    assert caplog.text.count("not the whole of BAPPS's 2afc/val: cnn has 3 of 4720, color") == 1
    assert (told["judged"], told["pictures"]) == (6, 18 - 2)


def test_whole_set_needs_no_word(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published numbers that are rounded hold within the rounding."""
    monkeypatch.setitem(VAL.subsets, "cnn", 3)
    monkeypatch.setitem(JND.subsets, "cnn", 3 + JND.rounded)
    assert "incomplete" not in Bapps(whole, ["cnn"], size=8).facts()
    assert "incomplete" not in BappsJND(whole, ["cnn"], size=8).facts()
    monkeypatch.setitem(JND.subsets, "cnn", 4 + JND.rounded)
    assert BappsJND(whole, ["cnn"], size=8).facts()["incomplete"] == f"jnd/val: cnn has 3 of {4 + JND.rounded}"


def test_published_counts() -> None:
    """The numbers of the paper's tables: 36,344 triplets to judge on, 151.4k (rounded one by one) to train on."""
    assert sum(VAL.subsets.values()) == 36_344
    assert sum(TRAIN.subsets.values()) == 151_300
    assert sum(JND.subsets.values()) == 9_600


def damaged(tree: Path, *names: str) -> str:
    """Give the message about a tree, of which nothing may be decoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "read", None)
        with pytest.raises(ValueError, match=r".") as error:
            Bapps(tree, names or ["cnn", "color"]).load()
    return str(error.value)


@pytest.mark.parametrize("name", ["ref", "p0", "p1", "judge"])
def test_missing_files_shift_nothing(tree: Path, name: str) -> None:
    """One file less in one folder: named, not paired with its neighbour."""
    next((tree / "2afc/val/cnn" / name).glob("000002.*")).unlink()
    assert f": 1 missing ({tree}/2afc/val/cnn/{name}/000002.*)" in damaged(tree)
    with pytest.raises(ValueError, match=r"1 missing"):
        two(tree).files()


def test_as_many_files_of_other_names(tree: Path) -> None:
    """Equal numbers prove nothing: names do."""
    folder = tree / "2afc/val/cnn"
    (folder / "p0" / "000001.png").rename(folder / "p0" / "000009.png")
    message = damaged(tree)
    assert f"1 missing ({folder}/p0/000001.*)" in message
    assert f"1 extra ({folder}/p0/000009.png)" in message


def test_extra_files_are_named(tree: Path) -> None:
    folder = tree / "2afc/val/cnn"
    (folder / "judge" / "notes.txt").touch()
    (folder / "p0" / "000001.jpg").touch()
    (folder / "p1" / "000001.npy").touch()
    (folder / "ref" / "more.png").mkdir()
    (folder / "ref" / ".DS_Store").touch()
    message = damaged(tree)
    assert "4 extra (" in message
    assert all(name in message for name in ("judge/notes.txt", "p0/000001.", "p1/000001.npy", "ref/more.png"))
    assert ".DS_Store" not in message


def test_all_subsets_are_checked_before_one_is_told(tree: Path) -> None:
    """The message counts everything that is wrong, and lists a few."""
    for number in range(4):
        (tree / f"2afc/val/cnn/p0/{number:06}.png").unlink()
        save(tree / f"2afc/val/cnn/p0/x{number}.png", np.zeros((4, 4, 3), np.uint8))
        (tree / f"2afc/val/color/judge/{number:06}.npy").rename(tree / f"2afc/val/color/judge/y{number}.npy")
    message = damaged(tree)
    assert re.search(r"8 missing \([^(]*p0/000000\.\*; [^(]*; and 3 more\), 8 extra", message)
    assert re.search(r"8 extra \([^(]*p0/x0\.png; [^(]*; and 3 more\)$", message)


def npy(array: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"0.4", "is no .npy"),
        (npy(np.array([0.4], np.float32))[:-1], "breaks off"),
        (npy(np.array([0.4], np.float32))[:50], "is no .npy"),
        (npy(np.array([0.4], np.float32)) + b"0", "more than its number"),
        (npy(np.array([0.4, 0.6], np.float32)), r"has the shape \(2,\), expected one number"),
        (npy(np.zeros((0,))), r"has the shape \(0,\)"),
        (npy(np.array([1.2], np.float32)), "holds 1.2, expected a share from 0 to 1"),
        (npy(np.array([-0.2], np.float32)), "holds -0.2"),
        (npy(np.array([np.nan], np.float32)), "holds nan"),
        (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "holds object, expected a number"),
        (npy(np.array(["0.4"])), "holds <U3, expected a number"),
        (b"\x80\x04K\x01.", "is no .npy"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((", "is no .npy"),
        (b"\x93NUMPY\x09\x00\x10\x00", "is no .npy"),
    ],
)
def test_labels_that_are_none(tree: Path, content: bytes, words: str) -> None:
    """No pickle is run, nothing is guessed: the file is named with what is in it."""
    path = tree / "2afc/val/color/judge/000001.npy"
    path.write_bytes(content)
    assert re.search(rf"1 of 8 files in judge are bad: {path} .*{words}", damaged(tree))


def test_labels_that_a_loader_may_write(tree: Path) -> None:
    """One number in whatever shape, order and width."""
    for number, array in enumerate(
        (np.array(0.4), np.array([[[0.4]]]), np.array([0.4], ">f4"), np.array([1], np.uint8))
    ):
        np.save(tree / f"2afc/val/cnn/judge/{number:06}.npy", array)
    assert Bapps(tree, ["cnn"]).load().judge.tolist() == pytest.approx([0.4, 0.4, 0.4, 1])


def test_long_label_is_not_read_whole(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tree / "2afc/val/cnn/judge/000000.npy", np.zeros(10**5))
    assert "has the shape (100000,)" in damaged(tree)
    assert bapps_files.LONGEST < 10**5


def test_bad_labels_are_counted(tree: Path) -> None:
    for path in (tree / "2afc/val").glob("c*/judge/*"):
        path.write_bytes(b"")
    assert re.search(r"8 of 8 files in judge are bad: .*000000\.npy is empty; .*; and 3 more$", damaged(tree))


def test_missing_folders_are_named(tree: Path) -> None:
    shutil.rmtree(tree / "2afc/val/cnn/p1")
    assert f"there is no folder {tree}/2afc/val/cnn/p1: 2afc/val has <subset>/ref|p0|p1|judge" in damaged(tree)
    (tree / "2afc/val/cnn/p1").mkdir()
    assert f"1 empty folders ({tree}/2afc/val/cnn/p1)" in damaged(tree)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subsets": ["colour"]}, r"data\.subsets has 'colour'; did you mean 'color'\? There are traditional, cnn"),
        ({"subsets": ["mix"]}, r"data\.subsets has 'mix'"),
        ({"subsets": ["cnn", "cnn"]}, "each once"),
        ({"subsets": []}, "is a list of some of"),
        ({"train_subsets": ["superres"]}, r"data\.train_subsets has 'superres'.*cnn, mix, traditional"),
    ],
)
def test_subsets_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Bapps("x", **options)
    with pytest.raises(ValueError, match="data.subsets has 'superres'"):
        BappsJND("x", ["superres"])


def test_missing_set_says_how_to_get_it(tmp_path: Path) -> None:
    """Without a wish for it nothing is fetched: the sentence has the key, the size, the address and the place."""
    url = "https://perceptual-similarity.s3.us-west-2.amazonaws.com/dataset"
    for data, archive, size in (
        (Bapps(tmp_path), "twoafc_val.tar.gz", "1.1 GB"),
        (BappsJND(tmp_path), "jnd.tar.gz", "0.2 GB"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{url}/{archive} ({size}, and")) as error:
            data.files()
        assert "data.download=true" in str(error.value)
        assert f"bring it to {tmp_path / archive}" in str(error.value)
    assert list(tmp_path.iterdir()) == []
