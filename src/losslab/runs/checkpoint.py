"""Checkpoints that survive a kill at any moment, and from which a training goes on exactly."""

import logging
import os
import pickle
import random
import signal
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from losslab.divergence import DivergedError
from losslab.files import part_of, replace
from losslab.runs.interrupts import interrupts
from losslab.runs.metrics import MetricsFile

BROKEN = (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError)
"""What reading a damaged checkpoint may raise."""


class CheckpointFile(CheckpointIO):
    """The one way that checkpoints reach the disk: whole under their name, the one before kept beside them.

    Lightning's own writer goes through the temporary directory, and a kill can leave it a truncated file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary file in the same folder, flush it, keep the file before as `previous`, rename."""
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part_of(final).open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part_of(final).unlink(missing_ok=True)
            raise
        if final.exists():
            os.replace(final, previous(final))
        replace(part_of(final), final)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - Lightning's signature
    ) -> dict[str, Any]:
        """Read tensors and plain values, and nothing that could run code."""
        found: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return found

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the file and the one before."""
        Path(path).unlink(missing_ok=True)
        previous(Path(path)).unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Name the checkpoint before."""
    return path.with_stem(f"{path.stem}-1")


def newest_whole(path: Path) -> Path | None:
    """Give the newest checkpoint that can be read to its last byte, or None; a broken one is said and kept.

    Raises:
        ValueError: there are checkpoints, and none is whole: a training must not begin anew without a word.
    """
    there = [candidate for candidate in (path, previous(path)) if candidate.exists()]
    for candidate in there:
        try:
            with zipfile.ZipFile(candidate) as archive:
                damaged = archive.testzip()
            if damaged is None:
                torch.load(candidate, map_location="cpu", weights_only=True, mmap=True)
                return candidate
            raise zipfile.BadZipFile(f"{damaged} is not what was written")
        except BROKEN as error:
            logging.getLogger(__name__).warning("checkpoint %s is broken: %s", candidate, error)
    if there:
        raise ValueError(f"no checkpoint in {path.parent} can be read; force=true begins the cell anew")
    return None


class Checkpoints(Checkpoint):
    """Keep the state of the training between its steps, and stop there when that is asked for.

    Args:
        path: the newest checkpoint's file.
        seconds: at least, between two writings; the states at a stop and at the end are written in any case.
        metrics: the numbers logged so far, written before a checkpoint: a resume logs what comes after it.
    """

    def __init__(self, path: Path, seconds: float, metrics: MetricsFile) -> None:
        """Start the clocks."""
        super().__init__()
        self.path, self.seconds, self.metrics = path, seconds, metrics
        self._started = self._written = time.monotonic()
        self._before = 0.0
        self._random: list[dict[str, Any]] = []

    @property
    def elapsed(self) -> float:
        """Count the seconds of this attempt and of those before, up to the checkpoint that it went on from."""
        return self._before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Keep the time, and the state of all generators that torch, NumPy and Python share out."""
        return {"elapsed": self.elapsed, "random": _of_all_processes(random_states())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; the generators follow when all that draws numbers before the first step has done so."""
        self._before, self._random = float(state_dict["elapsed"]), state_dict["random"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the generators where they were, and let signals wait for the end of a step."""
        if trainer.global_rank < len(self._random):
            restore_random_states(self._random[trainer.global_rank])
        interrupts.take_back()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take signals; here they need not wait."""
        interrupts.take_back()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        """From here on the state is between two states."""
        interrupts.training = True

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Refuse a step that would spoil the parameters.

        Raises:
            DivergedError: a gradient is NaN or infinite; it names the first parameter that has one.
        """
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # it skips steps whose gradients overflow, and that is how it finds its scale
        named = [(name, parameter.grad) for name, parameter in pl_module.named_parameters()]
        gradients = {name: gradient for name, gradient in named if gradient is not None}
        if gradients and not torch.nn.utils.get_total_norm(gradients.values()).isfinite():
            bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
            if bad:  # a norm may overflow where no number does
                term = f"gradient of {bad[0]}"
                raise DivergedError(
                    f"the {term} became NaN or infinite at step {trainer.global_step}",
                    term=term,
                    step=trainer.global_step,
                )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Write, where the time has come, and stop, where that was asked for; a last step waits for the epoch's end."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        stepped = progress.current.ready % trainer.accumulate_grad_batches == 0  # gradients are in no checkpoint
        if stepped and not progress.is_last_batch:
            self._write_or_stop(trainer, _pending(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and stop in the same way."""
        self._write_or_stop(trainer, {})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state after the last step."""
        self._write(trainer, {})
        interrupts.training = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let signals through again."""
        interrupts.training = False

    def _write_or_stop(self, trainer: pl.Trainer, pending: dict[str, float]) -> None:
        """Do what any process of the run was asked for; the first one's clock decides."""
        asked = interrupts.asked is not None
        due = trainer.is_global_zero and time.monotonic() - self._written >= self.seconds
        if not trainer.strategy.reduce_boolean_decision(asked or due, all=False):
            return
        self._write(trainer, pending)
        if trainer.strategy.reduce_boolean_decision(asked, all=False):
            interrupts.training = False
            interrupts.asked = interrupts.asked or signal.SIGTERM
            interrupts.raise_asked()

    def _write(self, trainer: pl.Trainer, pending: dict[str, float]) -> None:
        if pending:
            self.metrics.log_metrics(pending, trainer.global_step - 1)
        self.metrics.write()
        trainer.save_checkpoint(self.path)
        self._written = time.monotonic()


def _pending(trainer: pl.Trainer) -> dict[str, float]:
    """Give what Lightning is about to log of the step just taken: it does so after the hooks, hence too late for us."""
    connector = trainer._logger_connector  # noqa: SLF001 - there is no public way; a test compares the whole file
    if not connector.should_update_logs:
        return {}
    found = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {"epoch": trainer.current_epoch, **found} if found else {}


def random_states() -> dict[str, Any]:
    """Give the states of the generators that every library may draw from, as tensors and plain numbers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": list(random.getstate()),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the shared generators where they were."""
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    cuda: list[Tensor] = states.get("cuda", [])
    if len(cuda) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(cuda)


def _of_all_processes(states: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect what every process of the run has, in the order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [states]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, states)
    return found
