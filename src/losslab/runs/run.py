"""Run one cell: from a resolved config to pictures, scores and a line in the journal."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from losslab.config import build
from losslab.runs import tracking
from losslab.runs.cell import Cell, identify
from losslab.runs.checkpoint import EpochCheckpoint
from losslab.runs.files import write_json, write_text
from losslab.runs.journal import Journal
from losslab.runs.metrics import MetricsFile
from losslab.runs.processes import is_first_process
from losslab.runs.provenance import code_hash, provenance
from losslab.runs.summary import announce, show
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
    if entry is not None:
        show(cell, entry, again=True)
        return float(entry["primary"])
    with _recorded(cell, settings):
        started = time.monotonic()
        rows, primary = _compute(settings, cell, data)
        entry = {
            "cell": cell.id,
            "label": cell.label,
            "folder": cell.folder.relative_to(cell.outputs).as_posix(),
            "state": "done",
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
            "axes": cell.axes,
            "code": code_hash(),
            "primary": primary,
            "rows": rows,
        }
        if is_first_process():
            journal.append(entry)
    if is_first_process():
        show(cell, entry, again=False)
    return primary


def _compute(settings: dict[str, Any], cell: Cell, data: Any) -> tuple[list[dict[str, Any]], float]:  # noqa: ANN401
    """Build the task, take it through its stages, and bring back its rows and the number that sums them up."""
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    task = build(settings["task"], loss=build(settings["loss"]))
    metrics = MetricsFile(cell.folder / "metrics.csv")
    watching = Watching(cell.folder / "images", metrics)
    checkpoint = cell.folder / "checkpoints" / "last.ckpt"
    resume = checkpoint if checkpoint.exists() and not settings["force"] else None
    if is_first_process():
        announce(cell, data.facts(), resume)
    loggers = [metrics, *tracking.mirrors(settings, cell)]
    failed = True
    try:
        trainer = build(
            settings["trainer"],
            logger=loggers,
            callbacks=[watching, EpochCheckpoint(checkpoint, settings["checkpoint_seconds"])],
            default_root_dir=str(cell.folder),
            use_distributed_sampler=False,  # the data share themselves out, without counting an image twice
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        for stage in task.stages:
            arguments = {"ckpt_path": resume, "weights_only": True} if stage == "fit" else {"verbose": False}
            getattr(trainer, stage)(task, datamodule=data, **arguments)
        if trainer.is_global_zero:
            watching.show_final(trainer, task.final_pictures())
        failed = False
    finally:
        tracking.close(loggers, failed=failed)
    rows = [{**data.facts(), "steps": trainer.global_step, **row} for row in task.rows()]
    return rows, _primary(task.primary, rows)


def _primary(name: str, rows: list[dict[str, Any]]) -> float:
    sign = -1 if name.startswith("-") else 1
    return sign * max(sign * float(row[name.lstrip("-")]) for row in rows)


@contextmanager
def _recorded(cell: Cell, settings: dict[str, Any]) -> Iterator[None]:
    """Keep the cell's config, versions, log and state in its folder, and give the log what goes wrong."""
    if not is_first_process():
        yield
        return
    folder = cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_json(folder / "provenance.json", {"seed": settings["seed"], **provenance()})
    write_json(folder / "status.json", {"state": "running", "pid": os.getpid()})
    with _logged(folder / "log.txt"):
        try:
            yield
        except BaseException as error:
            state = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            logging.getLogger(__name__).exception("the cell stopped")
            write_json(folder / "status.json", {"state": state, "reason": f"{type(error).__name__}: {error}"})
            if isinstance(error, SystemExit):  # Lightning's way to end on Ctrl-C
                raise KeyboardInterrupt from error
            raise
    write_json(folder / "status.json", {"state": "done"})


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
