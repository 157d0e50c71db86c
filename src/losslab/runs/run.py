"""Run one cell: from a resolved config to pictures, scores and a line in the journal."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from losslab.config import build
from losslab.files import read_json, write_json, write_text
from losslab.runs import tracking
from losslab.runs.cell import Cell, identify
from losslab.runs.checkpoint import EpochCheckpoint
from losslab.runs.journal import Journal
from losslab.runs.metrics import MetricsFile
from losslab.runs.processes import is_first_process
from losslab.runs.provenance import code_hash, provenance
from losslab.runs.summary import announce, show
from losslab.runs.task import Task
from losslab.runs.watching import Watching


def run(settings: dict[str, Any]) -> float:
    """Run a cell, go on with an interrupted one, or show a done one.

    Args:
        settings: the resolved config as plain dicts.

    Returns:
        The score that a sweeper maximises.

    Raises:
        ValueError: the config or the data can't be used; the message names the key or the file.
    """
    data = build(settings["data"])
    cell = identify(settings, data.fingerprint())
    journal = Journal(cell.outputs / "journal.jsonl")
    entry = None if settings["force"] else journal.last(cell.id)
    if entry is None:
        with _recorded(cell, settings) as resume:
            entry = _compute(settings, cell, data, resume)
            if is_first_process():
                journal.append(entry)
        again = False
    else:
        again = True
    if is_first_process():
        show(cell, entry, again=again, other_code=entry["code"] != code_hash())
    return float(entry["primary"])


def _compute(settings: dict[str, Any], cell: Cell, data: Any, resume: Path | None) -> dict[str, Any]:
    """Build the task, take it through its stages, and bring back the cell's line in the journal."""
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    task = build(settings["task"], loss=build(settings["loss"]))
    found: Task = task
    metrics = MetricsFile(cell.folder / "metrics.csv")
    watching = Watching(cell.folder / "images", metrics)
    checkpoint = EpochCheckpoint(_checkpoint(cell), settings["checkpoint_seconds"])
    if is_first_process():
        announce(cell, data.facts(), resume)
    loggers = [metrics, *tracking.mirrors(settings, cell)]
    failed = True
    try:
        trainer = build(
            settings["trainer"],
            logger=loggers,
            callbacks=[watching, checkpoint],
            default_root_dir=str(cell.folder),
            use_distributed_sampler=False,  # the data share themselves out, without counting an image twice
            # Batch norm over the whole batch, as on one device; torch has it for GPUs only.
            sync_batchnorm=torch.cuda.is_available() and settings["trainer"]["accelerator"] != "cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        for stage in found.stages:
            arguments = {"ckpt_path": resume, "weights_only": True} if stage == "fit" else {"verbose": False}
            getattr(trainer, stage)(task, datamodule=data, **arguments)
        if trainer.is_global_zero:
            watching.show_final(trainer, found.pictures(trainer.global_step, final=True))
        failed = False
    finally:
        tracking.close(loggers, failed=failed)
    rows = [{**data.facts(), "steps": trainer.global_step, **row} for row in found.rows()]
    return {
        "cell": cell.id,
        "label": cell.label,
        "folder": cell.folder.relative_to(cell.outputs).as_posix(),
        "state": "done",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(checkpoint.elapsed, 1),
        "axes": cell.axes,
        "code": code_hash(),
        "primary": _primary(found.primary, rows),
        "rows": rows,
    }


def _primary(name: str, rows: list[dict[str, Any]]) -> float:
    sign = -1 if name.startswith("-") else 1
    return max(sign * float(row[name.lstrip("-")]) for row in rows)


def _checkpoint(cell: Cell) -> Path:
    return cell.folder / "checkpoints" / "last.ckpt"


@contextmanager
def _recorded(cell: Cell, settings: dict[str, Any]) -> Iterator[Path | None]:
    """Keep the cell's config, versions, log and state in its folder; give the checkpoint to go on from.

    Raises:
        ValueError: the cell was interrupted under other code, and `force` does not say to begin anew.
    """
    folder = cell.folder
    if not is_first_process():
        yield _checkpoint(cell) if _checkpoint(cell).exists() else None
        return
    resume = _resume(cell, force=settings["force"])
    attempts = read_json(folder / "provenance.json").get("attempts", []) if resume else []
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_json(folder / "provenance.json", {"seed": settings["seed"], "attempts": [*attempts, provenance()]})
    _write_status(folder, "running", pid=os.getpid())
    with _logged(folder / "log.txt"):
        try:
            yield resume
        except BaseException as error:
            state = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            logging.getLogger(__name__).exception("the cell stopped")
            _write_status(folder, state, reason=f"{type(error).__name__}: {error}")
            error.add_note(f"log: {folder / 'log.txt'}")
            if isinstance(error, SystemExit):  # Lightning's way to end on Ctrl-C
                raise KeyboardInterrupt from error
            raise
    _write_status(folder, "done")


def _write_status(folder: Path, state: str, **more: object) -> None:
    write_json(folder / "status.json", {"state": state, "code": code_hash(), **more})


def _resume(cell: Cell, *, force: bool) -> Path | None:
    """Find the checkpoint of an interrupted attempt; remove one that must not be gone on from."""
    checkpoint, status = _checkpoint(cell), read_json(cell.folder / "status.json")
    if not checkpoint.exists():
        return None
    if status.get("state") != "done" and status.get("code") == code_hash():
        return checkpoint
    if not force and status.get("state") != "done":
        raise ValueError(f"{cell.folder.name} was interrupted under other code; force=true begins it anew")
    checkpoint.unlink()
    return None


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what libraries and warnings say to the cell's log, and only there."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    talkers = [root, logging.getLogger("pytorch_lightning"), logging.getLogger("lightning_fabric")]
    before = [(talker, talker.handlers[:], talker.propagate, talker.level) for talker in talkers]
    for talker in talkers:
        talker.handlers, talker.propagate = [], True
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for talker, handlers, propagate, level in before:
            talker.handlers, talker.propagate = handlers, propagate
            talker.setLevel(level)
        handler.close()
