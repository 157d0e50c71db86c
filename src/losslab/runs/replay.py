"""Whole W&B runs again: what a kill has cut off an offline log stands in the journal, metrics.csv and images/."""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.loggers import WandbLogger

from losslab import images
from losslab.runs import tracking
from losslab.runs.journal import Journal
from losslab.runs.locks import CellLock
from losslab.runs.metrics import MetricsFile
from losslab.runs.sentences import sentence
from losslab.runs.states import read_status
from losslab.runs.summary import PICTURES
from losslab.runs.watching import log_animation, log_picture

STEP = re.compile(r"(?P<name>.+)-step(?P<step>\d+)")
"""The names of pictures that were made on the way; those without a step are final."""

NOT_LOGGED = ("loss_curve",)
"""Pictures that W&B draws itself from the numbers."""

STALE_SECONDS = 60
"""How long the heartbeat of a cell on another machine may stand still, where the cell's config does not say it."""

AT_ONCE = 20
"""Runs that one `wandb sync` takes."""
UPLOAD_SECONDS = 600
"""How long it may take for them; W&B itself would wait for as long as the server is away."""


class ReplayError(ValueError):
    """A cell that no whole run can be made of."""


def replay(outputs: Path, *, every: bool = False) -> int:
    """Make a whole offline W&B run of each done cell that should have one and has none, and say so.

    Args:
        outputs: the folder that holds journal.jsonl.
        every: do so for each cell of the journal: also for those that have a run, log elsewhere or are not done.

    Returns:
        How many cells should have a run now and have none; each is named on stderr.

    Raises:
        ValueError: there is no journal.
    """
    journal = Journal(outputs / "journal.jsonl")
    if not journal.path.exists():
        raise ValueError(f"there is no journal in {outputs}: python src/train.py writes one")
    journal.read()
    if (complaint := journal.complaint()) is not None:
        print(complaint, file=sys.stderr)
    found: Counter[str] = Counter()
    for cell in [cell for cell, entry in journal.cells.items() if every or entry["state"] == "done"]:
        try:
            how, told = _replay_if_due(cell, journal, every=every)
        except (OSError, ValueError, KeyError, wandb.Error) as error:
            how, told = "bad", f"{_name(journal.cells[cell])}: {sentence(error)}"
        if told:
            print(told, file=sys.stderr if how == "bad" else sys.stdout)
        found[how] += 1
    if found["whole"] + found["elsewhere"] == found.total():
        more = f"; {found['elsewhere']} more log elsewhere, and --all makes runs of them" if found["elsewhere"] else ""
        print(f"all {found['whole']} done cells have whole W&B runs{more}")
    return found["bad"]


def upload(outputs: Path) -> int:
    """Upload the offline runs that W&B does not have, except those that are being written.

    Returns:
        How many are still to be uploaded.

    Raises:
        ValueError: there is no key, or no server.
    """
    if (problem := tracking.server_problem("the upload")) is not None:
        raise ValueError(f"{problem}: nothing was uploaded")
    waiting = _not_uploaded(outputs)
    try:
        for start in range(0, len(waiting), AT_ONCE):
            _sync(waiting[start : start + AT_ONCE])
    except subprocess.TimeoutExpired:
        print(f"the upload has not ended in {UPLOAD_SECONDS} s: the same command goes on", file=sys.stderr)
    left = len([run for run in waiting if not _is_uploaded(run)])
    print(f"{len(waiting) - left} of {len(waiting)} W&B runs that were waiting are uploaded")
    return left


def _replay_if_due(cell: str, journal: Journal, *, every: bool) -> tuple[str, str]:
    """Give what happened to a cell, and a sentence where there is something to say."""
    folder = _folder(cell, journal)
    if not every and (folder / tracking.COMPLETE).exists():
        return "whole", ""
    settings = _settings(folder)
    if not every and not _is_mirrored(settings):
        return "elsewhere", ""
    lock = CellLock(journal.path.parent / ".locks" / cell, settings.get("stale_seconds", STALE_SECONDS))
    if not lock.claim():
        return "running", f"{_name(journal.cells[cell])}: {lock.owner} is computing it, so its run is left for later"
    try:
        journal.read()  # it may have ended again, before the lock was ours
        return "replayed", _replay(journal.cells[cell], _folder(cell, journal), settings)
    finally:
        lock.release()


