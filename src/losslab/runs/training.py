"""From a cell's config to its rows: build the parts, take the task through its stages."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from losslab.allocator import keep_freed_memory
from losslab.config import build
from losslab.divergence import DivergedError
from losslab.files import write_bytes
from losslab.runs import tracking
from losslab.runs.checkpoint import CheckpointFile, Checkpoints
from losslab.runs.metrics import MetricsFile
from losslab.runs.plan import Plan
from losslab.runs.processes import is_first_process
from losslab.runs.summary import announce
from losslab.runs.task import GivesFiles, MayDiverge, Task
from losslab.runs.watching import Watching


class Training:
    """One attempt at a cell, in this process.

    Args:
        plan: the cell.
        folder: where it writes.
        resume: the checkpoint to go on from.
    """

    def __init__(self, plan: Plan, folder: Path, resume: Path | None) -> None:
        """Keep what to do; `rows` does it."""
        self.plan, self.folder, self.resume = plan, folder, resume
        self.trainer: pl.Trainer | None = None
        self._checkpoints: Checkpoints | None = None
        self._started = time.monotonic()
        self.primary = math.nan
        self.found: list[dict[str, Any]] = []
        """The rows, also of a cell that ends because some of them have no score."""
        self.begun = False
        """Whether the folder says that it runs."""

    @property
    def seconds(self) -> float:
        """Count the seconds of this attempt and of those that it goes on from."""
        attempt = time.monotonic() - self._started
        return round(attempt if self._checkpoints is None else self._checkpoints.elapsed, 1)

    @property
    def step(self) -> int | None:
        """Count the steps taken; None before the first stage."""
        return None if self.trainer is None else self.trainer.global_step

    def rows(self) -> list[dict[str, Any]]:
        """Take the task through its stages and bring back what it found.

        Raises:
            DivergedError: a number of the training or of the result is none; what stands nevertheless is in `found`.
        """
        settings = self.plan.settings
        keep_freed_memory()
        pl.seed_everything(settings["seed"], workers=True, verbose=False)
        data, task = build(settings["data"]), build(settings["task"], loss=build(settings["loss"]))
        if self.plan.content is not None and data.fingerprint() != self.plan.content:
            raise ValueError("the data have changed since the command began: the same command plans with the new ones")
        if is_first_process():
            announce(self.plan.cell, self.folder, data.facts(), self.resume)
        loggers = [MetricsFile(self.folder / "metrics.csv"), *tracking.mirrors(self.plan, self.folder)]
        failed = True
        try:
            self._take_through(task, data, loggers)
            self.found = [_plain({**data.facts(), "steps": self.step, **row}) for row in task.rows()]
            self.primary = _primary(task.primary, self.found)
            error = task.diverged if isinstance(task, MayDiverge) else None
            if is_first_process():
                tracking.summarise(loggers, self.found, "done" if error is None else "diverged")
            if error is not None:
                raise error
            failed = False
        finally:
            tracking.close(loggers, failed=failed)
        if is_first_process() and self.resume is None:
            tracking.complete(loggers, self.folder)
        return self.found

    def _take_through(self, task: Any, data: Any, loggers: list[Any]) -> None:
        settings = self.plan.settings
        found: Task = task
        watching = Watching(self.folder / "images", loggers[0])
        self._checkpoints = Checkpoints(checkpoint_path(self.folder), settings["checkpoint_seconds"], loggers[0])
        self.trainer = trainer = build(
            settings["trainer"],
            logger=loggers,
            callbacks=[watching, self._checkpoints],
            plugins=[CheckpointFile()],
            default_root_dir=str(self.folder),
            use_distributed_sampler=False,  # the data share themselves out, without counting an image twice
            # Batch norm over the whole batch, as on one device; torch has it for GPUs only.
            sync_batchnorm=torch.cuda.is_available() and settings["trainer"]["accelerator"] != "cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        for stage in found.stages:
            more = {"ckpt_path": self.resume} if stage == "fit" else {"verbose": False}
            with _loss_networks_unremarked():
                getattr(trainer, stage)(task, datamodule=data, weights_only=True, **more)
        if trainer.is_global_zero:
            watching.show_final(trainer, found.pictures(trainer.global_step, final=True))
            for name, content in found.files().items() if isinstance(found, GivesFiles) else ():
                write_bytes(self.folder / name, content)
                if name.startswith("images/") and name.endswith(".gif"):
                    watching.show_animation(trainer, self.folder / name)


@contextmanager
def _loss_networks_unremarked() -> Iterator[None]:
    """Silence what Lightning says of modules in eval mode: loss networks are so for good, which it can't know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode", UserWarning)
        yield


def checkpoint_path(folder: Path) -> Path:
    """Give the place of a cell's newest checkpoint."""
    return folder / "checkpoints" / "last.ckpt"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Turn the numbers of a row into Python's, which the journal can hold."""
    found = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
    for name, value in found.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise TypeError(f"a row holds numbers and words, but {name} is a {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise DivergedError(f"the score {name} is {value}", term=name)
    return found


def _primary(name: str, rows: list[dict[str, Any]]) -> float:
    sign = -1 if name.startswith("-") else 1
    return max(sign * float(row[score]) for row in rows if (score := name.lstrip("-")) in row)
