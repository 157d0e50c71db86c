"""GIM moves each image by its own set alone, whatever else is optimised beside it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gim_here import LBFGS, SMALL, run
from hydra.errors import InstantiationException

from losslab.config import build, load, plain
from losslab.divergence import DivergedError
from losslab.losses.pixel import L1, L2
from losslab.metrics.between import (
    colour_error,
    ghosting,
    gradient_energy,
    nearest,
    sharpness,
    total_variation,
    variation,
)
from losslab.models.coarse import Coarse
from losslab.models.start_images import start_images
from losslab.runs.cell import identify
from losslab.tasks.gim import GIM
from losslab.tasks.gim_curves import Curves, settled_after

pytestmark = pytest.mark.filterwarnings(r"ignore:Found \d+ module")  # losses are in eval mode for good

NETWORK = ["loss=deep", "network=vgg16", "layer=2", "task.start=zeros+noise"]


@pytest.mark.parametrize(
    "words", [[], ["loss=mmdpp"], NETWORK, LBFGS, ["task.tolerance=0.05", "task.patience=3", "task.start=gray"]]
)
def test_a_set_alone_is_what_it_is_in_a_batch(tmp_path: Path, words: list[str]) -> None:
    """To 1e-6, also where a neighbour has converged, where lines are searched, and behind a network's kinks."""
    steps = {tuple(LBFGS): 3, tuple(NETWORK): 60}.get(tuple(words), 12)
    both, _ = run(tmp_path, *words, steps=steps)
    for number, name in enumerate(("coffee", "chelsea")):
        alone, _ = run(tmp_path, *words, f"data.names=[{name}]", steps=steps)
        assert float((alone.found()[0, 0] - both.found()[0, number]).abs().max()) < 1e-6


def test_steps_lower_the_loss(tmp_path: Path) -> None:
    """From gray to the median of its pictures, which L1 is smallest at; and the row says so."""
    task, trainer = run(tmp_path, "task.start=gray", "task.steps=150", "task.optimizer.lr=0.05", steps=150)
    (row,) = task.rows()
    assert row["loss_end"] < 0.5 * row["loss_start"]
    assert trainer.global_step == 150
    pictures = task._pictures(torch.device("cpu"))[:4]
    low, high = pictures.sort(0).values[1:3]
    found = task.found()[0, 0]
    assert float(((found > low - 0.03) & (found < high + 0.03)).float().mean()) > 0.9
    assert 0 < row["steps_to_converge"] <= 150


