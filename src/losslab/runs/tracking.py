"""The mirrors of a run: Weights & Biases or TensorBoard, beside metrics.csv; never a prompt, never a wait."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from losslab.files import write_json
from losslab.runs.plan import Plan
from losslab.runs.processes import is_first_process
from losslab.runs.secrets import masked

MODES = ("online", "offline", "disabled")
TAG_LENGTH = 64
"""Characters of a tag that W&B takes."""
LOGIN_SECONDS = 20
"""How long a server may take to answer; W&B's own patience is 90 s."""
KNOCK_SECONDS = 3
"""How long a server may take to open a connection at all."""
FINISH_SECONDS = 300
"""How long the upload may go on after the end of a run; W&B itself would wait for as long as the server is away."""
OFFLINE = "offline-run-"
"""How W&B begins the name of an offline run's folder."""
COMPLETE = "wandb.json"
"""The file of a cell that says which W&B run holds all of it; without it, `python src/replay.py` makes one."""


def mirrors(plan: Plan, folder: Path) -> list[Logger]:
    """Make the loggers that a config asks for.

    Args:
        plan: the cell.
        folder: where it writes.

    Raises:
        ValueError: unknown logger or W&B mode; W&B online without a key.
    """
    if is_first_process():
        (folder / COMPLETE).unlink(missing_ok=True)  # of an attempt before, whose numbers this one replaces
    logger = plan.settings["logger"]
    if logger["name"] == "csv":
        return []
    if logger["name"] == "tensorboard":
        return [TensorBoardLogger(str(folder), name="", version="tensorboard")]
    if logger["name"] == "wandb":
        return _wandb(plan, folder) if is_first_process() else []
    raise ValueError(f"logger.name is wandb, tensorboard or csv, got {logger['name']!r}")


def _wandb(plan: Plan, folder: Path) -> list[Logger]:
    mode = str(plan.settings["logger"]["mode"])
    if mode not in MODES:
        raise ValueError(f"logger.mode (or WANDB_MODE) is one of {', '.join(MODES)}, got {mode!r}")
    if mode == "disabled":
        return []
    try:
        import wandb
    except ImportError as error:
        _say(f"wandb can't be imported ({error}): this run is in metrics.csv and the journal only")
        return []
    if mode == "online" and (problem := server_problem("logger.mode=online")) is not None:
        mode = _offline_since(problem)
    try:
        return [WandbLogger(experiment=start_run(plan_facts(plan), folder, mode))]
    except wandb.Error as error:
        if mode != "online":
            raise
        mode = _offline_since(f"W&B does not take this run ({error})")
        wandb.teardown()  # its service holds the run's id, and would refuse it a second time
        return [WandbLogger(experiment=start_run(plan_facts(plan), folder, mode))]


def server_problem(asker: str) -> str | None:
    """Tell what can be known at once of why W&B would take no run; None if nothing speaks against it.

    Args:
        asker: what needs the server, for the error.

    Raises:
        ValueError: there is no key.
    """
    import wandb

    settings = wandb.setup(wandb.Settings(silent=True, mode="online")).settings
    try:
        if not wandb.login(prompt=False, verify=False):
            raise ValueError(f"{asker} needs a W&B key: `wandb login` stores one, or set WANDB_API_KEY")
    except wandb.Error as error:
        return f"W&B does not take the key ({error})"
    problem = _unreachable(str(settings.base_url))
    return None if problem is None else f"W&B can't be reached ({problem})"


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Give what the W&B run of a plan is called and says of itself."""
    cell = plan.cell
    return run_facts(cell.id, cell.task, cell.label, cell.axes, plan.sweep, plan.settings)


def run_facts(
    cell: str, task: str, label: str, axes: dict[str, Any], sweep: str | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Give what a W&B run is called and says of itself, in which no secret can be read.

    Args:
        cell: the cell's id.
        task: its task.
        label: its readable name.
        axes: what tells it from its neighbours.
        sweep: the sweep that it was computed in.
        settings: its resolved config.
    """
    facts = {
        "name": f"{task}/{label}",
        "project": str(settings["logger"]["project"]),
        "group": f"sweep-{sweep}" if sweep else None,
        "job_type": task,
        "tags": [f"{axis}={value}" for axis, value in axes.items()],
        "config": {**settings, **{f"axis/{name}": value for name, value in axes.items()}},
    }
    facts = masked(facts)
    return {"id": cell, **facts, "tags": [tag[:TAG_LENGTH] for tag in facts["tags"]]}


