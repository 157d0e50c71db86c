"""GLO moves the codes it should, keeps them where it says, and counts one step a batch."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from losslab.config import build, load, plain
from losslab.data.photos import Photos
from losslab.losses.pixel import L1
from losslab.models.codes import project, sample_gaussian, start_codes
from losslab.models.dcgan import DCGANGenerator
from losslab.optimizers import JointOptimizer
from losslab.tasks.glo import GLO

SMALL = ["task.generator.widths=[8,8,8,8]", "task.code_size=4", "data.train_count=12", "data.val_count=2",
         "data.batch_size=4"]  # fmt: skip


def fit(folder: Path, *overrides: str, epochs: int = 1) -> tuple[GLO, pl.Trainer]:
    """Train a tiny GLO and bring back the task."""
    settings = plain(load("loss=l1", *SMALL, *overrides))
    pl.seed_everything(0, verbose=False)
    task = build(settings["task"], loss=build(settings["loss"]))
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)  # fmt: skip
    trainer.fit(task, datamodule=build(settings["data"]))
    return task, trainer


def test_projections() -> None:
    codes = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert torch.equal(project(codes, "none"), codes)
    torch.testing.assert_close(project(codes, "sphere"), torch.tensor([[0.6, 0.8], [0.6, 0.8]]))
    torch.testing.assert_close(project(codes, "ball"), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert project(torch.zeros(1, 2), "sphere").isfinite().all()
    with pytest.raises(ValueError, match="'none', 'sphere' or 'ball', got 'cube'"):
        project(codes, "cube")


def test_starts() -> None:
    images = torch.rand(200, 3, 8, 8)
    assert float(start_codes("normal", images, 16, 0).std()) == pytest.approx(0.01, rel=0.1)
    assert float(start_codes("unit_gaussian", images, 16, 0).std()) == pytest.approx(1, rel=0.1)
    assert torch.equal(start_codes("normal", images, 16, 0), start_codes("normal", images, 16, 0))
    with pytest.raises(ValueError, match="'normal', 'unit_gaussian' or 'pca', got 'zeros'"):
        start_codes("zeros", images, 16, 0)
    few = start_codes("pca", images[:3], 16, 0)  # three images span two components; the others are zero
    assert few.shape == (3, 16)
    assert few[:, 2:].abs().max() < 1e-6 < few[:, :2].abs().min()


def test_pca_start_keeps_the_geometry() -> None:
    """Images that lie in a plane are, up to one scale, as far apart as their codes; the largest norm is 1."""
    plane = torch.rand(9, 2) @ torch.rand(2, 48)
    codes = start_codes("pca", plane.view(9, 3, 4, 4), 2, 0)
    ratio = torch.pdist(plane) / torch.pdist(codes)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)
    assert float(codes.norm(dim=1).max()) == pytest.approx(1)


def test_gaussian_has_full_covariance() -> None:
    """Samples follow the correlations of the codes, and exist where there are fewer codes than numbers in one."""
    mixing = torch.tensor([[1.0, 0.9], [0.0, 0.3]])
    codes = torch.randn(500, 2) @ mixing + torch.tensor([3.0, -1.0])
    samples = sample_gaussian(codes, 20_000, 0)
    torch.testing.assert_close(samples.mean(0), codes.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(samples.T.cov(), codes.T.cov(), rtol=0.05, atol=0.02)
    assert sample_gaussian(torch.rand(3, 10), 5, 0).isfinite().all()


@pytest.mark.parametrize(("projection", "low", "high"), [("sphere", 1, 1), ("ball", 0, 1)])
def test_projection_is_applied_after_each_step(tmp_path: Path, projection: str, low: float, high: float) -> None:
    """Unlike the original, whose force_norm changes nothing but a name."""
    big = ["task.init=unit_gaussian", "task.code_optimizer.lr=0.5"]
    task, _ = fit(tmp_path, f"task.projection={projection}", *big)
    norms = task.codes.norm(dim=1)
    assert norms.min() >= low - 1e-5
    assert norms.max() <= high + 1e-5
    free, _ = fit(tmp_path, "task.projection=none", *big)
    assert free.codes.norm(dim=1).max() > 1.1


def test_a_code_moves_by_its_own_image_only(tmp_path: Path) -> None:
    """The data set's index finds the code: under SGD only those of the batches that were seen have moved."""
    overrides = ["task.projection=none", "task.code_optimizer._target_=torch.optim.SGD", "~task.code_optimizer.betas"]
    settings = plain(load("loss=l1", *SMALL, *overrides))
    task = build(settings["task"], loss=L1())
    seen: list[int] = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if not seen:
                self.before = pl_module.codes.detach().clone()
            seen.extend(batch.indices.tolist())

    spy = Spy()
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=2, accelerator="cpu", logger=False, callbacks=[spy],
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                         default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(task, datamodule=build(settings["data"]))
    moved = (task.codes.detach() != spy.before).any(dim=1)
    assert sorted(seen) == moved.nonzero().flatten().tolist()
    assert len(seen) == 8


