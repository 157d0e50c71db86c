"""Metrics learn from judgements what they should, keep what they should, and go on where they were stopped."""

import copy
import functools
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from runs_here import request_of, results, scores
from torch import Tensor, nn

from losslab.config import build, load, plain
from losslab.data.judged import JudgedData, Pairs, TripletBatch, Triplets
from losslab.divergence import DivergedError
from losslab.images import to_float
from losslab.losses.learned import Learned
from losslab.losses.lpips import LPIPS
from losslab.losses.panel import Panel
from losslab.losses.pixel import L2
from losslab.metrics.two_afc import two_afc_scores
from losslab.networks.heads import heads_file
from losslab.runs.attempt import attempt
from losslab.runs.plan import make_plan
from losslab.tasks.judging import Judging
from losslab.tasks.metric_training import MetricTraining, rate
from losslab.tasks.two_afc import TwoAFC

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode")

T = TypeVar("T", bound=Judging)
SIDE = 32
ALEX = ["task=metric_training", "network=alexnet", "weights=random", "loss.heads=none", "loss.layers=[relu1,relu2]"]
SQUEEZE = ["task=metric_training", "network=squeezenet1_1", "weights=random", "loss.heads=none",
           "loss.layers=[relu1,fire2]"]  # fmt: skip
TRUNK = "network.trainable=true"


class Made(JudgedData):
    """Pictures with two noises of different strength; people prefer the weaker one, or what they are told to."""

    def __init__(self, count: int = 16, judge: Tensor | None = None, batch_size: int = 8, weak: float = 10.0) -> None:
        super().__init__(batch_size, 0)
        random = torch.Generator().manual_seed(3)
        base = torch.randint(40, 216, (count, 3, SIDE, SIDE), generator=random)
        noise = torch.randn(2, *base.shape, generator=random)
        stronger = torch.arange(count) % 2
        strength = torch.stack([weak + (30 - weak) * stronger, 30 - (30 - weak) * stronger])[..., None, None, None]
        pictures = torch.cat([base, *(base + strength * noise)]).clamp(0, 255).byte()
        reference, p0, p1 = torch.arange(3 * count).reshape(3, count)
        given = stronger.float() * 0.8 + 0.1 if judge is None else judge
        self.subset = (torch.arange(count) % 4 == 0).long()
        self.made = Triplets(pictures, reference, p0, p1, given, self.subset, ("many", "few"))

    def load(self) -> Triplets:
        return self.made

    def load_train(self) -> Triplets:
        return self.made


@functools.cache
def settings_of(*words: str) -> dict[str, Any]:
    return plain(load(*words))


def loss_of(*words: str) -> LPIPS:
    found: LPIPS = build(settings_of(*(words or ALEX))["loss"])
    return found


def task_of(*words: str, loss: nn.Module | None = None) -> MetricTraining:
    settings = settings_of(*(words if any(word.startswith("network=") for word in words) else (*ALEX, *words)))
    found: MetricTraining = build(settings["task"], loss=loss or build(settings["loss"]))
    return found


