"""The judging tasks score what people said, whatever the draws, the panel and the way the pairs are measured."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from runs_here import results, sweep_here

from losslab.config import build, load, plain
from losslab.data.base import ImageData
from losslab.data.judged import JudgedData, Pairs, Triplets
from losslab.divergence import DivergedError
from losslab.losses.base import Loss
from losslab.losses.pairs import PairDistances
from losslab.losses.panel import Panel, several
from losslab.losses.pixel import L1, L2
from losslab.reports.agreement import Group, groups
from losslab.runs.command import codes
from losslab.tasks.jnd import JND
from losslab.tasks.judging import Judging
from losslab.tasks.two_afc import TwoAFC
from losslab.types import Bytes

GREY = torch.tensor([10, 20, 40, 80, 160, 250], dtype=torch.uint8)


class Made(JudgedData):
    """Judgements made by a test."""

    def __init__(self, held: Triplets | Pairs, batch_size: int = 3) -> None:
        super().__init__(batch_size, 0)
        self.held = held

    def load(self) -> Triplets | Pairs:
        return self.held


def greys(*values: int, side: int = 32) -> Bytes:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, side, side).contiguous()


def triplets(rows: list[tuple[int, int, int, float, int]], subsets: tuple[str, ...], pictures: Bytes) -> Triplets:
    reference, p0, p1, judge, subset = zip(*rows, strict=True)
    first, second, third, where = (torch.tensor(one) for one in (reference, p0, p1, subset))
    return Triplets(pictures, first, second, third, torch.tensor(judge), where, subsets)


def by_hand(rows: list[tuple[int, int, int, float, int]], *, shared: bool) -> Made:
    """Triplets of HAND over one table of six pictures, or each with pictures of its own."""
    if shared:
        return Made(triplets(rows, ("few", "more"), greys(*GREY.tolist())))
    table = greys(*(int(GREY[one]) for row in rows for one in row[:3]))
    own = [(3 * k, 3 * k + 1, 3 * k + 2, *row[3:]) for k, row in enumerate(rows)]
    return Made(triplets(own, ("few", "more"), table))


def by_chance(count: int, pictures: int, side: int = 32) -> Triplets:
    """Triplets of random pictures and judgements; where there are three pictures a triplet, each is used once."""
    table = torch.randint(0, 256, (pictures, 3, side, side), dtype=torch.uint8)
    where = torch.stack([torch.randperm(pictures)[:3] for _ in range(count)])
    if pictures == 3 * count:
        where = torch.arange(pictures).reshape(-1, 3)
    rows = [
        (*some, round(h, 1), k % 2)
        for k, (some, h) in enumerate(zip(where.tolist(), torch.rand(count).tolist(), strict=True))
    ]
    return triplets(rows, ("even", "odd"), table)


def judge(task: Judging, data: pl.LightningDataModule, folder: Path) -> list[dict[str, Any]]:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=folder)  # fmt: skip
    trainer.test(task, datamodule=data, verbose=False)
    return task.rows()


# Pictures by their place in GREY, judgement, subset
HAND = [
    (0, 1, 2, 0.0, 0),
    (0, 2, 1, 0.4, 0),
    (2, 1, 3, 0.2, 1),
    (4, 3, 5, 1.0, 1),
    (0, 1, 1, 0.3, 1),
    (5, 0, 4, 0.5, 1),
]


def test_scores_by_hand(tmp_path: Path) -> None:
    """Soft judgements, a tie, subsets of two sizes: every number of the row, counted by hand."""
    (row,) = judge(TwoAFC(L1(), samples=20), by_hand(HAND, shared=False), tmp_path)
    # L1 chooses p0, p1, p0, p0 (80 against 90), neither, p1
    wanted = [1.0, 0.4, 0.8, 0.0, 0.5, 0.5]
    assert row["score/few"] == pytest.approx(0.7)
    assert row["score/more"] == pytest.approx(np.mean(wanted[2:]))
    assert row["score"] == pytest.approx((0.7 + np.mean(wanted[2:])) / 2)
    assert row["score/pooled"] == pytest.approx(np.mean(wanted))
    assert row["accuracy"] == pytest.approx((0.5 + np.mean([1, 0, 0.5])) / 2)  # the last has no majority
    people = [1, 0.52, 0.68, 1, 0.58, 0.5]
    assert row["human"] == pytest.approx((np.mean(people[:2]) + np.mean(people[2:])) / 2)
    assert row["oracle"] == pytest.approx((0.8 + np.mean([0.8, 1, 0.7, 0.5])) / 2)
    assert row["oracle/few"] == pytest.approx(0.8)
    assert row["accuracy/more"] == pytest.approx(0.5)
    assert row["low"] <= row["score"] <= row["high"]


def test_subsets_may_have_any_name_but_those_of_means(tmp_path: Path) -> None:
    """A subset called score or human hides nothing, and one called pooled is refused before anything is measured."""
    held = by_hand(HAND, shared=False).held
    for names, refused in ((("score", "human"), False), (("pooled", "more"), True)):
        data = Made(dataclasses.replace(held, subsets=names))
        if refused:
            with pytest.raises(ValueError, match="none of .*'pooled'"):
                judge(TwoAFC(L1(), samples=20), data, tmp_path)
        else:
            (row,) = judge(TwoAFC(L1(), samples=20), data, tmp_path)
            assert row["score"] == pytest.approx((row["score/score"] + row["score/human"]) / 2)


def test_pairs_that_were_not_measured(tmp_path: Path) -> None:
    """A part of the batches gives no score: distances of nothing would be zero."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=tmp_path, limit_test_batches=1)  # fmt: skip
    with pytest.raises(ValueError, match="pairs were not measured once"):
        trainer.test(TwoAFC(L1()), datamodule=Made(by_chance(20, 60)), verbose=False)