def test_draws_have_their_own_images(tmp_path: Path) -> None:
    """Image d of a set is what a loss gives that knows draw d only."""
    words = ["loss=deep", "network=cnn1", "compare=l1"]
    task, _ = run(tmp_path, *words, "draws=2")
    assert task.found().shape == (2, 2, 3, 32, 32)
    (row,) = task.rows()
    assert row["colour_error_sd_of_draws"] > 0
    loss = build(plain(load(*SMALL, *words, "draws=2"))["loss"])
    loss.draw(1)
    settings = plain(load(*SMALL, *words))
    second = build(settings["task"], loss=loss)
    loss.draw = lambda step: None
    trainer = pl.Trainer(max_steps=12, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(second, datamodule=build(settings["data"]))
    torch.testing.assert_close(second.found()[0], task.found()[1])
    with pytest.raises(InstantiationException, match="draws=2, but the first two of l2 are the same"):
        build(plain(load(*SMALL, "draws=2"))["task"], loss=L2())


def test_redrawing_goes_on(tmp_path: Path) -> None:
    """With redraw_every=1 each step has features of its own, as the original has."""
    first, _ = run(tmp_path, "loss=mmd")
    second, _ = run(tmp_path, "loss=mmd", "redraw_every=1")
    assert not torch.equal(first.found(), second.found())


def test_converged_images_stay(tmp_path: Path) -> None:
    """And the run ends when all of them have."""
    task, trainer = run(tmp_path, "loss=l2", "task.tolerance=0.5", "task.patience=2", "task.start=mean", steps=100)
    assert trainer.global_step == 4
    assert not bool(task.active.any())


def test_coarse_levels_come_first(tmp_path: Path) -> None:
    """Images grow to their full size, and every level has its rate; the schedule waits for the full size."""
    seen: list[tuple[int, float]] = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
            seen.append((pl_module.images[0].shape[-1], trainer.optimizers[0].param_groups[0]["lr"]))

    words = ["task.coarse.levels=2", "task.coarse.factor=0.5", "task.coarse.steps=2", "task.coarse.lr=0.04",
             "task.coarse.lr_decay=0.5", "+task.scheduler._target_=torch.optim.lr_scheduler.StepLR",
             "+task.scheduler._partial_=true", "+task.scheduler.step_size=2", "+task.scheduler.gamma=0.1"]  # fmt: skip
    run(tmp_path, *words, steps=7, callbacks=[Spy()])
    assert [size for size, _ in seen] == [8, 8, 16, 16, 32, 32, 32]
    assert [rate for _, rate in seen] == pytest.approx([0.04, 0.04, 0.02, 0.02, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(("words", "at"), [(["task.coarse.levels=1", "task.coarse.steps=6"], 4), ([], 9), (LBFGS, 1)])
def test_goes_on_as_if_it_had_never_stopped(tmp_path: Path, words: list[str], at: int) -> None:
    """From a checkpoint of either size: images, losses of all steps and frames of the animation."""
    steps = 3 if words == LBFGS else 12
    words = [*words, "task.tolerance=0.001", "task.patience=2", "task.start=gray"]
    kept = tmp_path / "kept.ckpt"

    class Keeping(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(kept)

    whole, _ = run(tmp_path, *words, steps=steps, callbacks=[Keeping()])
    again, _ = run(tmp_path, *words, steps=steps, resume=kept)
    assert torch.equal(again.found(), whole.found())
    assert torch.equal(again.whole_curves, whole.whole_curves)
    assert len(again.frames) == len(whole.frames)
    assert again.lines.equals(whole.lines)


def test_range(tmp_path: Path) -> None:
    """Projected images never leave [0, 1]; the others do on their way, and are clipped at the end."""
    big = ["task.optimizer.lr=0.5", "task.start=noise"]
    free, _ = run(tmp_path, *big, steps=2)
    held, _ = run(tmp_path, *big, "task.range=projected", steps=2)
    assert float(torch.stack([*free.images]).detach().max()) > 1.1
    low, high = torch.stack([*held.images]).detach().aminmax()
    assert float(low) >= 0
    assert float(high) <= 1
    assert float(free.found().max()) == 1


def test_warmup_goes_by_l2(tmp_path: Path) -> None:
    """Its steps are those of L2, whatever the loss."""
    warm, _ = run(tmp_path, "loss=fft", "task.warmup=1", "task.start=gray")
    plain_l2, _ = run(tmp_path, "loss=l2", "task.start=gray")
    torch.testing.assert_close(warm.found(), plain_l2.found())


def test_diverges_by_name(tmp_path: Path) -> None:
    """The set is named."""
    settings = plain(load("loss=l1", *SMALL))

    class Broken(L1):
        def terms(self, a: Any, b: Any) -> dict[str, Any]:
            return {"broken": super().terms(a, b)["broken"] * (torch.nan if a.requires_grad else 1)}

    task = build(settings["task"], loss=Broken())
    trainer = pl.Trainer(max_steps=2, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(DivergedError, match="broken of coffee became no number at step 0"):
        trainer.fit(task, datamodule=build(settings["data"]))


def test_bad_words(tmp_path: Path) -> None:
    """Before a step is taken."""
    for words, message in {
        "task.start=middle": "mean, zeros, black, gray, noise, blur, split, first, joined by",
        "task.start=noise+mean": "what there is comes first",
        "task.range=open": "end, projected, got 'open'",
        "task.tolerance=2": "task.tolerance is a number from 0 and less than 1, got 2",
        "task.warmup=2": "task.warmup is a number from 0 and at most 1, got 2",
        "task.patience=0": "task.patience is a whole number from 1, got 0",
        "loss=mmdpp task.coarse.levels=1 task.coarse.steps=3": "32 pixels a side, and the smallest here have 22×22",
        "task.coarse.factor=1": "factor between 0 and 1",
        "task.coarse.levels=2": "= 2000 steps come before the full size, and task.steps=12 leave none",
        "loss=ms_ssim": "and the smallest here have 32×32: raise data.size",
    }.items():
        with pytest.raises((ValueError, InstantiationException), match=message):
            run(tmp_path, *words.split())
    with pytest.raises(ValueError, match="GIM counts steps"):
        run(tmp_path, steps=-1)
    settings = plain(load("task=gim", "data=photos", "loss=l1"))
    trainer = pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="Photos has none: try data=corner_crops"):
        trainer.fit(build(settings["task"], loss=L1()), datamodule=build(settings["data"]))


def test_what_is_kept(tmp_path: Path) -> None:
    """The file alone is enough to measure the images under any loss, and the pictures show what is in it."""
    task, _ = run(tmp_path)
    files = task.files()
    assert {*files} == {"images.npz", "sets.csv", "curves.csv", "images/optimisation.gif"}
    (tmp_path / "images.npz").write_bytes(files["images.npz"])
    (row,) = task.rows()
    found = GIM.measure(tmp_path / "images.npz", L1())
    assert found == pytest.approx({"start": row["loss_start"], "end": row["loss_end"]}, rel=1e-5)
    with np.load(tmp_path / "images.npz") as held:
        assert held["found"].shape == (1, 2, 3, 32, 32)
        assert held["names"].tolist() == ["coffee", "chelsea"]
    assert files["curves.csv"].decode().splitlines()[0] == "step,coffee,chelsea"
    assert len(files["curves.csv"].decode().splitlines()) == 13
    shown = task.pictures(12, final=True)
    assert {name: tuple(picture.shape) for name, picture in shown.items()} == {
        "result": (3, 70, 36), "start": (3, 70, 36), "inputs": (3, 70, 138), "zooms": (3, 70, 104)
    }  # fmt: skip
    assert torch.equal(shown["inputs"][:, 2:34, 2:34], task.data.sets.pictures[0])


def test_animation_moves(tmp_path: Path) -> None:
    """It begins at the start, ends at the result, and has frames between."""
    import io

    from PIL import Image as Picture

    task, _ = run(tmp_path, "task.start=gray", "task.optimizer.lr=0.2")
    picture = Picture.open(io.BytesIO(task.files()["images/optimisation.gif"]))
    assert 5 < picture.n_frames <= 15  # type: ignore[attr-defined]
    first = np.asarray(picture.convert("RGB"))
    assert np.abs(first[4:30, 4:30].astype(int) - 128).max() <= 3
    picture.seek(picture.n_frames - 1)  # type: ignore[attr-defined]
    last, result = np.asarray(picture.convert("RGB")), task.pictures(0)["result"].permute(1, 2, 0).numpy()
    assert np.abs(last.astype(int) - result).mean() < 12  # a GIF has 256 colours


def test_starts() -> None:
    """Each is what its word says."""
    pictures = torch.rand(5, 3, 12, 12)
    sizes = [2, 3]
    mean = torch.stack([pictures[:2].mean(0), pictures[2:].mean(0)])
    assert torch.equal(start_images("mean", pictures, sizes, 0), mean)
    assert torch.equal(start_images("first", pictures, sizes, 0), pictures[[0, 2]])
    assert float(start_images("zeros", pictures, sizes, 0).max()) == 0
    assert start_images("gray", pictures, sizes, 0).unique().tolist() == [0.5]
    split = start_images("split", pictures, sizes, 0)
    assert torch.equal(split[0][..., :6], pictures[0][..., :6])
    assert torch.equal(split[0][..., 6:], pictures[1][..., 6:])
    assert torch.equal(split[1][..., 4:8], pictures[3][..., 4:8])
    noisy = start_images("gray+noise", torch.zeros(2, 3, 64, 64), [1, 1], 0) - 0.5
    assert float(noisy.std()) == pytest.approx(0.075, rel=0.03)  # half of .15 in [-1, 1]
    blurred = start_images("mean+blur", pictures, sizes, 0)
    assert bool((gradient_energy(blurred) < 0.3 * gradient_energy(mean)).all())


def test_set_noise_is_its_own() -> None:
    """A set alone starts with the noise that it has in a batch, and each seed and each + has another."""
    pictures = torch.rand(4, 3, 8, 8)
    both = start_images("mean+noise", pictures, [2, 2], 3)
    alone = [start_images("mean+noise", some, [2], 3) for some in (pictures[:2], pictures[2:])]
    assert torch.equal(both, torch.cat(alone))
    assert not torch.equal(both, start_images("mean+noise", pictures, [2, 2], 4))
    once, twice = (start_images(f"gray{more}", pictures, [4], 3) - 0.5 for more in ("+noise", "+noise+noise"))
    assert not torch.allclose(twice, 2 * once)


def test_judging_by_hand() -> None:
    """Images whose numbers are known."""
    a, b = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    a[:, :, 2:] = 1.0
    b[:, :, 3:] = 1.0
    pictures, even = torch.stack([a, b]), torch.tensor([0.5, 0.5])
    mean = pictures.mean(0)
    assert float(gradient_energy(a)) == pytest.approx(1 / 6)  # a third of the steps to the right, none down
    assert float(total_variation(a)) == pytest.approx(1 / 3)
    assert sharpness(a, pictures) == pytest.approx(1)
    assert sharpness(mean, pictures) == pytest.approx(0.5)  # two steps of one half
    assert variation(mean, pictures) == pytest.approx(1)
    assert ghosting(mean, pictures, even) == pytest.approx(1)
    assert ghosting(a, pictures, even) == 0
    assert ghosting(1 - a, pictures, even) > 1
    assert math.isnan(ghosting(b, torch.stack([a, a]), even))
    assert float(nearest(mean, pictures)) == pytest.approx(1 / 16)
    assert colour_error(mean, pictures, even) == pytest.approx(0)
    assert colour_error(a, pictures, even) == pytest.approx(0.125)
    assert colour_error(a, pictures, torch.tensor([1.0, 0.0])) == 0
    assert sharpness(a, torch.zeros(2, 3, 4, 4)) == 1  # nothing to compare with


def test_curves() -> None:
    """Images that were left out keep their last loss, and those that fall are told from those that don't."""
    curves = Curves(2)
    for step, losses in enumerate([[8.0, 1.0], [4.0, 1.0], [2.0, 1.0], [1.0, 1.0]]):
        curves.note(step, [0, 1], torch.tensor(losses))
    assert curves.falling(2, 0.1, lambda one: one).tolist() == [True, False]
    curves.note(4, [0], torch.tensor([0.5]))
    assert curves.state()[-1].tolist() == [0.5, 1.0]
    again = Curves(2)
    again.load(curves.state())
    assert torch.equal(again.state(), curves.state())
    assert settled_after(torch.tensor([1.0, 1.0, 1.0]), 0) == 0
    assert settled_after(torch.zeros(0), 0) == 0


def test_levels() -> None:
    """The coarsest comes first."""
    coarse = Coarse(levels=3, factor=0.69, steps=1000, lr=0.005, lr_decay=0.9)
    assert [coarse.level(step) for step in (0, 999, 1000, 2999, 3000, 9000)] == [3, 3, 2, 1, 0, 0]
    assert [coarse.rate(level) for level in (3, 2, 1)] == pytest.approx([0.005, 0.0045, 0.00405])
    assert coarse.size(3, (128, 100)) == (42, 33)
    assert coarse.before == 3000
    assert Coarse().before == 0


def test_measures_make_no_new_cell() -> None:
    """Steps and starts do; what is measured afterwards does not."""

    def cell(*words: str) -> str:
        return identify(plain(load("task=gim", "loss=l1", *words)), "").id

    assert cell() == cell("measures=[l2]")
    assert len({cell(), cell("task.steps=3"), cell("task.start=gray"), cell("data.offset=2"), cell("seed=1")}) == 5
