"""What a search for generalized image means does on its way, where options meet."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from gim_here import LBFGS, run
from pytorch_lightning.loggers import CSVLogger

from losslab.config import build, load, plain
from losslab.losses.pixel import L1, L2
from losslab.losses.seeing import sees
from losslab.losses.sets import SetDistances
from losslab.metrics.between import sharpness
from losslab.tasks import gim_scores
from losslab.tasks.gim import GIM
from losslab.tasks.gim_curves import Curves

pytestmark = pytest.mark.filterwarnings(r"ignore:Found \d+ module")  # losses are in eval mode for good
GRAY = "task.start=gray"


class Spy(pl.Callback):
    """Keeps the images after each step."""

    def __init__(self) -> None:
        """Begin."""
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
        """Copy them."""
        self.seen.append(torch.stack([one.detach().clone() for one in pl_module.images]))


@pytest.mark.parametrize("more", [["task.coarse.levels=1", "task.coarse.steps=2", "task.coarse.factor=0.5"], []])
def test_lines_are_searched_afresh_at_each_handover(tmp_path: Path, more: list[str]) -> None:
    """L-BFGS goes on at the full size, or with the loss, as if it began there: no curvature of before is used."""
    taken: list[int] = []

    class Counting(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            (first, *_) = trainer.optimizers[0].optimizers
            taken.append(first.state[first.param_groups[0]["params"][0]]["n_iter"])

    words = [*LBFGS, GRAY, "loss=l2", "task.steps=4", "task.optimizer.max_iter=4", *(more or ["task.warmup=0.5"])]
    task, _ = run(tmp_path, *words, steps=4, callbacks=[Counting()])
    assert taken[0] < taken[1] > taken[2]
    (row,) = task.rows()
    assert row["loss_end"] < 0.5 * row["loss_start"]


def test_a_stationary_start_is_none_that_is_dead(tmp_path: Path) -> None:
    """Between two pictures L1 has no slope at all: their mean is an answer, and stays."""
    task, _ = run(tmp_path, "data=shifted_crops", "data.size=32", "data.count=2", steps=3)
    torch.testing.assert_close(task.found()[0], task.begun, rtol=0, atol=1e-6)


@pytest.mark.parametrize("words", [[], LBFGS])
def test_a_dead_start_is_refused(tmp_path: Path, words: list[str]) -> None:
    """A network without biases sees nothing in gray, which is 0 in [-1, 1], and would stay there."""
    with pytest.raises(ValueError, match=r"has no gradient at task.start=gray of coffee: start from mean"):
        run(tmp_path, *words, "loss=scnn", "loss.network.width=16", GRAY, steps=3)
    assert not sees(L2(), torch.zeros(1, 3, 8, 8)[..., :0])
    assert sees(L2(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("words", [["loss=mmdpp"], ["loss=deep", "network=cnn1"], ["loss=l2", "task.coarse.levels=0"]])
def test_double_precision(tmp_path: Path, words: list[str]) -> None:
    """All of it is in 64 bits, and finds what 32 bits find."""
    long, _ = run(tmp_path, *words, GRAY, steps=3, precision="64-true")
    short, _ = run(tmp_path, *words, GRAY, steps=3)
    assert long.found().dtype == torch.float64
    assert float((long.found() - short.found()).abs().mean()) < 1e-4
    (tmp_path / "images.npz").write_bytes(long.files()["images.npz"])
    assert GIM.measure(tmp_path / "images.npz", L1())["end"] > 0


def test_a_number_stands_at_its_own_step(tmp_path: Path) -> None:
    """The row of a step in metrics.csv has the loss of that step, not of one before it."""
    logger = CSVLogger(tmp_path, name="here", version="")
    task, _ = run(tmp_path, "loss=l2", GRAY, logger=logger, log_every_n_steps=5)
    header, *lines = (tmp_path / "here" / "metrics.csv").read_text(encoding="utf-8").split()
    at = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    written = {int(one["step"]): float(one["loss"]) for one in at}
    assert [*written] == [4, 9]
    assert written == pytest.approx({step: float(task.curves.steps[step].mean()) for step in written}, rel=1e-5)


def test_weights_count_while_searching(tmp_path: Path) -> None:
    """With all weight on one picture, the search ends at it."""
    task, _ = run(tmp_path, "loss=l2", GRAY, "data.weights=[0,0,1,0]", "task.optimizer.lr=0.05", "task.steps=100",
                  steps=100)  # fmt: skip
    wanted = task._pictures(torch.device("cpu"))[[2, 6]]
    assert float((task.found()[0] - wanted).abs().mean()) < 0.01


def test_the_loss_begins_without_memory(tmp_path: Path) -> None:
    """Adam's first step after the warm-up has the length of a first step, whatever slopes L2 had."""
    spy = Spy()
    run(tmp_path, "loss=l1", GRAY, "task.warmup=0.5", "task.optimizer.lr=0.001", callbacks=[spy])
    moved = (spy.seen[6] - spy.seen[5]).abs()  # six steps by L2, then the seventh
    slopes = moved > 0
    assert bool(slopes.any())
    torch.testing.assert_close(moved[slopes], torch.full_like(moved[slopes], 0.001), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_converged_image_stands_still_between_others(tmp_path: Path, kept: int) -> None:
    """Whichever it is, it does not move by what the optimiser remembers, and the others get their own distances."""
    words = ["loss=l2", GRAY, "data.names=[coffee,chelsea,rocket]"]
    spy = Spy()

    class Stopping(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: object) -> None:
            if trainer.global_step == 4:
                pl_module.active[kept] = False

    task, _ = run(tmp_path, *words, callbacks=[Stopping(), spy])
    plain_run, _ = run(tmp_path, *words)
    assert torch.equal(spy.seen[-1][kept], spy.seen[3][kept])
    others = [number for number in range(3) if number != kept]
    torch.testing.assert_close(task.found()[0, others], plain_run.found()[0, others], rtol=0, atol=1e-6)
    images = torch.rand(3, 3, 32, 32)
    sets = SetDistances(L2(), task._pictures(torch.device("cpu")), task.data.sets.sizes, task.data.weights)
    whole = sets(images, range(3))
    torch.testing.assert_close(sets(images[others], others), whole[others])


def test_what_is_judged(tmp_path: Path) -> None:
    """The penalty is part of the loss at start and end, by hand; and not of the warm-up, which is L2's alone."""
    words = ["loss=l1", "task.start=first"]
    bare, _ = run(tmp_path, *words)
    heavy = ["penalty=total_variation", "penalty.weight=1"]
    task, _ = run(tmp_path, *words, *heavy)
    variation = [float(sum(one.diff(dim=axis).abs().mean() for axis in (-1, -2))) for one in task.begun]
    added = task.lines["loss_start"] - bare.lines["loss_start"]
    assert added.tolist() == pytest.approx(variation, rel=1e-4)
    warm = [run(tmp_path, *words, "task.warmup=1", *more)[0].found() for more in ([], heavy)]
    assert torch.equal(*warm)


def test_time_goes_on(tmp_path: Path) -> None:
    """A resumed search counts the seconds before it; converging takes the share of them that its steps are."""
    kept = tmp_path / "kept.ckpt"

    class Keeping(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
            if trainer.global_step == 6:
                pl_module.since -= 1000
                trainer.save_checkpoint(kept)

    run(tmp_path, callbacks=[Keeping()])
    task, _ = run(tmp_path, resume=kept)
    assert 1000 < task.seconds < 1100
    (row,) = task.rows()
    assert row["seconds_to_converge"] == pytest.approx(task.seconds * row["steps_to_converge"] / 12)


def test_measured_with_draws_and_weights(tmp_path: Path) -> None:
    """Of all draws, with the sets' weights, in draw 0 of the measuring loss whatever it was in."""
    task, _ = run(tmp_path, "loss=mmd", "draws=2", "data.weights=[4,2,1,1]", GRAY)
    file = tmp_path / "images.npz"
    file.write_bytes(task.files()["images.npz"])
    pictures, weights = task._pictures(torch.device("cpu")).split(4), task.data.weights.split(4)
    images = task.found()
    each = [
        float((weights[place] * L1()(images[draw, place], pictures[place])).sum())
        for draw in range(2)
        for place in range(2)
    ]
    assert GIM.measure(file, L1())["end"] == pytest.approx(sum(each) / 4, rel=1e-5)
    other = build(plain(load("loss=mmd", "redraw_every=1"))["loss"])
    first = GIM.measure(file, other)
    other.draw(5)
    assert GIM.measure(file, other) == first


def test_scores_by_hand(tmp_path: Path) -> None:
    """Each line has its own set's pictures, weights and start."""
    task, _ = run(tmp_path, "task.start=first", "data.weights=[4,2,1,1]")
    pictures, weights = task._pictures(torch.device("cpu")).split(4), task.data.weights.split(4)
    for place in range(2):
        line, image = task.lines.iloc[place], task.found()[0, place]
        scores = gim_scores.scores(image, pictures[place], weights[place])
        assert {name: line[name] for name in scores} == pytest.approx(scores)
        assert line["start_sharpness"] == pytest.approx(sharpness(task.begun[place], pictures[place]))
        assert line["sharpness_error"] == pytest.approx(abs(math.log(line["sharpness"])))
        near = (image - pictures[place]).square().mean(dim=(1, 2, 3)).min().sqrt()
        assert line["nearest"] == pytest.approx(float(near))


def test_falling_is_relative() -> None:
    """A loss of millionths that halves still falls."""
    curves = Curves(2)
    for step in range(4):
        curves.note(step, [0, 1], torch.tensor([1e-6 if step < 2 else 5e-7, 1.0]))
    assert curves.falling(2, 0.1, lambda mine: mine).tolist() == [True, False]