def test_nobody_has_a_majority(tmp_path: Path) -> None:
    """Scores are given, and no accuracy."""
    held = by_hand(HAND, shared=False).held
    assert isinstance(held, Triplets)
    (row,) = judge(TwoAFC(L1(), samples=20), Made(dataclasses.replace(held, judge=torch.full((6,), 0.5))), tmp_path)
    assert row["score"] == pytest.approx(0.5)
    assert "accuracy" not in row


@pytest.mark.parametrize("pictures", [9, 60])
def test_distances_are_those_of_each_triplet(pictures: int, tmp_path: Path) -> None:
    """Shared pictures or not, small tiles or large ones: d0 and d1 of the file are those of a plain loop."""
    held = by_chance(20, pictures)
    panel = Panel({"l1": L1(), "l2": L2()})
    task = TwoAFC(panel, samples=20)
    judge(task, Made(held), tmp_path)
    table = pd.read_parquet(io.BytesIO(task.files()["distances.parquet"]))
    images = held.pictures.float() / 255
    for name, loss in panel.losses.items():
        for side, one in (("d0", held.p0), ("d1", held.p1)):
            wanted = loss(images[held.reference], images[one])
            np.testing.assert_allclose(table[f"{side} of {name}"], wanted, rtol=1e-6)
    assert table["judge"].tolist() == held.judge.tolist()
    assert table["subset"].tolist() == ["even", "odd"] * 10
    assert table["p1"].tolist() == held.p1.tolist()


def random_panel() -> Panel:
    network = plain(load("loss=deep", "network=cnn1", "layer=1", "draws=3"))["loss"]
    mmd = plain(load("loss=mmd", "loss.features=8", "draws=3"))["loss"]
    return several({"l1": L1(), "deep": build(network), "mmd": build(mmd)})


def test_draws_in_one_pass(tmp_path: Path) -> None:
    """The score is the mean over draws, each of which is a cell of its own; what is not random is measured once."""
    held = by_chance(8, 24)
    task = TwoAFC(random_panel(), draws=3, samples=20)
    rows = {row["measure"]: row for row in judge(task, Made(held), tmp_path)}
    assert task.random.tolist() == [1, 2]
    assert rows["l1"]["sd_of_draws"] == 0
    images = held.pictures.float() / 255
    for name in ("deep", "mmd"):
        alone, scores = random_panel().losses[name], []
        for draw in range(3):
            alone.draw(draw)
            near = [alone(images[held.reference], images[one]) for one in (held.p0, held.p1)]
            score = torch.where(near[1] < near[0], held.judge, 1 - held.judge).double()
            scores.append(float(np.mean([score[held.subset == k].mean() for k in (0, 1)])))
        assert rows[name]["score"] == pytest.approx(np.mean(scores))
        assert rows[name]["sd_of_draws"] == pytest.approx(np.std(scores, ddof=1))
        assert np.std(scores) > 0
    assert "d1 of mmd, draw 2" in pd.read_parquet(io.BytesIO(task.files()["distances.parquet"]))


