"""GLO moves the codes it should, keeps them where it says, and counts one step a batch."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from losslab.config import build, load, plain
from losslab.data.photos import Photos
from losslab.losses.penalty import NoPenalty, TotalVariation
from losslab.losses.pixel import L1, L2
from losslab.models.codes import project, sample_gaussian, start_codes
from losslab.models.dcgan import DCGANGenerator
from losslab.optimizers import JointOptimizer
from losslab.runs.cell import identify
from losslab.tasks.glo import GLO, _psnr

SMALL = ["task.generator.widths=[8,8,8,8]", "task.code_size=4", "data.train_count=12", "data.val_count=2",
         "data.batch_size=4"]  # fmt: skip


def fit(
    folder: Path, *overrides: str, epochs: int = 1, callback: pl.Callback | None = None, **options: Any
) -> tuple[GLO, pl.Trainer]:
    """Train a tiny GLO and bring back the task."""
    settings = plain(load("loss=l1", *SMALL, *overrides))
    pl.seed_everything(0, verbose=False)
    task = build(settings["task"], loss=build(settings["loss"]))
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
                         callbacks=[callback] if callback else [], enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=folder, **options)  # fmt: skip
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
    images = torch.randint(0, 256, (200, 3, 8, 8), dtype=torch.uint8)
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
    plane = torch.rand(9, 2) @ torch.rand(2, 768) * 100
    codes = start_codes("pca", plane.view(9, 3, 16, 16).round().to(torch.uint8), 2, 0)
    ratio = torch.pdist(plane) / torch.pdist(codes)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=0.02, atol=0)  # bytes are rounded
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
    norms: list[torch.Tensor] = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
            norms.append(pl_module.codes.norm(dim=1))

    fit(tmp_path, f"task.projection={projection}", *big, callback=Spy())
    assert len(norms) == 3
    assert all(seen.min() >= low - 1e-5 and seen.max() <= high + 1e-5 for seen in norms)
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


def test_handover_forgets_and_takes_the_other_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the warm-up Adam's memory of L2's gradients is gone, and it is the loss that trains."""
    adam: list[float] = []
    compared: list[str] = []

    def spied(kind: type[L1] | type[L2]) -> None:
        terms = kind.terms

        def noted(self: Any, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            compared.append(self.name)
            return terms(self, a, b)

        monkeypatch.setattr(kind, "terms", noted)

    spied(L1)
    spied(L2)

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
            adam.append(float(trainer.optimizers[0].optimizers["codes"].state[pl_module.codes]["step"]))

    fit(tmp_path, "task.warmup=0.5", epochs=2, callback=Spy())
    assert adam == [1, 2, 3, 1, 2, 3]
    assert compared == ["l1", "l2", "l2", "l2", "l1", "l1", "l1"]  # the first one is the check before training


def logged(folder: Path, *overrides: str) -> list[dict[str, float]]:
    """Train a tiny GLO and bring back what each step logs."""
    steps: list[dict[str, float]] = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    fit(folder, *overrides, callback=Spy())
    return steps


def test_penalty_is_added_to_the_loss(tmp_path: Path) -> None:
    """Its mean over the generated images is a term beside the loss's own, with its own name in the log."""
    for step in logged(tmp_path, "penalty=total_variation", "penalty.weight=0.5"):
        assert step.keys() == {"loss", "loss/l1", "loss/penalty"}
        assert step["loss/penalty"] > 0
        assert step["loss"] == pytest.approx(step["loss/l1"] + step["loss/penalty"])
    assert all(step.keys() == {"loss"} for step in logged(tmp_path))


def test_penalty_trains(tmp_path: Path) -> None:
    """One that outweighs the loss makes the images flatter than the loss alone does."""
    rate = "task.generator_optimizer.lr=0.02"

    def variation(*overrides: str) -> float:
        task, _ = fit(tmp_path, rate, *overrides, epochs=4)
        return float(TotalVariation(1)(task._images(task.codes)).mean())

    assert variation("penalty=total_variation", "penalty.weight=100") < 0.5 * variation()


def test_penalty_waits_for_the_warmup_to_end(tmp_path: Path) -> None:
    """Its weight is set against the loss, and L2 is not of the loss's size."""
    steps = logged(tmp_path, "penalty=total_variation", "task.warmup=0.34")
    assert [name for step in steps for name in step if name == "loss/penalty"] == ["loss/penalty"] * 2
    assert steps[0].keys() == {"warmup"}


def test_without_a_penalty_ids_are_as_before() -> None:
    """What was computed before there were penalties is found again; a penalty makes other cells."""
    settings = plain(load("loss=l2", "task=glo"))
    cell = identify(settings, "content").id
    assert cell == "1389ea05a2"  # of the version before penalties
    assert isinstance(build(settings["task"], loss=L2()).penalty, NoPenalty)
    assert identify(plain(load("loss=l2", "task=glo", "penalty=total_variation")), "content").id != cell
    del settings["task"]["penalty"]
    assert identify(settings, "content").id == cell


def test_nothing_is_trained_on_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that leaves the numbers is an error with the step and the terms, and so is a generator that does."""
    broken = ["task.generator_optimizer.lr=1e30", "task.generator_optimizer._target_=torch.optim.SGD",
              "~task.generator_optimizer.betas"]  # fmt: skip
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit(tmp_path, *broken, epochs=3)
    monkeypatch.setattr(L1, "terms", lambda _, a, b: {"l1": (a - b).mean(dim=(1, 2, 3)) * torch.inf})
    with pytest.raises(ValueError, match="l1 became (nan|-?inf) at step 0: l1 (nan|-?inf)"):
        fit(tmp_path)


def test_mixed_precision_leaves_the_loss_alone(tmp_path: Path) -> None:
    """Under autocast the generator saves digits, the loss does not; weights of 16 bits are refused."""
    kinds: set[torch.dtype] = set()

    class Watched(L1):
        def terms(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            kinds.update({a.dtype, b.dtype})
            assert not torch.is_autocast_enabled("cpu")
            return super().terms(a, b)

    settings = plain(load("loss=l1", *SMALL))
    task = build(settings["task"], loss=Watched())
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
               "enable_model_summary": False, "default_root_dir": tmp_path, "max_epochs": 1}  # fmt: skip
    pl.Trainer(precision="bf16-mixed", **options).fit(task, datamodule=build(settings["data"]))  # type: ignore[arg-type]
    assert kinds == {torch.float32}
    with pytest.raises(ValueError, match="trainer.precision is one of"):
        fit(tmp_path, precision="bf16-true")


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    _, trainer = fit(tmp_path, epochs=2, accumulate_grad_batches=3)
    assert trainer.global_step == 2


def test_psnr_of_a_perfect_picture_is_finite() -> None:
    """A flat image equals its mean colour; its PSNR is that of 8 bits, so that means stay numbers."""
    flat = torch.full((2, 3, 8, 8), 0.5)
    torch.testing.assert_close(_psnr(flat, flat), torch.full((2,), 58.92), rtol=0, atol=0.01)
    torch.testing.assert_close(_psnr(flat + 0.1, flat), torch.full((2,), 20.0))


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
    with pytest.raises(ValueError, match="images of 128 pixels need 5 widths in task.generator, got 4"):
        DCGANGenerator(64, 128, [512, 256, 128, 64])
    with pytest.raises(ValueError, match="not of 100"):
        DCGANGenerator(64, 100)
    assert DCGANGenerator(8, 32)(torch.randn(2, 8)).shape == (2, 3, 32, 32)
    # 128 pixels and codes of 64: widths 512, 512, 256, 128 and 64, 7,477,120 parameters
    assert sum(parameter.numel() for parameter in DCGANGenerator(64, 128).parameters()) == 7_477_120


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
        loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]  # as Lightning does
        batches = [batch.indices.tolist() for batch in loader]
        assert [len(batch) for batch in batches] == [4, 4]
        seen.update(*batches)
    assert seen == set(range(10))