def test_one_step_a_batch(tmp_path: Path) -> None:
    """Two optimisers, yet Lightning counts batches, so that max_steps and schedules mean what they say."""
    _, trainer = fit(tmp_path, epochs=2)
    assert trainer.global_step == 6
    assert trainer.estimated_stepping_batches == 6


def test_own_learning_rates(tmp_path: Path) -> None:
    """A learning rate of zero holds the codes, and the generator still learns; and the other way round."""
    for still, moving in (("code", "generator"), ("generator", "code")):
        rates = [f"task.{still}_optimizer.lr=0.0", f"task.{moving}_optimizer.lr=0.1"]
        task, _ = fit(tmp_path, *rates, "task.projection=none")
        settings = plain(load("loss=l1", *SMALL))
        pl.seed_everything(0, verbose=False)
        fresh = build(settings["task"], loss=L1())
        fresh.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        data = build(settings["data"])
        data.setup()
        fresh.trainer.datamodule = data
        fresh.setup("fit")
        assert torch.equal(task.codes, fresh.codes) == (still == "code")
        weights = [next(one.generator.parameters()) for one in (task, fresh)]
        assert torch.equal(*weights) == (still == "generator")


def test_warmup_trains_with_l2_first(tmp_path: Path) -> None:
    """The stated share of the steps logs `warmup`, the others the loss."""
    settings = plain(load("loss=l1", *SMALL, "task.warmup=0.5"))
    task = build(settings["task"], loss=L1())
    names: list[str] = []
    task.log = lambda name, *_, **__: names.append(name)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(task, datamodule=build(settings["data"]))
    assert names == ["warmup"] * 3 + ["loss"] * 3


def test_warmup_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="share from 0 to 1, got 30"):
        GLO(L1(), nn.Identity, torch.optim.SGD, torch.optim.SGD, warmup=30)


def test_the_loss_decides_the_warmup() -> None:
    """On for MMD++, off for the others, and part of the task's config."""
    assert plain(load("loss=mmdpp"))["task"]["warmup"] > 0
    assert plain(load("loss=l2"))["task"]["warmup"] == 0
    assert plain(load("loss=mmdpp", "task.warmup=0.1"))["task"]["warmup"] == 0.1


def test_joint_optimizer_equals_separate_ones() -> None:
    """It changes no number, keeps its state over a reload, and shares its groups with the schedule."""

    def run(*, joint: bool, reload: bool = False) -> list[torch.Tensor]:
        torch.manual_seed(1)
        a, b = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
        parts = {"a": torch.optim.Adam([a], lr=0.1), "b": torch.optim.SGD([b], lr=0.2, momentum=0.9)}
        together = JointOptimizer(**parts)
        optimizers = [together] if joint else list(parts.values())
        for step in range(6):
            if reload and step == 3:
                state = together.state_dict()
                parts = {"a": torch.optim.Adam([a], lr=9), "b": torch.optim.SGD([b], lr=9, momentum=0.1)}
                together = JointOptimizer(**parts)
                together.load_state_dict(state)
                optimizers = [together]
            for group in together.param_groups:
                group["lr"] *= 0.9
            for one in optimizers:
                one.zero_grad()
            ((a * b).sum() - 1).square().backward()
            for one in optimizers:
                one.step()
        return [a.detach(), b.detach()]

    torch.testing.assert_close(run(joint=True), run(joint=False), rtol=0, atol=0)
    torch.testing.assert_close(run(joint=True, reload=True), run(joint=False), rtol=0, atol=0)


def test_generator_follows_the_source() -> None:
    """3,281,792 parameters for codes of 64 and images of 64 pixels, as the original's DCGAN has."""
    generator = DCGANGenerator(64, 64)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 3_281_792
    image = generator(torch.randn(4, 64)).detach()
    assert image.shape == (4, 3, 64, 64)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    with pytest.raises(ValueError, match="4 widths make images of 64 pixels, not 128"):
        DCGANGenerator(64, 128)


def test_too_small_images_are_refused_before_training(tmp_path: Path) -> None:
    """Not when the warm-up ends."""
    with pytest.raises(ValueError, match="at least 32×32 pixels, got 16×16"):
        fit(tmp_path, "loss=mmdpp", "data.size=16")


def test_photos_train_on_every_image_in_turn() -> None:
    """An incomplete last batch is left out, but not the same images each time."""
    data = Photos(train_count=10, val_count=0, batch_size=4)
    data.setup()
    loader = data.train_dataloader()
    seen: set[int] = set()
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        batches = [batch.indices.tolist() for batch in loader]
        assert [len(batch) for batch in batches] == [4, 4]
        seen.update(*batches)
    assert seen == set(range(10))
