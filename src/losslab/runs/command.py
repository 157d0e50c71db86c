"""The command line: from configs to outcomes, sentences and an exit code."""

import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from losslab.config import plain
from losslab.runs import summary
from losslab.runs.crews import Crew, OneByOne
from losslab.runs.interrupts import Interrupted, interrupts
from losslab.runs.journal import Journal
from losslab.runs.manifest import freeze, sweep_id, unplanned
from losslab.runs.matrix import matrices_of
from losslab.runs.measures import Asked, Measure, by_cell, measures_of
from losslab.runs.plan import Plan, Request, make_plan, make_plans
from losslab.runs.sentences import sentence
from losslab.runs.states import Outcome
from losslab.runs.sweep import Rules, Sweep

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's variable for tracebacks; whoever sets it wants them of us too."""
TRACEBACKS = os.environ.get(FULL_ERROR) == "1"

USAGE, FAILED = 2, 1
"""Exit codes: the command can't mean anything; a cell is not done. A signal gives 128 plus its number, as in shells."""

codes: list[int] = []
"""What the cells of this process would exit with; Hydra would let the first failure hide the others."""


class UsageError(ValueError):
    """A command that can't mean anything."""


def run_one(config: DictConfig) -> float:
    """Run the cell of a config, as Hydra's job; one that fails says so.

    Returns:
        The cell's score, or NaN.
    """
    hydra = HydraConfig.get()
    try:
        request = Request(plain(config), dict(hydra.runtime.choices), tuple(hydra.overrides.task))
        if hydra.mode == RunMode.MULTIRUN:  # under a launcher that is not ours
            _refuse_devices([request])
        rules, measures = _rules(request), _measures([request])
        plan = make_plan(request)
        asked = _asked([plan], {0: plan.cell.id}, measures)
        if not _is_first_process():
            return _follow(plan)
        sweep = _sweep([plan], plan.cell.outputs, rules, OneByOne(), _say_nothing)
        (outcome,) = sweep.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's
        _report(error)
        return math.nan
    score = _told(outcome)
    if asked:
        troubles = _measure(sweep, asked)
        for table in matrices_of("measures", [outcome], sweep.journal):
            summary.say(table)
        _say_not_measured(troubles)
    return score


def run_sweep(requests: Sequence[Request], crew_of: Callable[[Sequence[Request]], Crew]) -> list[float]:
    """Run the cells of a multirun, and print the table of all.

    Args:
        requests: the cells' configs, all resolved.
        crew_of: makes who computes them.

    Returns:
        A score for each request, NaN where there is none.

    Raises:
        UsageError: the sweep can't be run at all.
    """
    whole = [request for request in requests if request.error is None]
    name = sweep_id(requests)
    if not whole:
        summary.show_sweep(name, [], [(request, request.error) for request in requests if request.error])
        codes.append(USAGE)
        return [math.nan] * len(requests)
    _refuse_devices(whole)
    outputs, rules = _outputs(whole), _rules(whole[0])
    measures, troubles = _measures(requests), list[str]()
    crew = crew_of(whole)  # first of all, since processes import libraries while the data are read here
    plans, cells, bad = make_plans(requests, name)
    asked = _asked(plans, cells, measures)
    plans = _begin(name, plans, bad, outputs)
    sweep = _sweep(plans, outputs, rules, crew, lambda outcome, settled: summary.tally(outcome, settled, len(plans)))
    try:
        if bad and rules.on_error == "stop":
            sweep.stop(f"on_error=stop, and {bad[0][0].words} can't be planned")
        sweep.run()
        if asked:
            troubles = _measure(sweep, asked)
    finally:
        outcomes = sweep.outcomes()
        summary.show_sweep(name, outcomes, bad, matrices_of(f"sweep {name}", outcomes, sweep.journal) if asked else ())
        _say_not_measured(troubles)
        if sweep.stopped_by is not None:
            print(f"the sweep stopped: {sweep.stopped_by}; the same command goes on", file=sys.stderr)
    codes.extend(FAILED for outcome in sweep.outcomes() if outcome.state != "done")
    codes.extend(FAILED for _ in bad)
    return [_score(sweep.settled.get(cells.get(index, ""))) for index in range(len(requests))]


def guarded(main: Callable[[], Any]) -> int:
    """Run a Hydra program whose job is `run_one`, and give its exit code."""
    os.environ[FULL_ERROR] = "1"  # so that Hydra lets exceptions through to here
    interrupts.install()
    try:
        main()
    except (Interrupted, KeyboardInterrupt) as stop:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Interrupted) else 2)
    except Exception as error:  # noqa: BLE001 - the outermost place, where all errors become sentences
        _report(error)
    return max(codes, default=0)


def _sweep(
    plans: Sequence[Plan], outputs: Path, rules: Rules, crew: Crew, tell: Callable[[Outcome, int], None]
) -> Sweep:
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    if (complaint := journal.complaint()) is not None:
        print(complaint, file=sys.stderr)
    return Sweep(plans, crew, journal, rules, tell, summary.waiting)