def start_run(facts: dict[str, Any], folder: Path, mode: str) -> Any:
    """Begin a W&B run, one a cell.

    Args:
        facts: its id, name, project, group, job type, tags and config.
        folder: the cell's.
        mode: one of `MODES`.
    """
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=LOGIN_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
    with _masked_command():
        run = wandb.init(
            **facts,
            dir=str(folder),
            resume="allow" if mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]  # one of MODES
            settings=settings,
        )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


@contextmanager
def _masked_command() -> Iterator[None]:
    """Let W&B, which writes the words of the command down, see no secret among them."""
    before = sys.argv
    sys.argv = masked(before)
    try:
        yield
    finally:
        sys.argv = before


def summarise(loggers: list[Logger], rows: list[dict[str, Any]], state: str) -> None:
    """Give the final scores to W&B: a single row as the run's summary, more of them as a table."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            summarise_run(logger.experiment, rows, state)


def summarise_run(run: Any, rows: list[dict[str, Any]], state: str) -> None:
    """Do so for one run."""
    import wandb

    run.summary["state"] = state
    if len(rows) == 1:
        run.summary.update(rows[0])
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    run.log({"rows": wandb.Table(columns=[*columns], data=[[row.get(name) for name in columns] for row in rows])})


def close(loggers: list[Logger], *, failed: bool) -> None:
    """End a W&B run, or the next cell of this process would write into it.

    Args:
        loggers: the cell's; one whose upload does not end is taken out, since W&B has not all of the run.
        failed: whether the cell did; what it failed of is the exception that is on its way.
    """
    error = sys.exception() if failed else None
    for logger in [logger for logger in loggers if isinstance(logger, WandbLogger)]:
        if error is not None:
            logger.experiment.summary["reason"] = str(masked(f"{type(error).__name__}: {error}"))
        try:
            logger.experiment.finish(exit_code=int(failed))
        except TimeoutError:
            loggers.remove(logger)
            _say(f"W&B has not got all of this run in {FINISH_SECONDS} s: `make wandb-sync` uploads it again")


def complete(loggers: list[Logger], folder: Path) -> None:
    """Say in the cell's folder that one W&B run holds all of it, from the first step to the end."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            complete_run(logger.experiment, folder)


def complete_run(run: Any, folder: Path) -> None:
    """Say so of one run, and let no upload take the offline runs of earlier attempts, which have the same id."""
    whole = folder_of(run)
    for other in whole.parent.glob(f"{OFFLINE}*"):
        if other.name != whole.name:
            supersede(other)
    write_json(folder / COMPLETE, {"run": whole.name})


def supersede(run: Path) -> None:
    """Rename the folder of an offline run, so that no upload takes it."""
    run.rename(run.with_name(f"superseded-{run.name.removeprefix(OFFLINE)}"))


def folder_of(run: Any) -> Path:
    """Give the folder that W&B has made for a run."""
    return Path(str(run.dir)).parent


def _unreachable(address: str) -> str | None:
    """Tell why a server can't be reached; a proxy is trusted to reach it."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")):
        return None
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or address, port), KNOCK_SECONDS).close()
    except OSError as error:
        return f"{address}: {error}"
    return None


def _offline_since(problem: str) -> str:
    _say(f"{problem}: this run is kept offline, and `make wandb-sync` uploads it")
    return "offline"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
    logging.getLogger(__name__).warning("%s", sentence)
