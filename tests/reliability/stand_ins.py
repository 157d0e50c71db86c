"""A task and a data set of a few lines: all that the run machinery needs, quick, and harmful on request."""

import gc
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image as Picture
from torch import Tensor, nn

from losslab.data.base import Batch, ImageData
from losslab.losses.base import Loss

ONCE = "LOSSLAB_TEST_ONCE"
"""The variable that names a folder for the marks of harm that happens once only."""


class Numbers(ImageData):
    """Images of random numbers."""

    def __init__(self, count: int, value: float, batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.count, self.value = count, value

    def load(self) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(int(self.value))
        images = torch.randint(256, (self.count, 3, 8, 8), dtype=torch.uint8, generator=random)
        return images, images[:0]


class StandIn(pl.LightningModule):
    """One layer behind a dropout, which draws from torch's shared generator.

    Args:
        loss: what it trains with.
        seed: of the layer.
        harm: one of `HARMS`, done at step `at`.
        at: the step.
        step_seconds: how long a step takes.
    """

    stages = ("fit", "test")
    primary = "-error"

    def __init__(self, loss: Loss[Any], seed: int, harm: str, at: int, step_seconds: float) -> None:
        super().__init__()
        self.loss, self.harm, self.at, self.step_seconds = loss, harm, at, step_seconds
        torch.manual_seed(seed)
        self.layer, self.dropout = nn.Linear(192, 192), nn.Dropout(0.3)
        self.errors: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        time.sleep(self.step_seconds)
        if self.global_step == self.at and self.harm in HARMS:
            HARMS[self.harm](self)
        error = self.loss(self(batch.images), batch.images).mean()
        if self.global_step == self.at and self.harm == "nan_gradient":
            error = error + (self.layer.weight.sum() * 0).sqrt() * 0
        if self.global_step == self.at and self.harm == "nan_image":
            error = self.loss(self(batch.images) * torch.nan, batch.images).mean()
        self.log("loss", error)
        return error

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.dropout(images.flatten(1))).sigmoid().view_as(images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.errors.append((self(batch.images) - batch.images).abs().mean())

    def rows(self) -> list[dict[str, Any]]:
        error = torch.stack(self.errors).mean()
        row = {"error": error * torch.nan if self.harm == "nan_score" else error, "steps": self.global_step}
        if self.harm == "object_score":
            return [{**row, "odd": object()}]
        return [{**row, "number": number} for number in range(5000)] if self.harm == "many_rows" else [row]

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Tensor]:
        weight = self.layer.weight.detach()
        return {"weights": (weight * 300 + 128).clamp(0, 255).byte().expand(3, -1, -1).clone()} if final else {}


class Keeping(StandIn):
    """It keeps what it was shown and what it made of it, so that further losses can measure it."""

    stored = "images.npz"

    def on_fit_start(self) -> None:
        self.seen = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.before = self(self.seen)

    def files(self) -> dict[str, bytes]:
        file = io.BytesIO()
        end = self(self.seen).detach()
        np.savez(file, seen=self.seen.numpy(), start=self.before.numpy(), end=end.numpy())
        frames = [Picture.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255)]
        frames[0].save(gif := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:], loop=0)
        return {self.stored: file.getvalue(), "images/optimisation.gif": gif.getvalue()}

    @staticmethod
    def measure(stored: Path, loss: Loss[Any]) -> dict[str, float]:
        kept = np.load(stored)
        seen = torch.from_numpy(kept["seen"])
        return {end: loss(torch.from_numpy(kept[end]), seen).mean().item() for end in ("start", "end")}


def _fail(task: StandIn) -> None:
    raise ZeroDivisionError("as asked")


def _fail_in_brackets(task: StandIn) -> None:
    raise RuntimeError("[/__w/pytorch/gloo/pair.cc:561] CUDA error [device] :smile:")


def _kill(task: StandIn) -> None:
    if not _done("kill"):
        os.kill(os.getpid(), signal.SIGKILL)


def _fail_once(task: StandIn) -> None:
    if not _done("fail_once"):
        raise OSError("a passing trouble")


def _count(task: StandIn) -> None:
    gc.collect()
    alive = [found for found in gc.get_objects() if type(found) is StandIn]
    assert len(alive) == 1, f"{len(alive)} tasks are alive"


def _take_memory(task: StandIn) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
    torch.ones(1 << 33)


def _terminate_once(task: StandIn) -> None:
    if not _done("terminate_once"):
        os.kill(os.getpid(), signal.SIGTERM)


def _done(harm: str) -> bool:
    """Tell whether it was done before, and note that it is done now."""
    mark = Path(os.environ[ONCE]) / harm
    before = mark.exists()
    mark.touch()
    return before


HARMS: dict[str, Callable[[StandIn], Any]] = {
    "fail": _fail,
    "brackets": _fail_in_brackets,
    "kill": _kill,
    "fail_once": _fail_once,
    "memory": _take_memory,
    "count": _count,
    "exit": lambda task: sys.exit(3),
    "hard_exit": lambda task: os._exit(4),
    "interrupt": lambda task: os.kill(os.getpid(), signal.SIGINT),
    "terminate_once": _terminate_once,
    "terminate": lambda task: os.kill(os.getpid(), signal.SIGTERM),
    "nan_loss": lambda task: task.layer.weight.data.fill_(torch.nan),
}
