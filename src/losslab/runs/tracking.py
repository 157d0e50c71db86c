"""The mirrors of a run: Weights & Biases or TensorBoard, beside metrics.csv; never a prompt, never a wait."""

from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from losslab.runs.cell import Cell
from losslab.runs.processes import is_first_process

MODES = ("online", "offline", "disabled")
LOGIN_SECONDS = 20
"""How long a server may take to answer; W&B's own patience is 90 s."""


def mirrors(settings: dict[str, Any], cell: Cell) -> list[Logger]:
    """Make the loggers that a config asks for.

    Args:
        settings: the resolved config.
        cell: whose run it is.

    Raises:
        ValueError: unknown logger or W&B mode; W&B online without a key.
    """
    logger = settings["logger"]
    if logger["name"] == "csv":
        return []
    if logger["name"] == "tensorboard":
        return [TensorBoardLogger(str(cell.folder), name="", version="tensorboard")]
    if logger["name"] == "wandb":
        return [_wandb(logger, settings, cell)] if is_first_process() else []
    raise ValueError(f"logger.name is wandb, tensorboard or csv, got {logger['name']!r}")


def _wandb(logger: dict[str, Any], settings: dict[str, Any], cell: Cell) -> WandbLogger:
    import wandb

    mode = str(logger["mode"])
    if mode not in MODES:
        raise ValueError(f"logger.mode (or WANDB_MODE) is one of {', '.join(MODES)}, got {mode!r}")
    if mode == "online" and not wandb.api.api_key:
        raise ValueError("logger.mode=online needs a W&B key: `wandb login` stores one, or set WANDB_API_KEY")
    run = wandb.init(
        name=f"{cell.task}/{cell.label}",
        project=str(logger["project"]),
        dir=str(cell.folder),
        id=cell.id,
        resume="allow" if mode == "online" else None,
        mode=mode,  # type: ignore[arg-type]  # checked above
        job_type=cell.task,
        tags=[f"{axis}={value}"[:64] for axis, value in cell.axes.items()],
        config={**settings, **{f"axis/{name}": value for name, value in cell.axes.items()}},
        settings=wandb.Settings(silent=True, console="off", init_timeout=LOGIN_SECONDS),
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run)


def close(loggers: list[Logger], *, failed: bool) -> None:
    """End a W&B run, or the next cell of this process would write into it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            wandb.finish(exit_code=int(failed))