def run(task: T, folder: Path, data: Any = None, epochs: int = 1, spy: pl.Callback | None = None) -> T:
    """Take a task through its stages."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
                         callbacks=[spy] if spy else [], enable_progress_bar=False, enable_model_summary=False,
                         default_root_dir=folder)  # fmt: skip
    held = data or Made()
    for stage in task.stages:
        more: dict[str, Any] = {} if stage == "fit" else {"verbose": False}
        getattr(trainer, stage)(task, datamodule=held, **more)
    return task


class AtSteps(pl.Callback):
    """Notes what a function gives of the task before and after each step."""

    def __init__(self, note: Any) -> None:
        self.note, self.before, self.after = note, list[Any](), list[Any]()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: object) -> None:
        self.before.append(self.note(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: object) -> None:
        self.after.append(self.note(pl_module))


@pytest.mark.parametrize(("option", "first"), [("metric_training", 1e-4), ("metric_training_ltu", 1e-3)])
def test_learning_rates_of_the_recipes(option: str, first: float, tmp_path: Path) -> None:
    """Six epochs of ten at the full rate, then .8, .6, .4 and .2 of it, under Adam of betas (.5, .999)."""
    settings = plain(load(f"task={option}", *ALEX[1:-1], "loss.layers=[relu1]", "trainer=ten_epochs"))
    spy = AtSteps(lambda task: task.optimizers().param_groups[0]["lr"])
    task = build(settings["task"], loss=build(settings["loss"]))
    run(task, tmp_path, Made(8), settings["trainer"]["max_epochs"], spy)
    assert spy.before == pytest.approx([first] * 6 + [first * share for share in (0.8, 0.6, 0.4, 0.2)])
    optimizer = task.make_optimizer([nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["betas"] == (0.5, 0.999)


def test_rate_of_any_length() -> None:
    """No training ends at a rate of zero, and no share of the epochs is no fall."""
    assert [rate(epoch, 2, 0.5) for epoch in range(2)] == [1, 1]
    assert [rate(epoch, 3, 0) for epoch in range(3)] == [1, 1, 1]
    assert min(rate(epoch, 60, 1) for epoch in range(60)) == pytest.approx(1 / 60)


@pytest.mark.parametrize("variant", ["lin", "scratch"])
def test_clips_heads_and_nothing_else(variant: str, tmp_path: Path) -> None:
    """After every step no head is below zero, and 1 × 1 convolutions of Fire modules keep their negative weights."""
    words = [*SQUEEZE, f"task.variant={variant}", "task.optimizer.lr=0.05",
             *([TRUNK] if variant == "scratch" else [])]  # fmt: skip
    spy = AtSteps(lambda task: min(float(head.detach().min()) for head in task.metric.heads))
    task = task_of(*words)
    assert min(float(head.detach().min()) for head in task.metric.heads) == 0  # at the start too
    before = copy.deepcopy(dict(task.metric.network.named_parameters()))
    run(task, tmp_path, epochs=2, spy=spy)
    assert min(spy.after) == 0
    after = dict(task.metric.network.named_parameters())
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == (set(after) if variant == "scratch" else set())
    small = [one for one in after.values() if one.ndim == 4 and one.shape[-2:] == (1, 1)]
    assert small
    assert all(bool((one < 0).any()) for one in small)


@pytest.mark.parametrize("variant", ["lin", "scratch"])
def test_training_moves_what_it_should(variant: str, tmp_path: Path) -> None:
    """Heads and the ranking net move in both; the network's biases and weights in `scratch` alone; nothing in eval."""
    words = [f"task.variant={variant}", *([TRUNK] if variant == "scratch" else [])]
    task = task_of(*ALEX, *words)
    before = {name: one.detach().clone() for name, one in task.named_parameters()}
    run(task, tmp_path)
    still = {name for name, one in task.named_parameters() if torch.equal(one, before[name])}
    of_networks = {name for name in before if "extractor" in name}
    assert of_networks
    assert still == (of_networks if variant == "lin" else {name for name in of_networks if ".before." in name})
    assert not any(one.training for one in task.metric.network.modules())


def test_loss_is_the_published_one(tmp_path: Path) -> None:
    """Binary cross-entropy of the ranking net's sigmoid against the share of judgements, a mean over triplets."""
    task, batch = task_of("task.dropout=0", "task.start=ones"), batch_of(Made())
    plain_loss = with_trainer(task, tmp_path).training_step(batch, 0)
    base = loss_of()
    d0, d1 = base(batch.reference, batch.p0), base(batch.reference, batch.p1)
    foretold = task.ranking(d0, d1).sigmoid()
    torch.testing.assert_close(plain_loss, nn.BCELoss()(foretold, batch.judge), rtol=1e-5, atol=0)
    assert task.metric.training


