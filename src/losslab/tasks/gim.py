"""Generalized image mean (GIM): the one image closest to a set of images under a loss, for many sets at once."""

import math
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from losslab import images
from losslab.checks import check_number, check_whole
from losslab.data.sets import SetData
from losslab.divergence import DivergedError
from losslab.losses.base import Loss
from losslab.losses.copies import copies
from losslab.losses.penalty import NoPenalty, Penalty
from losslab.losses.pixel import L2
from losslab.losses.seeing import sees
from losslab.losses.sets import SetDistances
from losslab.models.coarse import Coarse
from losslab.models.start_images import start_images
from losslab.optimizers import OneByOne
from losslab.tasks import gim_files, gim_pictures, gim_scores
from losslab.tasks.gim_curves import Curves, settled_after
from losslab.types import Bytes, Image, Pictures

PRECISIONS = ("32-true", "64-true")
"""Fewer bits would lose the small steps of pixels."""
RANGES = ("end", "projected")
FRAMES = 40
"""Of the animation, at most."""


class GIM(pl.LightningModule):
    """min over images x_s of Σ_k w_sk loss(x_s, y_sk) + penalty(x_s), for each set s of pictures y_sk.

    Sets don't see each other: each is optimised as it would be alone. With several draws of what is random in the loss,
    each set has an image under each of them.

    Args:
        loss: what says which image is closest.
        optimizer: makes the optimiser of a list of images; L-BFGS takes them one at a time.
        scheduler: makes a schedule of the learning rate, stepped at each step of the full size; None keeps it.
        steps: of the optimiser, all levels together; the config's `trainer.max_steps` follows it.
        start: what the images begin as (`losslab.models.start_images`).
        coarse: the levels before the full size; None for none.
        range: "end" clips the images to [0, 1] when all steps are taken; "projected" after each one.
        tolerance: an image has converged, and moves no more, when the mean of its loss over `patience` steps is less
            than this share below that of the `patience` steps before; 0 takes all steps.
        patience: see `tolerance`; steps.
        warmup: share of the steps that go by L2 before the loss and the penalty take over, 0 to 1.
        draws: of what is random in the loss; each has its own images.
        seed: of noise in the start.
        penalty: what an image costs by itself; None for nothing.

    Raises:
        ValueError: a word or number that is none of these.

    Source: Amir and Weiss, "Understanding and Simplifying Perceptual Distances", CVPR 2021, section 1.2;
        perceptual_mean_optimization of ariel415el/PerceptualLossExperiments; the text "Perceptual Distance and the
        Generalized Mean Image Problem" by defgsus. Both programs encode an image once for each target; this once.
    """

    stages = ("fit", "test")
    primary = "-sharpness_error"
    stored = gim_files.NAME
    measure = staticmethod(gim_files.measured)

    images: nn.ParameterList

    def __init__(
        self,
        loss: Loss[Any],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        steps: int = 400,
        start: str = "mean",
        coarse: Coarse | None = None,
        *,
        range: str = "end",  # noqa: A002 - the word of the config
        tolerance: float = 0.0,
        patience: int = 50,
        warmup: float = 0.0,
        draws: int = 1,
        seed: int = 0,
        penalty: Penalty | None = None,
    ) -> None:
        """Check the numbers; `setup` builds what depends on the sets."""
        super().__init__()
        if range not in RANGES:
            raise ValueError(f"task.range is one of {', '.join(RANGES)}, got {range!r}")
        check_number("task.warmup", warmup, least=0, most=1)
        check_number("task.tolerance", tolerance, least=0, below=1)
        for name, value in {"task.patience": patience, "draws": draws, "task.steps": steps}.items():
            check_whole(name, value, 1)
        if coarse is not None and coarse.before >= steps:
            raise ValueError(
                f"task.coarse.levels × task.coarse.steps = {coarse.before} steps come before the full size, and "
                f"task.steps={steps} leave none for it: raise task.steps, or lower task.coarse.steps"
            )
        self.losses = nn.ModuleList([loss] if draws == 1 else copies(loss, draws))
        self.penalty = penalty or NoPenalty()
        self.make_optimizer, self.scheduler = optimizer, scheduler
        self.start, self.coarse, self.range, self.seed = start, coarse or Coarse(), range, seed
        self.tolerance, self.patience, self.warmup = tolerance, patience, warmup
        self.level: int | None = None
        self.warmup_steps = 0
        self.distances: list[SetDistances] = []
        self.frames: list[Bytes] = []
        self.seconds, self.since = 0.0, math.nan
        self.row: dict[str, Any] = {}

    @property
    def loss(self) -> Loss[Any]:
        """The loss, in its first draw."""
        return self.losses[0]  # type: ignore[return-value]

    @property
    def data(self) -> SetData:
        """The data set of the trainer.

        Raises:
            ValueError: it has no sets.
        """
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(found, SetData):
            raise ValueError(f"GIM needs sets of images, and {type(found).__name__} has none: try data=corner_crops")  # noqa: TRY004 - the data come from a config
        return found

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.data.sets.pictures.shape[-2:]
        return height, width

    def setup(self, stage: str) -> None:
        """Start the images, and refuse what can't be optimised before a step is taken.

        Raises:
            ValueError: data, trainer or levels that don't fit.
        """
        if hasattr(self, "begun"):
            return
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision is one of {', '.join(PRECISIONS)} for GIM, got {self.trainer.precision}"
            )
        if self.trainer.max_steps == -1 and self.trainer.limit_train_batches == 1.0:
            raise ValueError(
                "GIM counts steps and has no epochs: leave trainer=optimisation, or give trainer.max_steps"
            )
        coarsest = self.coarse.size(self.coarse.levels, self.size)
        if min(coarsest) < self.loss.min_side:
            lower = "lower task.coarse.levels, or " if self.coarse.levels else ""
            raise ValueError(
                f"{self.loss.name} needs images of {self.loss.min_side} pixels a side, and the smallest here have "
                f"{coarsest[0]}×{coarsest[1]}: {lower}raise data.size"
            )
        self.begun = start_images(self.start, self._pictures(torch.device("cpu")), self.data.sets.sizes, self.seed)
        begin = images.resize(self.begun, *coarsest)
        self.images = nn.ParameterList([one.clone() for _ in self.losses for one in begin])
        self.active = torch.ones(len(self.images), dtype=torch.bool)
        self.curves = Curves(len(self.images))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | Optimizer:
        """Give all images one optimiser, or each its own where that searches along lines."""
        kind = type(self.make_optimizer([self.images[0]]))
        # One pass over all numbers of an image instead of ten, where torch has it.
        fused = {"fused": True} if "fused" in signature(kind).parameters else {}
        if issubclass(kind, LBFGS):
            found: Optimizer = OneByOne([self.make_optimizer([one]) for one in self.images])
        else:
            found = self.make_optimizer([*self.images], **fused)
        self.rates = [float(group["lr"]) for group in found.param_groups]
        if self.scheduler is None:
            return found
        return {"optimizer": found, "lr_scheduler": {"scheduler": self.scheduler(found), "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule at the full size only."""
        if self.level == 0:
            scheduler.step()

    def on_train_start(self) -> None:
        """Count the steps, choose those that the animation shows, and start the clock.

        Raises:
            ValueError: the loss sees nothing of what an image starts as.
        """
        total = int(self.trainer.estimated_stepping_batches)
        self.warmup_steps = round(self.warmup * total)
        self.shown = gim_pictures.frame_steps(total, FRAMES)
        self.frames = self.frames or [self._frame()]
        self.since = time.monotonic()
        if self.global_step == 0 and not self.warmup_steps:
            self._check_starts()

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """Come to the step's level, loss and draw, before the optimiser looks at what it remembers."""
        self._enter(self.global_step)

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Tensor]:
        """Compare the images with their sets; the result is the sum over sets, of which each moves by its own.

        Raises:
            DivergedError: a distance is no number.
        """
        step = self.global_step
        stacked = torch.stack([*self.images])
        mine = self._mine()
        found = self._measured(stacked, mine)
        if not bool(found.isfinite().all()):
            what = f"{self.loss.name} of {self._name(mine[int((~found.isfinite()).nonzero()[0])])}"
            raise DivergedError(f"{what} became no number at step {step}", term=self.loss.name, step=step)
        counts = self._one_by_one is None or self.trainer.is_global_zero  # lines are searched on every device alike
        self.curves.note(step, mine if counts else [], found.detach() if counts else found.new_zeros(0))
        mean = self.curves.steps[step].mean()
        # Lightning writes at these steps, and would call an older number theirs.
        if (step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("warmup" if step < self.warmup_steps else "loss", mean)
        total = found.sum()
        if self.trainer.world_size > 1:
            # Devices share the sets out and average gradients, where the sum is wanted; all images take part on each.
            total = total * (1 if self._one_by_one is not None else self.trainer.world_size) + 0 * stacked.sum()
        return {"loss": total, "shown": mean}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave converged images where they are."""
        for image, active in zip(self.images, self.active, strict=True):
            image.grad = image.grad if active else None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step; project, find out which images have converged, and keep a frame."""
        super().optimizer_step(*args, **kwargs)
        taken = self.global_step + 1
        if self.range == "projected":
            with torch.no_grad():
                for image in self.images:
                    image.clamp_(0, 1)
        since = max(self.coarse.before, self.warmup_steps)
        if self.tolerance and taken % self.patience == 0 and taken - since >= 2 * self.patience:
            self._leave_out_converged()
        if taken in self.shown:
            self.frames.append(self._frame())

    def on_train_end(self) -> None:
        """Stop the clock."""
        self.seconds += time.monotonic() - self.since

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed run must know beside the images."""
        checkpoint["gim"] = {
            "curves": self.curves.state(),
            "active": self.active,
            "frames": self.frames,
            "seconds": self.seconds + time.monotonic() - self.since,
            "level": self.level,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring it back; the images may be of a coarse level."""
        kept = checkpoint["gim"]
        self.curves.load(kept["curves"])
        self.active, self.frames, self.seconds, self.level = (
            kept[key] for key in ("active", "frames", "seconds", "level")
        )
        for number, image in enumerate(self.images):
            image.data = image.data.new_empty(checkpoint["state_dict"][f"images.{number}"].shape)

    @torch.no_grad()
    def test_step(self, batch: int, batch_idx: int) -> None:
        """Judge the images, clipped to [0, 1], beside their start."""
        found, pictures = self.found(), self._pictures(self.device)
        begun = self.begun.to(pictures)
        sets, weights = self.data.sets, self.data.weights.to(self.device)
        curves = self._everywhere(self.curves.state()).cpu()
        since = max(self.coarse.before, self.warmup_steps)
        if len(self.losses) == 1:
            self.loss.draw(0)
        measured = []
        for draw, loss in enumerate(self.losses):
            distances = SetDistances(loss, pictures, sets.sizes, weights, self.penalty)  # type: ignore[arg-type]
            measured.append(torch.stack([distances(one, range(len(sets))) for one in (begun, found[draw])]))
        first, last = torch.stack(measured, dim=1)
        self.whole_curves = curves
        self.lines = gim_scores.table(found, begun, pictures, self.data, first, last)
        self.lines["steps_to_converge"] = [settled_after(curve, since) for curve in curves.unbind(1)]
        self.row = self._means()

    def rows(self) -> list[dict[str, Any]]:
        """Give one row, of means over sets and draws: see `gim_scores`, and the loss at the start and the end."""
        return [self.row]

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Bytes]:
        """Give the results, a row for each set; at the end, start, inputs and zooms too."""
        found = self.found().cpu()
        shown = {"result": gim_pictures.strip(found)}
        if final:
            pictures, sizes = self._pictures(torch.device("cpu")), self.data.sets.sizes
            shown["start"] = gim_pictures.strip(self.begun[None])
            shown["inputs"] = gim_pictures.inputs(pictures, sizes)
            shown["zooms"] = gim_pictures.zooms(self.begun, found, pictures, sizes)
        return shown

    def files(self) -> dict[str, bytes]:
        """Give the images with their sets, scores and losses of each set, and the animation."""
        names = [self._name(number) for number in range(len(self.images))]
        curves = pd.DataFrame(self.whole_curves.numpy(), columns=names).rename_axis("step")
        return {
            self.stored: gim_files.packed(self.begun, self.found().cpu(), self.data),
            "sets.csv": self.lines.to_csv(index=False).encode(),
            "curves.csv": curves.to_csv().encode(),
            "images/optimisation.gif": gim_pictures.animation([*self.frames, self._frame()]),
        }

    @torch.no_grad()
    def found(self) -> Image:
        """Give the images as they are now, (D, S, C, H, W) in [0, 1] and of the full size."""
        now = images.resize(torch.stack([*self.images]).clamp(0, 1), *self.size)
        return now.unflatten(0, (len(self.losses), -1))

    @property
    def _one_by_one(self) -> OneByOne | None:
        found = self.optimizers(use_pl_optimizer=False)
        return found if isinstance(found, OneByOne) else None

    def _mine(self) -> list[int]:
        """List the images that this device computes now."""
        alone = self._one_by_one
        if alone is not None and alone.current is not None:
            return [alone.current]
        moving: list[int] = self.active.nonzero().flatten().tolist()
        return moving[self.trainer.global_rank :: self.trainer.world_size]

    def _measured(self, stacked: Tensor, mine: list[int]) -> Tensor:
        """Give the distance of each of some images to its set, (n,)."""
        count = len(self.data.sets)
        found = [stacked.new_zeros(0)]
        for draw, distances in enumerate(self.distances):
            some = [one for one in mine if one // count == draw]
            if some:
                moving = stacked if len(some) == len(stacked) else stacked[some]  # a copy, where some are left out
                found.append(distances(moving, [one % count for one in some]))
        return torch.cat(found)

    def _enter(self, step: int) -> None:
        """Come to the level, the loss and the draw of a step, where they are not those of the step before."""
        level, warm = self.coarse.level(step), step < self.warmup_steps
        if len(self.losses) == 1:
            self.loss.draw(step)
        anew = step == self.warmup_steps > 0
        if self.distances and level == self.level and not anew:
            return
        if level != self.level:
            self._resize(level)
        if anew or self.level not in (None, level):
            self._forget()
        self.level = level
        pictures = images.resize(self._pictures(self.device), *self.coarse.size(level, self.size))
        sets, penalty = self.data.sets, None if warm else self.penalty
        self.distances = [
            SetDistances(L2() if warm else loss, pictures, sets.sizes, self.data.weights, penalty)  # type: ignore[arg-type]
            for loss in self.losses
        ]

    def _resize(self, level: int) -> None:
        """Bring the images to the size of a level, and the optimiser to its learning rate."""
        size = self.coarse.size(level, self.size)
        for image in self.images:
            image.data, image.grad = images.resize(image.data, *size), None
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.coarse.rate(level) if level else rate

    def _forget(self) -> None:
        """Drop what the optimiser remembers of past gradients."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.forget() if isinstance(optimizer, OneByOne) else optimizer.state.clear()

    def _leave_out_converged(self) -> None:
        """Move images no more whose loss falls no more, and stop when none is left."""
        self.active &= self.curves.falling(self.patience, self.tolerance, self._everywhere)
        if (alone := self._one_by_one) is not None:
            alone.active = self.active.nonzero().flatten().tolist()
        self.trainer.should_stop = not bool(self.active.any())

    def _check_starts(self) -> None:
        """Refuse a start of which a loss sees nothing, and which would therefore never be left."""
        for number, image in enumerate(self.images):
            loss: Any = self.losses[number // len(self.data.sets)]
            if not sees(loss, image.detach()[None]):
                raise ValueError(
                    f"{self.loss.name} has no gradient at task.start={self.start} of {self._name(number)}: start from "
                    "mean, or add +noise (a network without biases has no features where its input is 0)"
                )

    def _everywhere(self, mine: Tensor) -> Tensor:
        """Add up over devices, of which each knows its own images."""
        return torch.as_tensor(self.trainer.strategy.reduce(mine.to(self.device), reduce_op="sum"))

    def _means(self) -> dict[str, Any]:
        row = gim_scores.means(self.lines)
        row["seconds_to_converge"] = self.seconds * row["steps_to_converge"] / max(1, len(self.whole_curves))
        return row | {"start": self.start, "warmup": self.warmup}

    def _frame(self) -> Bytes:
        return gim_pictures.strip(self.found().cpu())

    def _pictures(self, device: torch.device) -> Pictures:
        return images.to_float(self.data.sets.pictures.to(device)).to(self.dtype)

    def _name(self, number: int) -> str:
        draw, place = divmod(number, len(self.data.sets))
        name = self.data.sets.names[place]
        return f"{name}, draw {draw}" if len(self.losses) > 1 else name
