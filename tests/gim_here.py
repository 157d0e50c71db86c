"""Generalized image means of two small photographs, in this process."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from losslab.config import build, load, plain
from losslab.tasks.gim import GIM

SMALL = ["task=gim", "data.size=32", "data.names=[coffee,chelsea]", "task.steps=12", "task.scheduler=null"]


def run(
    folder: Path, *words: str, steps: int = 12, resume: Path | None = None, logger: Any = False, **options: Any
) -> tuple[GIM, pl.Trainer]:
    """Optimise a few steps and judge."""
    settings = plain(load("loss=l1", *SMALL, *words))
    task, data = build(settings["task"], loss=build(settings["loss"])), build(settings["data"])
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.test(task, datamodule=data, verbose=False)
    return task, trainer


LBFGS = ["task=gim_lbfgs", "task.steps=3"]