def _replay(entry: dict[str, Any], folder: Path, settings: dict[str, Any]) -> str:
    """Write the run of a cell that nobody is computing."""
    status = read_status(folder)
    if status.get("state") != entry["state"] and status.get("since", "") > entry["finished"]:
        raise ReplayError(f"its folder holds a later attempt, which is {status['state']}; the same command goes on")
    settings["logger"].setdefault("project", "losslab")
    axes, sweep = entry["axes"], entry.get("sweep")
    facts = tracking.run_facts(entry["cell"], entry["task"], entry["label"], axes, sweep, settings)
    run = tracking.start_run(facts, folder, "offline")
    try:
        counts = _mirror(entry, folder, run)
    except BaseException:
        run.finish(exit_code=1)
        tracking.supersede(tracking.folder_of(run))
        raise
    run.finish(exit_code=int(entry["state"] != "done"))
    tracking.complete_run(run, folder)
    return f"{_name(entry)}: {counts} are one whole W&B run, {tracking.folder_of(run).name}"


def _mirror(entry: dict[str, Any], folder: Path, run: Any) -> str:
    """Log all that the live run has logged, in the order of the steps."""
    logger, numbers = WandbLogger(experiment=run), MetricsFile(folder / "metrics.csv").rows
    last = max([*numbers, *(row["steps"] for row in entry["rows"] if "steps" in row)], default=0)
    pictures = sorted(_pictures(folder, last))
    for step in sorted({*numbers, *(at for at, _, _ in pictures)}):
        if step in numbers:
            logger.log_metrics(numbers[step], step)
        for at, name, path in pictures:
            if at == step and path.suffix == ".gif":
                log_animation(logger, path, step)
            elif at == step:
                log_picture(logger, name, images.read(path), step)
    if entry["rows"]:
        tracking.summarise_run(run, entry["rows"], entry["state"])
    if entry["state"] != "done":
        run.summary.update({key: entry[key] for key in ("state", "reason", "step", "term") if key in entry})
    return f"{len(numbers)} rows of numbers and {len(pictures)} pictures"


def _pictures(folder: Path, last: int) -> Iterator[tuple[int, str, Path]]:
    """Give step, name and file of each picture."""
    for path in (path for path in (folder / "images").glob("*") if path.suffix in PICTURES):
        found = STEP.fullmatch(path.stem)
        if found is not None:
            yield int(found["step"]), found["name"], path
        elif path.stem not in NOT_LOGGED:
            yield last, path.stem, path


def _name(entry: dict[str, Any]) -> str:
    return str(entry["folder"])


def _folder(cell: str, journal: Journal) -> Path:
    folder = journal.path.parent / str(journal.cells[cell]["folder"])
    if not folder.is_dir():
        raise ReplayError("its folder is gone, and with it all but the scores in the journal")
    return folder


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ReplayError(f"its config.yaml can't be read: {sentence(error)}") from error
    if not isinstance(found, dict) or "logger" not in found:
        raise ReplayError("its config.yaml says nothing of a logger")
    return {str(key): value for key, value in found.items()}


def _is_mirrored(settings: dict[str, Any]) -> bool:
    """Tell whether the cell was to be in W&B at all."""
    logger = settings["logger"]
    return bool(logger["name"] == "wandb" and logger["mode"] != "disabled")


def _sync(runs: list[Path]) -> None:
    command = [sys.executable, "-m", "wandb", "sync", *map(str, runs)]
    with tempfile.TemporaryDirectory() as place:  # W&B writes logs of the upload where it is called
        subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, timeout=UPLOAD_SECONDS, check=False)  # noqa: S603


def _not_uploaded(outputs: Path) -> list[Path]:
    runs = sorted(outputs.resolve().glob(f"*/*/wandb/{tracking.OFFLINE}*"))
    return [run for run in runs if not _is_uploaded(run) and _is_ended(run, outputs)]


def _is_uploaded(run: Path) -> bool:
    return any(run.glob("*.wandb.synced"))


def _is_ended(run: Path, outputs: Path) -> bool:
    cell = run.parents[1].name.rpartition("-")[2]
    return CellLock(outputs / ".locks" / cell, STALE_SECONDS).is_free()
