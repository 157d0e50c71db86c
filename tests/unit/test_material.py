"""The answers on materials reach their pictures, their side and their share."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from losslab.config import build, load, plain
from losslab.data.judged import Triplets
from losslab.data.material import PICTURES, Material

needs_real_data = pytest.mark.skipif(
    "LOSSLAB_DATA" not in os.environ, reason="LOSSLAB_DATA names no folder of real data"
)
ANSWERS = [[9, 1, 2], [3, 10, 99], [0, 5, 4], [7, 8, 6]] * 10
VOTES = [[3, 1], [2, 2], [5, 0], [4, 2]] * 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a set whose pictures are grey as their place in the sorted list: names that sort by `-` before `.`."""
    folder = tmp_path / "material_2afc" / "images"
    folder.mkdir(parents=True)
    names = sorted([f"m{number:02}-x.png" for number in range(50)] + [f"m{number:02}.png" for number in range(50)])
    for place, name in enumerate(names):
        Picture.fromarray(np.full((6, 6, 3), place, np.uint8)).save(folder / name)
    write(tmp_path, {"answers": ANSWERS, "agreement": VOTES, "answers_diff": ANSWERS[:1], "agreement_diff": VOTES[:1]})
    return tmp_path


def write(root: Path, held: Any, split: str = "train") -> None:
    (root / "material_2afc" / f"answers_processed_{split}.json").write_text(json.dumps(held))


def read(root: Path, **options: Any) -> Triplets:
    return Material(root, size=4, **options).load()


def test_answers_reach_their_pictures(root: Path) -> None:
    """Reference, majority and minority are places in the sorted list; the judge is the share of votes for p1."""
    held = read(root)
    grey = held.pictures[:, 0, 0, 0].long()
    for row, (answer, votes) in enumerate(zip(ANSWERS, VOTES, strict=True)):
        assert grey[held.reference[row]] == answer[0]
        sides = [int(grey[held.p0[row]]), int(grey[held.p1[row]])]
        assert sorted(sides) == sorted(answer[1:])
        share = votes[answer[1:].index(sides[1])] / sum(votes)
        assert held.judge[row].item() == pytest.approx(share)
    assert held.votes is not None
    assert held.votes.tolist() == [sum(votes) for votes in VOTES]
    assert (held.subsets, held.subset.unique().tolist()) == (("material",), [0])


def test_equal_renderings_are_one(root: Path) -> None:
    """An answer names a place in the sorted list, and its picture is found where an equal one came before."""
    files = sorted((root / "material_2afc" / "images").iterdir(), key=lambda path: path.name)
    before = read(root)
    shutil.copy(files[1], files[8])
    held = read(root)
    assert len(held.pictures) == PICTURES - 1
    for one, old in ((held.reference, before.reference), (held.p0, before.p0), (held.p1, before.p1)):
        grey = held.pictures[one, 0, 0, 0].long()
        assert grey.tolist() == [1 if place == 8 else place for place in old.tolist()]


def test_sides_are_drawn(root: Path) -> None:
    """The majority stands on both sides, where the seed says, and a seed is one order on every call."""
    first, again, other = read(root), read(root), read(root, sides_seed=1)
    assert torch.equal(first.p1, again.p1)
    assert not torch.equal(first.p1, other.p1)
    untied = first.judge != 0.5
    assert 0.2 < (first.judge[untied] > 0.5).float().mean() < 0.8


def test_ties_are_left_out_when_asked(root: Path) -> None:
    held = read(root, with_ties=False)
    assert len(held) == 1
    assert held.judge.item() in (0.25, 0.75)


def test_pictures_lie_once(root: Path) -> None:
    """However many triplets there are, the table has the set's pictures, and a pair is computed once."""
    data = Material(root, size=4)
    assert data.facts() == {"judged": 40, "pictures": PICTURES, "size": 4}
    assert len(data.distances) == 8


def test_content_counts_and_place_does_not(root: Path, tmp_path: Path) -> None:
    first = Material(root, size=4)
    shutil.copytree(root / "material_2afc", tmp_path / "moved")
    assert Material(tmp_path / "moved", size=4, seed=3).fingerprint() == first.fingerprint()
    assert Material(root, size=4, sides_seed=1).fingerprint() != first.fingerprint()
    assert {path.suffix for path in first.files()} == {".json", ".png"}
    assert len(first.files()) == PICTURES + 1


def test_missing_picture_moves_no_answer(root: Path) -> None:
    """One picture less would shift all behind it: refused."""
    next((root / "material_2afc" / "images").iterdir()).unlink()
    with pytest.raises(ValueError, match="has 99 pictures, expected the 100 of the set"):
        read(root)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, "'answers' is no table"),
        ({"answers": [[1, 2, 3]]}, "'agreement' is no table"),
        ({"answers": [[1, 2, 3], [1, 2]], "agreement": [[1, 2]]}, "'answers' is no table"),
        ({"answers": [[1, 2, "x"]], "agreement": [[1, 2]]}, "'answers' is no table"),
        ({"answers": [[1, 2, 0.5]], "agreement": [[1, 2]]}, "'answers' is no table"),
        ({"answers": [[1, 2, 3]], "agreement": [[1, 2], [1, 2]]}, "don't fit together"),
        ({"answers": [[1, 2]], "agreement": [[1, 2]]}, "don't fit together"),
        ({"answers": [[1, 2, 100]], "agreement": [[1, 2]]}, "places outside"),
        ({"answers": [[1, 2, -1]], "agreement": [[1, 2]]}, "places outside"),
        ({"answers": [[1, 2, 3]], "agreement": [[0, 0]]}, "nobody judged"),
        ({"answers": [[1, 2, 3]], "agreement": [[2, -1]]}, "nobody judged"),
        ({"answers": [], "agreement": []}, "'answers' is no table"),
    ],
)
def test_answers_that_are_none(root: Path, held: Any, words: str) -> None:
    """Each damage of the file of answers is named with the file."""
    write(root, held)
    with pytest.raises(ValueError, match=rf"answers_processed_train\.json.*{words}"):
        read(root)


def test_what_is_not_there_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data.split=test needs .*answers_processed_test\.json; there is .*train"):
        read(root, split="test")
    with pytest.raises(ValueError, match="has no folder material_2afc"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="data.split is one of train, test, got 'val'"):
        Material(root, "val")
    monkeypatch.delenv("LOSSLAB_DATA", raising=False)
    with pytest.raises(ValueError, match="set LOSSLAB_DATA"):
        build(plain(load("data=material"))["data"]).files()


@needs_real_data
def test_real_answers(tmp_path: Path) -> None:
    """The set has the size that its source tells, and people agree on it as far as the votes say."""
    data = build(plain(load("data=material", f"outputs={tmp_path}", "data.size=16"))["data"])
    assert data.facts() == {"judged": 22801, "pictures": 100, "size": 16}
    assert data.test.votes.sum() == 92892
    assert (data.test.judge == 0.5).sum() == 22801 - 21406
    assert torch.maximum(data.test.judge, 1 - data.test.judge).mean().item() == pytest.approx(0.8442, abs=1e-4)