@pytest.mark.parametrize(("sync", "epochs"), [(0, []), (2, [0, 1]), (-1, [1, 2])])
def test_sync_loss(sync: int, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the cross-entropy of the bare difference: never, in the first N epochs, or while the score is low."""
    task, batch = task_of(f"task.sync={sync}", "task.dropout=0", "task.start=ones"), batch_of(Made())
    with_trainer(task, tmp_path)
    d0, d1 = task._distances(batch)
    # The judgements of the second and third epoch contradict the metric, the third by a tie.
    for epoch in range(3):
        monkeypatch.setattr(MetricTraining, "current_epoch", epoch)
        distances = (d0, d1) if epoch == 0 else (d1, d0) if epoch == 1 else (d0, d0)
        monkeypatch.setattr(task, "_distances", lambda _, distances=distances: distances)
        expected = nn.BCELoss()(task.ranking(*distances).sigmoid(), batch.judge)
        if epoch in epochs:
            expected = expected + 10 * nn.BCELoss()((distances[0] - distances[1]).sigmoid(), batch.judge)
        torch.testing.assert_close(task.training_step(batch, 0), expected)


def batch_of(data: JudgedData) -> TripletBatch:
    held = data.load()
    assert isinstance(held, Triplets)
    reference, p0, p1 = (to_float(held.pictures[one]) for one in (held.reference, held.p0, held.p1))
    return TripletBatch(reference, p0, p1, held.judge)


def with_trainer(task: MetricTraining, folder: Path) -> MetricTraining:
    """Let a task take single steps."""
    task.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=folder)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    return task.train()


def test_dropout_only_trains() -> None:
    """The same distance as with fixed heads in eval mode; in training mode others, with that one as their mean."""
    base = loss_of()
    metric = Learned(base, "uniform", 0.5)
    x, y = torch.rand(2, 4, 3, SIDE, SIDE)
    right = metric.eval()(x, y)
    torch.testing.assert_close(right, metric.fixed()(x, y))
    metric.train()
    drawn = torch.stack([metric(x, y) for _ in range(40)]).detach()
    assert float(drawn.std(0).min()) > 0
    torch.testing.assert_close(drawn.mean(0), right, rtol=0.02, atol=0)
    without = Learned(base, "uniform", 0.0).train()
    torch.testing.assert_close(without(x, y), right)


def test_drops_half_of_the_differences() -> None:
    """Each by itself, not whole channels or places, and the others count twice."""
    base = loss_of(*ALEX[:-1], "loss.layers=[relu1]")
    metric = Learned(base, "ones", 0.5).train()
    seen: list[Tensor] = []
    metric.dropout.register_forward_hook(lambda _, given, made: seen.append(made / given[0]))
    metric(*torch.rand(2, 2, 3, SIDE, SIDE))
    factors = seen[0][~seen[0].isnan()]
    assert set(factors.round(decimals=4).tolist()) == {0, 2}
    assert float(factors.mean()) == pytest.approx(1, abs=0.05)
    whole = seen[0].nan_to_num(2)
    assert not (whole == 0).all((-2, -1)).any()
    assert not (whole == 0).all(1).any()


def test_starts() -> None:
    """U(-1/√C, 1/√C) clipped, by the seed alone; or ones, the metric without heads."""
    base = loss_of()
    uniform, same, other = (Learned(base, "uniform", seed=seed) for seed in (0, 0, 1))
    for head, again, differs, count in zip(uniform.heads, same.heads, other.heads, (64, 192), strict=True):
        assert head.shape == (count,)
        assert torch.equal(head, again)
        assert not torch.equal(head, differs)
        assert 0.9 / math.sqrt(count) < float(head.detach().max()) <= 1 / math.sqrt(count)
        assert float((head == 0).float().mean()) == pytest.approx(0.5, abs=0.2)
    x, y = torch.rand(2, 2, 3, SIDE, SIDE)
    torch.testing.assert_close(Learned(base, "ones").eval()(x, y), base(x, y))
    torch.testing.assert_close(uniform.untrained()(x, y), base(x, y))


def test_learns_what_the_network_can_see(tmp_path: Path) -> None:
    """Judgements by one channel alone are learnt: the score rises, and that channel's weight stands out."""
    base = loss_of(*ALEX[:-1], "loss.layers=[relu1]")
    data = Made(64, weak=30.0)
    batch = batch_of(data)
    only = Learned(base, "ones", 0).eval()
    wanted = 5
    only.heads[0].data = torch.eye(64)[wanted]
    with torch.no_grad():
        judge = (only(batch.reference, batch.p1) < only(batch.reference, batch.p0)).float()
    assert 0.2 < float(judge.mean()) < 0.8
    words = [*ALEX[:-1], "loss.layers=[relu1]", "task.optimizer.lr=0.05", "task.dropout=0", "task.decay=0"]
    task = run(task_of(*words, loss=base), tmp_path, Made(64, judge, 32, weak=30.0), epochs=25)
    (row,) = task.rows()
    assert row["score"] > row["untrained"] + 0.2
    assert row["gain"] == row["score"] - row["untrained"]
    assert int(task.metric.heads[0].argmax()) == wanted


def test_row_tells_the_truth(tmp_path: Path) -> None:
    """Its scores are those of LPIPS with the saved heads and without; its loss is the mean of the last epoch."""
    spy = AtSteps(lambda task: float(task.trainer.callback_metrics.get("loss", torch.nan)))
    judge = torch.rand(16, generator=torch.Generator().manual_seed(1))  # so that scores are no round numbers
    task, data = task_of("task.optimizer.lr=0.05"), Made(judge=judge, weak=30.0)
    run(task, tmp_path, data, epochs=3, spy=spy)
    (row,) = task.rows()
    assert row["train_loss"] == pytest.approx(np.mean(spy.after[-2:]), rel=1e-5)
    batch = batch_of(data)
    for name, loss in (("score", saved(task, tmp_path)), ("untrained", loss_of())):
        with torch.no_grad():
            d0, d1 = loss(batch.reference, batch.p0).numpy(), loss(batch.reference, batch.p1).numpy()
        each = two_afc_scores(d0, d1, batch.judge.numpy())
        assert row[f"{name}/many"] == pytest.approx(each[data.subset == 0].mean())
        assert row[f"{name}/few"] == pytest.approx(each[data.subset == 1].mean())
        assert row[name] == pytest.approx((row[f"{name}/many"] + row[f"{name}/few"]) / 2)
    judging = TwoAFC(Panel({"lin": saved(task, tmp_path), "untrained": loss_of()}))
    run(judging, tmp_path, data)
    own, before = judging.rows()
    for name in ("score", "low", "high", "accuracy", "human", "oracle/few", "score/pooled"):
        assert row[name] == pytest.approx(own[name])
    assert row["low"] < row["score"] < row["high"]
    assert row["untrained/pooled"] == pytest.approx(before["score/pooled"])
    assert task.files()["differences.csv"] == judging.files()["differences.csv"]
    assert set(task.pictures(6, final=True)) <= {"worst_lin", "worst_untrained"}
    for head, zeros in zip(task.metric.heads, (16, 0), strict=True):
        head.data = (torch.arange(len(head)) >= zeros).float()
    shares = {name: share for name, share in task.rows()[0].items() if name.startswith("zeros")}
    assert shares == {"zeros/relu1": 0.25, "zeros/relu2": 0}


def saved(task: MetricTraining, folder: Path, *words: str) -> LPIPS:
    """Write a task's files, and read the metric from them by the words that a user gives."""
    for name, content in task.files().items():
        (folder / name).write_bytes(content)
    given = ["task=glo", "loss=lpips", *(words or [*ALEX[1:3], ALEX[-1]])]
    return loss_of(*given, "loss.heads=file", f"loss.heads_path={folder / 'heads.pth'}")


def test_trunk_is_stored_and_read(tmp_path: Path) -> None:
    """A trained network comes back by weights=file, though it is cut in the middle of a child of the architecture."""
    task = run(task_of(*SQUEEZE, "task.variant=scratch", TRUNK, "task.optimizer.lr=0.01"), tmp_path)
    files = task.files()
    assert set(files) == {"heads.pth", "trunk.pth", "differences.csv"}
    words = [SQUEEZE[1], SQUEEZE[-1]]
    loss = saved(task, tmp_path, *words, "weights=file", f"weights.path={tmp_path / 'trunk.pth'}")
    x, y = torch.rand(2, 3, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(loss(x, y), task.metric.eval()(x, y), rtol=1e-6, atol=0)
        assert not torch.allclose(loss(x, y), saved(task, tmp_path, *words, "weights=random")(x, y), rtol=1e-3)
    stored = torch.load(io.BytesIO(files["trunk.pth"]), weights_only=True)
    assert {key.split(".")[0] for key in stored} == {"features"}
    assert "features.12.squeeze.weight" in stored  # behind the cut


def test_trunk_with_batch_norm(tmp_path: Path) -> None:
    """Children behind the cut are left out, and statistics of batch norms come back as they were."""
    words = ["network=resnet18", "weights=random", "loss.heads=none", "loss.layers=[layer1]"]
    task = task_of("task=metric_training", *words, "task.variant=scratch", TRUNK)
    run(task, tmp_path, Made(8), epochs=1)
    (tmp_path / "trunk.pth").write_bytes(task.files()["trunk.pth"])
    stored = torch.load(tmp_path / "trunk.pth", weights_only=True)
    assert {key.split(".")[0] for key in stored} == {"conv1", "bn1", "layer1"}
    assert torch.equal(stored["bn1.running_mean"], torch.zeros(64))
    given = ["task=glo", "loss=lpips", *words[:1], "weights=file", f"weights.path={tmp_path / 'trunk.pth'}", *words[2:]]
    loss, x = loss_of(*given), torch.rand(1, 3, SIDE, SIDE)
    for layer, features in loss.deep.network.read(x).items():
        torch.testing.assert_close(features, task.metric.network.read(x)[layer], rtol=1e-6, atol=0)


def test_baseline_trains_nothing(tmp_path: Path) -> None:
    """It is scored as LPIPS without heads is, and leaves no file."""
    task = task_of("task.variant=baseline")
    assert task.stages == ("test",)
    (row,) = run(task, tmp_path).rows()
    assert not [name for name in row if name.split("/")[0] in ("untrained", "gain", "train_loss", "zeros")]
    (trained,) = run(task_of("task.optimizer.lr=0.05"), tmp_path).rows()
    assert row["score"] == trained["untrained"]
    assert task.files() == {}
    assert task.pictures(0) == {}


REFUSED = {
    "task.variant=lint": "task.variant is one of baseline, lin, tune, scratch, got 'lint'",
    "task.variant=tune network.trainable=false": "tune trains the network too: give network.trainable=true",
    f"{TRUNK}": "task.variant=lin leaves the network as it is: give network.trainable=false",
    f"task.variant=tune {TRUNK}": "tune begins with trained weights, and these are random ones: .*variant=scratch",
    "task.ranking=big": "task.ranking is one of large, small, none, got 'big'",
    "task.start=zeros": "task.start is one of uniform, ones, got 'zeros'",
    "task.dropout=1": "task.dropout is a share from 0 to below 1, got 1",
    "task.sync=-2": "task.sync is a number of epochs, or -1 for batches of a score up to ½, got -2",
    "task.decay=2": "task.decay is a share of the epochs from 0 to 1, got 2",
    "redraw_every=3": "redraw_every=0",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refuses_what_can_not_be_trained(words: str) -> None:
    """Every wrong choice is named before the training, with what would be right."""
    with pytest.raises(InstantiationException, match=REFUSED[words]):
        task_of(*ALEX, *words.split())


def test_refuses_losses_that_are_not_lpips(tmp_path: Path) -> None:
    """A loss without heads, a panel, and an LPIPS that has heads already."""
    with pytest.raises(InstantiationException, match="give loss=lpips, with any network=.* not l2"):
        task_of(loss=L2())
    with pytest.raises(InstantiationException, match="not a panel of several losses"):
        task_of(loss=Panel({"l2": L2()}))
    (tmp_path / "heads.pth").write_bytes(Learned(loss_of()).files()["heads.pth"])
    with pytest.raises(InstantiationException, match="give loss.heads=none"):
        task_of(*ALEX[:3], ALEX[-1], "loss.heads=file", f"loss.heads_path={tmp_path / 'heads.pth'}")


def test_refuses_scratch_from_trained_weights(tmp_path: Path) -> None:
    """Weights of a file are trained ones: `tune` takes them, `scratch` does not."""
    base = loss_of(*SQUEEZE, TRUNK)
    (tmp_path / "trunk.pth").write_bytes(Learned(base).files()["trunk.pth"])
    words = [*SQUEEZE[:2], "weights=file", f"weights.path={tmp_path / 'trunk.pth'}", *SQUEEZE[3:], TRUNK]
    with pytest.raises(InstantiationException, match="scratch begins with random weights.*task.variant=tune"):
        task_of(*words, "task.variant=scratch")
    judge = torch.rand(16, generator=torch.Generator().manual_seed(1))
    tuned = run(task_of(*words, "task.variant=tune", "task.optimizer.lr=0.05"), tmp_path, Made(judge=judge, weak=30.0))
    assert set(tuned.files()) == {"heads.pth", "trunk.pth", "differences.csv"}
    baseline = run(task_of(*words[:-1], "task.variant=baseline"), tmp_path, Made(judge=judge, weak=30.0))
    assert tuned.rows()[0]["untrained"] == baseline.rows()[0]["score"] != tuned.rows()[0]["score"]


def test_refuses_data_without_triplets(tmp_path: Path) -> None:
    """Pairs, and data that nobody judged."""

    class Others(Made):
        def load(self) -> Pairs:  # type: ignore[override]
            own = self.made
            return Pairs(own.pictures, own.p0, own.p1, own.judge, own.subset, own.subsets)

    for data in (Others(), build(plain(load("data.train_count=4", "data.val_count=2", "data.batch_size=2"))["data"])):
        with pytest.raises(ValueError, match=f"judges by triplets, and data of {type(data).__name__} have none"):
            run(task_of(), tmp_path, data)


def test_no_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that leaves the numbers ends the training with the step."""
    steps = []

    def broken(self: Learned, a: Any, b: Any) -> Tensor:
        steps.append(1)
        return torch.full((8,), torch.nan if len(steps) > 3 else 0.0)  # two distances a step, and one before

    monkeypatch.setattr(Learned, "compare", broken)
    with pytest.raises(DivergedError, match="ranking of lin became nan at step 1") as caught:
        run(task_of(), tmp_path)
    assert (caught.value.term, caught.value.step) == ("ranking", 1)


def test_a_fixed_metric_stays(tmp_path: Path) -> None:
    """What is fixed neither moves with the training nor stops it, and heads that are no numbers end the test."""
    task = task_of(*SQUEEZE, "task.variant=scratch", TRUNK, "task.optimizer.lr=0.05")
    x, y = torch.rand(2, 2, 3, SIDE, SIDE)
    fixed = task.metric.fixed()
    before = fixed(x, y)
    assert not before.requires_grad
    run(task, tmp_path)
    assert torch.equal(fixed(x, y), before)
    assert not torch.allclose(task.metric.eval()(x, y), before)
    task.metric.heads[0].data.fill_(torch.inf)
    task.stages = ("test",)
    with pytest.raises(DivergedError, match="heads of the scratch metric are no numbers"):
        run(task, tmp_path)


def test_metric_that_is_no_number_has_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was before is no result of the cell by itself."""
    task = task_of()
    monkeypatch.setattr(task.metric, "fixed", Broken)
    task.stages = ("test",)
    with pytest.raises(DivergedError, match="lin gives distances that are no numbers"):
        run(task, tmp_path)


class Broken(L2):
    """NaN for some pairs."""

    def terms(self, a: Any, b: Any) -> Any:
        return {name: one.log() * torch.tensor(-1.0).sqrt() for name, one in super().terms(a, b).items()}


def test_devices_drop_different_places() -> None:
    """Each draws its own numbers from the first step on; one device alone leaves the generator as it is."""
    task = task_of()
    drawn = []
    for world, rank in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(5)
        torch.rand(3)
        task._trainer = SimpleNamespace(world_size=world, global_rank=rank, global_step=0)  # type: ignore[assignment]
        task.on_train_start()
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3
    assert drawn[0] == float(torch.rand(4, generator=torch.Generator().manual_seed(5))[-1])


def test_heads_file_refuses_what_would_be_refused() -> None:
    """Weights below zero, and those that are none, are no heads."""
    for bad in (torch.tensor([0.5, -0.1]), torch.tensor([torch.nan]), torch.tensor([torch.inf]), torch.ones(1, 3)):
        with pytest.raises(ValueError, match="heads are vectors of numbers from 0; the 1. has the shape"):
            heads_file([torch.ones(2), bad])


def test_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of an epoch, with dropout: rows, logged numbers and files are those of a straight run."""
    monkeypatch.setenv("LOSSLAB_TRUST", "test_metric_training.")
    words = [*ALEX, "loss=lpips", "task.variant=scratch", TRUNK, "task.optimizer.lr=0.01", "trainer.max_epochs=2",
             "checkpoint_seconds=0", "data._target_=test_metric_training.Made", "data.count=24", "data.batch_size=8",
             "~data.value", "~data.seed"]  # fmt: skip
    step = MetricTraining.training_step

    def stopped(self: MetricTraining, batch: TripletBatch, batch_idx: int) -> Tensor:
        if self.global_step == 4:
            raise ZeroDivisionError
        return step(self, batch, batch_idx)

    plans = [make_plan(request_of(tmp_path / name, *words)) for name in ("stopped", "straight")]
    monkeypatch.setattr(MetricTraining, "training_step", stopped)
    attempt(plans[0])
    assert not scores(tmp_path / "stopped")
    monkeypatch.setattr(MetricTraining, "training_step", step)
    for plan in plans:
        attempt(plan)
    assert scores(tmp_path / "stopped") == scores(tmp_path / "straight") != {}
    both = [plan.folder for plan in plans]
    assert len({(folder / "metrics.csv").read_text() for folder in both}) == 1
    for name in ("heads.pth", "trunk.pth"):
        first, second = (torch.load(folder / name, weights_only=True) for folder in both)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert results(tmp_path / "stopped").complaint() is None
