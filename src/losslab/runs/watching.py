"""What one sees while a run trains: a progress line, the loss curve, and pictures."""

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image as Picture
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from losslab import images
from losslab.runs.metrics import MetricsFile

VIEWS = 10
"""Times that pictures are made in a training, evenly over its steps."""

CURVE_SECONDS = 5.0
"""Before the loss curve is drawn for the first time on the way."""

CURVE_SHARE = 0.01
"""Share of the time that the loss curve may take to draw on the way; it is drawn at the end in any case."""


class Watching(Callback):
    """Show the progress of all steps, and write pictures and the loss curve on the way.

    Args:
        folder: where pictures go.
        metrics: the numbers to draw the curve from.
    """

    def __init__(self, folder: Path, metrics: MetricsFile) -> None:
        """Keep the places."""
        self.folder, self.metrics = folder, metrics
        self.progress: Progress | None = None
        self.curve_due = time.monotonic() + CURVE_SECONDS

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the steps to go, and drop rows of metrics that a resumed run writes again."""
        self.metrics.rewind(trainer.global_step)
        self.total = int(trainer.estimated_stepping_batches)
        self.every = max(1, self.total // VIEWS)
        if not trainer.is_global_zero:
            return
        if sys.stderr.isatty():
            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.progress = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), console=Console(stderr=True)
            )
            self.progress.start()
            self.task = self.progress.add_task("", total=self.total, completed=trainer.global_step, loss="")
        self.seen_at = time.monotonic()
        self.seen_step = self.last_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: object,
    ) -> None:
        """Move the progress on; make pictures where they are due."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if step == self.last_step:
            return  # gradients accumulate: this batch was no step
        self.last_step = step
        if self.progress is not None:
            self.progress.update(self.task, completed=step, loss=_loss(outputs))
        if step % self.every == 0:
            if self.progress is None:
                self._print_line(step, _loss(outputs))
            self._show(trainer, pl_module.pictures(step), f"-step{step:06d}")  # type: ignore[operator]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the progress line."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the progress line, so that the message stands below it."""
        self.on_train_end(trainer, pl_module)

    def show_final(self, trainer: pl.Trainer, pictures: dict[str, Tensor]) -> None:
        """Write the last pictures."""
        self._show(trainer, pictures, "")

    def show_animation(self, trainer: pl.Trainer, path: Path) -> None:
        """Let the loggers have a GIF, which lies there already."""
        for logger in trainer.loggers:
            log_animation(logger, path, trainer.global_step)

    def _print_line(self, step: int, loss: str) -> None:
        now = time.monotonic()
        to_go = (now - self.seen_at) / (step - self.seen_step) * (self.total - step)  # by the latest steps' pace
        self.seen_at, self.seen_step = now, step
        print(f"step {step}/{self.total}  {loss}  {to_go:.0f} s to go", file=sys.stderr, flush=True)

    def _show(self, trainer: pl.Trainer, pictures: dict[str, Tensor], suffix: str) -> None:
        for name, picture in pictures.items():
            images.write(self.folder / f"{name}{suffix}.png", picture)
            for logger in trainer.loggers:
                log_picture(logger, name, picture, trainer.global_step)
        started = time.monotonic()
        if started < self.curve_due and suffix:
            return
        self.metrics.write()
        if self.metrics.has_curve:
            self.metrics.draw_curve(self.folder / "loss_curve.png")
        now = time.monotonic()
        self.curve_due = now + (now - started) / CURVE_SHARE


def _loss(outputs: Any) -> str:
    return f"loss {float(outputs.get('shown', outputs['loss'])):.4g}"


def log_picture(logger: Logger, name: str, picture: Tensor, step: int) -> None:
    """Give bytes (3, H, W) to a logger that takes pictures."""
    if isinstance(logger, WandbLogger):
        # As a PIL picture: W&B turns float tensors in [0, 1] into black ones.
        logger.log_image(name, [Picture.fromarray(picture.permute(1, 2, 0).numpy())], step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step)


def log_animation(logger: Logger, path: Path, step: int) -> None:
    """Give a GIF to a logger that takes some, as it is: making videos of numbers would need further packages."""
    if isinstance(logger, WandbLogger):
        logger.log_video(path.stem, [str(path)], step)
    elif isinstance(logger, TensorBoardLogger):
        from tensorboard.compat.proto.summary_pb2 import Summary  # here, since few runs need it

        with Picture.open(path) as picture:
            width, height = picture.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        logger.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=path.stem, image=image)]), step)
