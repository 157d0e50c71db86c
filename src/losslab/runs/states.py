"""The states of a cell, what the folder says of it, and whether the journal has its result already."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from losslab.files import read_json, write_json
from losslab.runs.journal import Journal
from losslab.runs.plan import Plan
from losslab.runs.provenance import code_hash, libraries

STATES = ("planned", "running", "done", "failed", "diverged", "interrupted")


@dataclass(frozen=True)
class Outcome:
    """How it stands with a cell at the end of a command.

    Args:
        plan: what was asked.
        entry: the line of the journal, or what one would say.
        again: whether it was there before, and nothing was computed.
        error: what stopped it, where that happened in this process.
    """

    plan: Plan
    entry: dict[str, Any]
    again: bool = False
    error: BaseException | None = None

    @property
    def state(self) -> str:
        """Give the state, one of `STATES`."""
        return str(self.entry["state"])

    @property
    def notes(self) -> list[str]:
        """Tell what a reader should know beside the scores."""
        reason = [str(self.entry["reason"])] if self.entry.get("reason") else []
        return [*reason, *(drift(self.entry) if self.again else []), *self.plan.notes]


def standing(plan: Plan, journal: Journal) -> Outcome | None:
    """Give the result that is there already; None where there is something to compute.

    A diverged cell would diverge again, so it counts as a result until code or libraries change.
    """
    entry = journal.cells.get(plan.cell.id)
    if entry is None or plan.settings["force"]:
        return None
    if entry["state"] == "done" or (entry["state"] == "diverged" and not drift(entry)):
        return Outcome(plan, entry, again=True)
    return None


def drift(made: dict[str, Any]) -> list[str]:
    """Tell how what made something, a line of the journal or a status, differs from what would make it now."""
    now, then = libraries(), made.get("libraries") or {}
    changed = [f"{name} {then[name]} then, {now.get(name)} now" for name in then if then[name] != now.get(name)]
    return [*(["other code"] if made.get("code") != code_hash() else []), *changed]


def entry_of(plan: Plan, state: str, **more: Any) -> dict[str, Any]:
    """Write a line for the journal."""
    folder = plan.folder
    return {
        "cell": plan.cell.id,
        "task": plan.cell.task,
        "label": folder.name.removesuffix(f"-{plan.cell.id}"),
        "folder": folder.relative_to(plan.cell.outputs).as_posix(),
        "state": state,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "sweep": plan.sweep,
        "axes": plan.cell.axes,
        "code": code_hash(),
        "libraries": libraries(),
        "rows": [],
        **more,
    }


def read_status(folder: Path) -> dict[str, Any]:
    """Give what a cell's folder says of its state; nothing if there is no folder."""
    return read_json(folder / "status.json")


def write_status(folder: Path, state: str, **more: Any) -> None:
    """Say in a cell's folder how it stands, and who says so."""
    who = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    made = {"code": code_hash(), "libraries": libraries()}
    write_json(folder / "status.json", {"state": state, **who, **made, **more})
