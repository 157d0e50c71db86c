"""What is to be computed: all configs, resolved before the first cell starts, so that nothing changes them later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab.config import NOT_BUILT, PANELS, check_targets
from losslab.runs.cell import Cell, identify
from losslab.runs.content import content
from losslab.runs.locks import CellLock
from losslab.runs.secrets import masked_words


@dataclass(frozen=True)
class Request:
    """One config as the command asks for it.

    Args:
        settings: the resolved config as plain dicts.
        choices: the option that was chosen of each group.
        overrides: the words of the command for this cell.
        error: why there are no settings.
    """

    settings: dict[str, Any]
    choices: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def words(self) -> str:
        """Spell the request as the command did."""
        return " ".join(masked_words(self.overrides)) or "the defaults"


@dataclass(frozen=True)
class Plan:
    """A cell that is to be computed.

    Args:
        cell: its name and place.
        request: what it was asked with.
        sweep: the id of the sweep that it belongs to.
        content: hash of what the data held when the plan was made.
        notes: what a reader of the results should know, such as a config that has changed.
    """

    cell: Cell
    request: Request
    sweep: str | None = None
    content: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Give the resolved config."""
        return self.request.settings

    @cached_property
    def lock(self) -> CellLock:
        """Give the right to compute the cell; one object, which remembers what it has watched."""
        return CellLock(self.cell.outputs / ".locks" / self.cell.id, self.settings["stale_seconds"])

    @property
    def folder(self) -> Path:
        """Give the place of the cell's results."""
        return self.cell.folder


def make_plan(request: Request, sweep: str | None = None) -> Plan:
    """Find out which cell a config means.

    Raises:
        ValueError: the data can't be read, a target can't be built, or task and loss don't fit; the message names it.
    """
    settings = request.settings
    _check_fit(settings)
    check_targets(settings)  # imports all that the cell will run: sources that change later change nothing
    outputs = Path(settings["outputs"])
    held = content(settings["data"], outputs)
    return Plan(identify(settings, held, request.choices, request.overrides), request, sweep, held)


def _check_fit(settings: dict[str, Any]) -> None:
    """Refuse what a task can't do with a loss, before anything is read or written."""
    task = settings["task"]
    network = settings["loss"].get("network")
    trains = isinstance(network, dict) and network.get("trainable", False)
    if trains and "trains_network" not in task.get(NOT_BUILT, {}):
        raise ValueError(
            "network.trainable=true is for task=metric_training alone: others leave loss networks as they are"
        )
    if task.get(NOT_BUILT, {}).get("judges", False):
        return
    name = str(task["_target_"]).rpartition(".")[2]
    if settings["loss"]["_target_"] in PANELS:
        raise ValueError(
            f"this loss is a panel of several, and {name} takes one: choose one layer and one comparison "
            "(not layer=each, compare=each), or a task that judges losses: two_afc, jnd"
        )
    if settings.get("draws", 1) != 1 and not task.get(NOT_BUILT, {}).get("draws", False):
        raise ValueError(f"draws={settings['draws']} is for the tasks two_afc, jnd and gim, not for {name}")


def make_plans(
    requests: Sequence[Request], sweep: str
) -> tuple[list[Plan], dict[int, str], list[tuple[Request, Exception]]]:
    """Find out which cells the configs of a sweep mean; two that mean the same are one.

    Returns:
        The plans; the cell's id of each request, by its number; and the requests that can't be one, with what is wrong.
    """
    plans: dict[str, Plan] = {}
    cells: dict[int, str] = {}
    bad: list[tuple[Request, Exception]] = []
    for number, request in enumerate(requests):
        if request.error is not None:
            bad.append((request, request.error))
            continue
        try:
            plan = make_plan(request, sweep)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's
            bad.append((request, error))
            continue
        cells[number] = plan.cell.id
        plans.setdefault(plan.cell.id, plan)
    return list(plans.values()), cells, bad


def noted(plan: Plan, *notes: str) -> Plan:
    """Add notes to a plan."""
    return replace(plan, notes=(*plan.notes, *notes))