def test_draws_of_nothing_random(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draws=2, but nothing is random in l1"):
        judge(TwoAFC(L1(), draws=2), Made(by_chance(4, 12)), tmp_path)
    for wrong in (0, True):
        with pytest.raises(ValueError, match="draws is a whole number from 1"):
            TwoAFC(L1(), draws=wrong)


def test_differences_of_a_panel(tmp_path: Path) -> None:
    """Each pair of losses once, the better one first; a loss and its double can't be told apart."""
    held = by_chance(40, 120)
    images = held.pictures.float() / 255
    near = [L1()(images[held.reference], images[one]) for one in (held.p0, held.p1)]
    held = Triplets(
        held.pictures, held.reference, held.p0, held.p1, (near[1] < near[0]).float(), held.subset, held.subsets
    )

    class Opposite(Loss[Any]):
        def embed(self, images: Any) -> Any:
            return images

        def terms(self, a: Any, b: Any) -> Any:
            return {"": 1 - (a - b).abs().mean((-3, -2, -1))}

    task = TwoAFC(Panel({"bad": Opposite(), "good": L1(), "again": L1()}), samples=200)
    rows = {row["measure"]: row for row in judge(task, Made(held), tmp_path)}
    assert (rows["good"]["score"], rows["bad"]["score"]) == (1, 0)
    assert {name: row["like_best"] for name, row in rows.items()} == {"bad": "False", "good": "True", "again": "True"}
    found = pd.read_csv(io.BytesIO(task.files()["differences.csv"])).set_index(["better", "worse"])
    assert len(found) == 3
    assert bool(found.loc[("good", "bad"), "real"]) or bool(found.loc[("again", "bad"), "real"])
    tied = found[found["difference"] == 0]
    assert [set(pair) for pair in tied.index] == [{"good", "again"}]
    assert not tied["real"].any()


def test_worst_disagreements(tmp_path: Path) -> None:
    """Only triplets on which the loss contradicts the majority; people's choice above, the loss's below."""
    task = TwoAFC(L1(), samples=20)
    judge(task, by_hand(HAND, shared=True), tmp_path)
    peoples, reference, losses = task.worst(0)
    assert (peoples.tolist(), reference.tolist(), losses.tolist()) == ([2, 5], [0, 4], [1, 3])
    (picture,) = task.pictures(0, final=True).values()
    assert [int(picture[0, 2 + 34 * k + 16, 18]) for k in range(3)] == [40, 10, 20]
    agreeing = by_hand([HAND[0], HAND[2]], shared=True)
    judge(task, agreeing, tmp_path)
    assert task.pictures(0, final=True) == {}


def test_too_few_for_an_interval(tmp_path: Path) -> None:
    """Scores are given, without an interval, and the row says why."""
    (row,) = judge(TwoAFC(L1(), samples=20), by_hand(HAND[:3], shared=False), tmp_path)
    assert row["score"] == pytest.approx((0.7 + 0.8) / 2)
    assert row["low"] is None
    assert "a subset of one triplet" in row["no_interval"]


def test_triplets_keep_their_interval_where_pictures_have_none(tmp_path: Path) -> None:
    """A subset has three pictures, which most resamples miss: the row says so, and has the triplets' interval alone."""
    rows = [(3 * (k % 2), 3 * (k % 2) + 1, 3 * (k % 2) + 2, 0.2 * (k % 5), k % 2) for k in range(40)]
    panel = Panel({"l1": L1(), "l2": L2()})
    held = triplets(rows, ("few", "more"), greys(*GREY.tolist()))
    apart = by_hand(rows, shared=False)
    task = TwoAFC(panel, samples=200)
    shared, alone = judge(task, Made(held), tmp_path), judge(TwoAFC(panel, samples=200), apart, tmp_path)
    assert task.files().keys() == {"distances.parquet"}
    for row, other in zip(shared, alone, strict=True):
        assert (row["low"], row["high"]) == (None, None)
        assert "leave a subset with nothing to score" in row["no_interval"]
        assert "like_best" not in row
        assert (row["low_alone"], row["high_alone"]) == (other["low"], other["high"])
        assert "low_alone" not in other


def pairs(same: list[float], second: list[int], subsets: list[int]) -> Pairs:
    first = torch.zeros(len(same), dtype=torch.long)
    return Pairs(
        greys(0, 10, 20, 30, 40, 50), first, torch.tensor(second), torch.tensor(same), torch.tensor(subsets), ("a", "b")
    )


def test_jnd_by_hand(tmp_path: Path) -> None:
    """Average precision of each subset, their mean, and of all pairs in one order."""
    held = pairs([1.0, 0.0, 0.5, 0.5, 1.0, 0.0], [1, 2, 3, 1, 4, 5], [0, 0, 0, 1, 1, 1])
    task = JND(L1(), samples=50)
    (row,) = judge(task, Made(held), tmp_path)
    # a: precision 1, ½, ½ at recall ⅔, ⅔, 1; b: ½, ¾, ½ at ⅓, 1, 1, of which the envelope is ¾
    assert row["score/a"] == pytest.approx(2 / 3 + 1 / 6)
    assert row["score/b"] == pytest.approx(0.75)
    assert row["score"] == pytest.approx((row["score/a"] + row["score/b"]) / 2)
    # both of distance 10 come first: 1.5/2 at recall ½; then 1.5/3, 2/4, and 3/5 at 1
    assert row["score/pooled"] == pytest.approx(0.75 / 2 + 0.6 / 2)
    assert row["chance"] == pytest.approx(0.5)
    first, second = task.worst(0)
    assert (first.tolist(), second.tolist()) == ([0, 0], [2, 5])
    table = pd.read_parquet(io.BytesIO(task.files()["distances.parquet"]))
    np.testing.assert_allclose(table["d of l1"], np.array([1, 2, 3, 1, 4, 5]) * 10 / 255, rtol=1e-6)


def test_data_of_another_kind(tmp_path: Path) -> None:
    """A task for triplets refuses pairs and pictures, and says what it found."""
    for data in (
        Made(pairs([1.0, 0.0], [1, 2], [0, 1])),
        build(plain(load("data.train_count=4", "data.val_count=1"))["data"]),
    ):
        with pytest.raises(ValueError, match="judges by triplets, and data of (Made|Photos) have none"):
            judge(TwoAFC(L1()), data, tmp_path)
    assert issubclass(type(data), ImageData)


class Broken(L1):
    """NaN for all pairs that differ by less than a third."""

    def terms(self, a: Any, b: Any) -> Any:
        return {"": ((a - b).abs().mean((-3, -2, -1)) - 1 / 3).sqrt()}


def test_not_a_number(tmp_path: Path) -> None:
    """A loss that gives NaN is named, and so are all of a panel."""
    for loss in (Broken(), Panel({"broken": Broken(), "again": Broken()})):
        with pytest.raises(DivergedError, match="broken(, again give| gives) distances that are no numbers") as caught:
            judge(TwoAFC(loss), Made(by_chance(4, 12)), tmp_path)
        assert caught.value.term == "broken"


@pytest.mark.parametrize("kind", [TwoAFC, JND])
def test_not_a_number_in_a_panel(kind: type[Judging], tmp_path: Path) -> None:
    """The others' rows, differences and pictures are as without it; its row has the reason; all distances are saved."""
    triplets = by_chance(20, 60)
    pairs = Pairs(triplets.pictures, triplets.p0, triplets.p1, triplets.judge, triplets.subset, triplets.subsets)
    held = Made(triplets if kind is TwoAFC else pairs)
    tasks = [
        kind(Panel({"l1": L1(), **more, "l2": L2()}), samples=50) for more in ({}, {"broken": Broken(), "inf": Far()})
    ]
    without, rows = (judge(task, held, tmp_path) for task in tasks)
    assert rows[:2] == without
    distances = 40 if kind is TwoAFC else 20
    table = pd.read_parquet(io.BytesIO(tasks[1].files()["distances.parquet"]))
    names = [name for name in table if str(name).endswith("of broken")]
    missing = int(table[names].isna().sum().sum())
    assert 0 < missing < distances
    assert rows[2:] == [
        {"measure": "broken", "no_score": f"{missing} of {distances} distances are NaN or infinite"},
        {"measure": "inf", "no_score": f"{distances} of {distances} distances are NaN or infinite"},
    ]
    assert tasks[0].diverged is None
    assert str(tasks[1].diverged) == "broken, inf give distances that are no numbers"
    assert tasks[0].files()["differences.csv"] == tasks[1].files()["differences.csv"]
    shown = [task.pictures(0, final=True) for task in tasks]
    assert list(shown[0]) == list(shown[1]) != []
    assert all(torch.equal(*both) for both in zip(shown[0].values(), shown[1].values(), strict=True))


class Far(L1):
    """Infinity for all pairs."""

    def terms(self, a: Any, b: Any) -> Any:
        return {"": (a - b).abs().mean((-3, -2, -1)) + torch.inf}


def test_cell_of_which_a_part_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends as diverged, with code 1 and the loss's name; rows and files stand, and a table of cells has them."""
    monkeypatch.setattr("losslab.tasks.judging.PairDistances", Spoilt)
    words = ["task=two_afc", "data=known_order", "data.families=[noise,blur]", "data.count=20", "data.size=32",
             "loss=deep", "network=cnn1", "weights=random", "layer=[[1],[pixels]]", "compare=spatial",
             "task.samples=20"]  # fmt: skip
    sweep_here(tmp_path, " ".join(words))
    assert max(codes) == 1
    (entry,) = results(tmp_path).cells.values()
    assert (entry["state"], entry["term"]) == ("diverged", "relu1")
    assert entry["reason"] == "relu1 gives distances that are no numbers, at step 0"
    good, bad = entry["rows"]
    assert (good["measure"], bad["measure"], bad["no_score"]) == (
        "pixels", "relu1", "1 of 40 distances are NaN or infinite",
    )  # fmt: skip
    assert good["low"] <= good["score"] <= good["high"]
    assert "score" not in bad
    assert (tmp_path / entry["folder"] / "distances.parquet").is_file()
    assert "1 of 40 distances" in capsys.readouterr().out
    (group,) = groups(tmp_path)
    own, none = group.scored(20, 0).rows()
    assert own == {name: good[name] for name in own}  # to the last digit of the intervals
    assert {"score/noise", "low", "low_alone"} <= set(own)
    assert none == {"measure": "relu1", "no_score": bad["no_score"]}


@pytest.mark.parametrize("kind", [TwoAFC, JND])
def test_saved_distances_score_as_the_cell_did(kind: type[Judging], tmp_path: Path) -> None:
    """Intervals too, whose resamples hang on the order of the subsets, which is not that of their names."""
    chosen = dataclasses.replace(by_chance(40, 120), subsets=("z", "a"))
    pairs = Pairs(chosen.pictures, chosen.p0, chosen.p1, chosen.judge, chosen.subset, chosen.subsets)
    task = kind(Panel({"l1": L1(), "l2": L2()}), samples=50)
    rows = judge(task, Made(chosen if kind is TwoAFC else pairs), tmp_path)
    table = pd.read_parquet(io.BytesIO(task.files()["distances.parquet"]))
    assert Group("judges", {}, [{"axes": {}}], [table]).scored(50, 0).rows() == rows


class Spoilt(PairDistances):
    """Gives NaN for a pair under the first loss."""

    def of(self, pairs: Any, device: Any, capacity: int) -> Any:
        found = super().of(pairs, device, capacity)
        found[0, ((pairs == self.pictures.shape[0] - 1).any(1)).nonzero()] = torch.nan
        return found