def _measures(requests: Sequence[Request]) -> dict[int, list[Measure]]:
    """Resolve the measures of each config, by its number; a wrong name is refused before anything is computed."""
    try:
        return {number: measures_of(request) for number, request in enumerate(requests) if request.error is None}
    except ValueError as error:
        raise UsageError(str(error)) from error


def _asked(plans: Sequence[Plan], cells: Mapping[int, str], measures: dict[int, list[Measure]]) -> Asked:
    """Sort the measures by cells, and refuse those that no cell can have."""
    asked = by_cell(cells, measures)
    if asked:
        from losslab.runs.measuring import refuse_unmeasurable  # here, since it imports torch

        try:
            refuse_unmeasurable(plans, asked)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return asked


def _measure(sweep: Sweep, asked: Asked) -> list[str]:
    from losslab.runs.measuring import measure_all

    return measure_all(sweep.outcomes(), asked, sweep.journal)


def _say_not_measured(troubles: Sequence[str]) -> None:
    for trouble in troubles:
        print(f"error: {trouble}", file=sys.stderr)
        codes.append(FAILED)


def _say_nothing(outcome: Outcome, settled: int) -> None:
    """Leave it to `_told`."""


def _begin(name: str, plans: list[Plan], bad: list[tuple[Request, Exception]], outputs: Path) -> list[Plan]:
    """Freeze a sweep's configs, and write into the journal which cells it has."""
    try:
        plans = freeze(name, plans, bad, outputs)
        cells = [{"cell": p.cell.id, "task": p.cell.task, "label": p.cell.label, "axes": p.cell.axes} for p in plans]
        says = {"sweep": name, "cells": cells, "unplanned": unplanned(bad)}
        journal = Journal(outputs / "journal.jsonl")
        journal.read()
        known = journal.sweeps.get(name, {})
        if any(known.get(key) != value for key, value in says.items()):
            journal.append({**says, "began": datetime.now(UTC).isoformat(timespec="seconds")})
    except OSError as error:
        raise UsageError(f"can't write into outputs={outputs}: {sentence(error)}") from error
    return plans


def _rules(request: Request) -> Rules:
    try:
        return Rules(*(request.settings[key] for key in ("on_error", "retries", "on_drift")))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _outputs(requests: Sequence[Request]) -> Path:
    found = {str(request.settings["outputs"]) for request in requests}
    if len(found) > 1:
        raise UsageError(f"a sweep has one outputs folder, got {', '.join(sorted(found))}")
    return Path(found.pop())


def _refuse_devices(requests: Sequence[Request]) -> None:
    """Refuse cells on several devices, whose further processes would each begin the sweep again.

    Raises:
        UsageError: it names the command to use.
    """
    for request in requests:
        devices, nodes = request.settings["trainer"].get("devices", 1), request.settings["trainer"].get("num_nodes", 1)
        one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
        if not one or nodes != 1:
            command = " ".join(["python src/train.py", *request.overrides])
            raise UsageError(f"a cell of a multirun has one device, got trainer.devices={devices}: use {command}")


def _is_first_process() -> bool:
    from losslab.runs.processes import is_first_process  # here, since it imports Lightning

    return is_first_process()


def _follow(plan: Plan) -> float:
    """Work for the first process of a run on several devices."""
    from losslab.runs.attempt import attempt

    return _score(attempt(plan))


def _told(outcome: Outcome) -> float:
    """Show a single run's outcome, and say what went wrong."""
    if outcome.entry["rows"]:
        summary.show(outcome)
    if outcome.error is not None:
        outcome.error.add_note(f"log: {outcome.plan.folder / 'log.txt'}")
        _report(outcome.error)
    elif outcome.state != "done":
        reason = "; ".join(outcome.notes)
        print(f"error: {outcome.state} before: {reason}; force=true computes it again", file=sys.stderr)
        codes.append(FAILED)
    return _score(outcome)


def _score(outcome: Outcome | None) -> float:
    return math.nan if outcome is None else float(outcome.entry.get("primary", math.nan))


def _report(error: BaseException) -> None:
    codes.append(_code(error))
    if _is_users(error) and not TRACEBACKS:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {sentence(error)}{notes}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def _code(error: BaseException) -> int:
    """Tell a command that can't mean anything from a cell that failed."""
    usage = isinstance(error, (HydraException, OmegaConfBaseException, UsageError))
    return USAGE if usage and not isinstance(error, InstantiationException) else FAILED


def _is_users(error: BaseException) -> bool:
    """Tell a mistake in the command or the data from a mistake in the code, which deserves its traceback."""
    lightnings = type(error).__name__ == "MisconfigurationException"  # not imported: a typo must not wait for Lightning
    return lightnings or isinstance(error, (HydraException, OmegaConfBaseException, ValueError, KeyError, OSError))
