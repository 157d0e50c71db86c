"""Checkpoints at the ends of epochs, where a resume is exact: the order of images is a function of seed and epoch."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from losslab.files import part_of, replace


class EpochCheckpoint(Checkpoint):
    """Keep the state after the last epoch, and at least `seconds` pass between two writings.

    Args:
        path: the file; an older state stays under this name until the new one is whole.
        seconds: between two writings; the state after the last epoch is written in any case.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        """Start the clocks."""
        super().__init__()
        self.path, self.seconds = path, seconds
        self._started = self._written = time.monotonic()
        self._before = 0.0

    @property
    def elapsed(self) -> float:
        """Count the seconds of this attempt and of those before, up to the checkpoint that it went on from."""
        return self._before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Keep the time in the checkpoint."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before = float(state_dict["elapsed"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, where the time has come."""
        due = time.monotonic() - self._written >= self.seconds
        if trainer.strategy.broadcast(due):  # the first process's clock decides, since all of them take part
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state after the last epoch."""
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(part_of(self.path))
        if trainer.is_global_zero:
            replace(part_of(self.path), self.path)
        self._written = time.monotonic()
