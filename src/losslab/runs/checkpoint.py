"""Checkpoints at the ends of epochs, where a resume is exact: the order of images is a function of seed and epoch."""

import os
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from losslab.runs.files import replace


class EpochCheckpoint(Checkpoint):
    """Keep the state after the last epoch, and at least `seconds` pass between two writings.

    Args:
        path: the file; an older state stays under this name until the new one is whole.
        seconds: between two writings; the state after the last epoch is written in any case.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        """Start the clock."""
        super().__init__()
        self.path, self.seconds = path, seconds
        self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write, where the time has come."""
        due = time.monotonic() - self._last >= self.seconds
        if trainer.strategy.broadcast(due):  # the first process's clock decides, since all of them take part
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write the state after the last epoch."""
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        partial = self.path.with_name(f".{self.path.name}.part")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            replace(partial, self.path)
        self._last = time.monotonic()
