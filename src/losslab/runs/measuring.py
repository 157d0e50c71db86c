"""Measuring finished cells by further losses, from what they have stored: nothing is optimised again."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_object

from losslab.checksums import sha256_of
from losslab.config import build
from losslab.runs.interrupts import interrupts
from losslab.runs.journal import Journal, measure_line
from losslab.runs.logs import logged
from losslab.runs.measures import Asked, Measure
from losslab.runs.plan import Plan
from losslab.runs.provenance import code_hash
from losslab.runs.secrets import masked
from losslab.runs.sentences import sentence
from losslab.runs.states import Outcome
from losslab.runs.summary import say
from losslab.runs.task import Measured

ENDS = ("start", "end")
"""What a task's `measure` gives."""


def refuse_unmeasurable(plans: Sequence[Plan], asked: Asked) -> None:
    """Refuse measures that no cell of the command can have, before anything is computed.

    Raises:
        ValueError: none of the tasks keeps what could be measured.
    """
    wanting = [plan for plan in plans if asked.get(plan.cell.id)]
    if wanting and not any(_task(plan) for plan in wanting):
        raise ValueError(_sentence_on(wanting))


def measure_all(outcomes: Sequence[Outcome], asked: Asked, journal: Journal) -> list[str]:
    """Give each done cell the measures that it lacks.

    Args:
        outcomes: of the command's cells.
        asked: what is asked for.
        journal: where measures are looked up and written.

    Returns:
        A sentence for each measure that failed; the others are in the journal, and read.
    """
    done = [outcome.plan for outcome in outcomes if outcome.state == "done" and asked.get(outcome.plan.cell.id)]
    others = [plan for plan in done if not _task(plan)]
    troubles = [_sentence_on(others)] if others else []
    try:
        for plan in done:
            troubles += _measured(plan, asked[plan.cell.id], journal) if _task(plan) else []
        journal.read()
    except OSError as error:
        troubles.append(f"no further cell was measured: {sentence(error)}")
    return troubles


def _measured(plan: Plan, measures: Sequence[Measure], journal: Journal) -> list[str]:
    stored = plan.folder / _task(plan).stored
    if not stored.is_file():
        return [f"{_place(plan)} can't be measured: it holds no {stored.name}; force=true computes it again"]
    new, troubles, started = [], [], time.monotonic()
    for measure in measures:
        try:
            line = _lacking(plan, measure, stored, journal)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this measure's
            troubles.append(f"{_place(plan)} measured by {measure.name}: {_reason(error)}")
            continue
        if line is not None:
            with interrupts.held():
                journal.append(line)
            new.append(measure.name)
    if new:
        say(f"measured {_place(plan)} by {', '.join(new)} ({time.monotonic() - started:.1f} s)")
    return troubles


def _lacking(plan: Plan, measure: Measure, stored: Path, journal: Journal) -> dict[str, Any] | None:
    """Give the line of a measure; None where the cell has it."""
    sha256 = sha256_of(stored)
    key = measure.key(plan.cell.id, sha256)
    journal.read()
    if journal.measures.get(plan.cell.id, {}).get(measure.name, {}).get("key") == key:
        return None
    # What another name or an equal result before has found need not be found again.
    found = _numbers(journal.measured.get(key) or _computed(plan, measure, stored))
    if sha256_of(stored) != sha256:
        raise ValueError(f"{stored.name} has changed meanwhile: the same command measures the new one")
    return _line(plan, measure, key, sha256, found)


def _computed(plan: Plan, measure: Measure, stored: Path) -> dict[str, float]:
    """Build the loss and let the task measure, in a state that no other measure has a say in."""
    with logged(plan.folder / "log.txt"):
        try:
            pl.seed_everything(plan.settings["seed"], workers=True, verbose=False)
            with torch.no_grad():
                return dict(_task(plan).measure(stored, build(measure.loss)))
        except BaseException:
            logging.getLogger(__name__).exception("the measure %s stopped", measure.name)
            raise


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    numbers = {end: float(found[end]) for end in ENDS}
    for end, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"the distance at the {end} is {number}")
    return numbers


def _line(plan: Plan, measure: Measure, key: str, sha256: str, found: dict[str, float]) -> dict[str, Any]:
    return measure_line(
        key,
        cell=plan.cell.id,
        measure=measure.name,
        alike=measure.alike,
        stored=sha256,
        **found,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        code=code_hash(),
    )


def _task(plan: Plan) -> Any:
    """Give the class of a cell's task; None where it can't be measured."""
    found = get_object(str(plan.settings["task"]["_target_"]))
    return found if isinstance(found, Measured) else None


def _sentence_on(plans: Sequence[Plan]) -> str:
    tasks = ", ".join(f"task={name}" for name in dict.fromkeys(plan.cell.axes["task"] for plan in plans))
    return f"measures are for tasks that keep their images; {tasks} can't be measured"


def _place(plan: Plan) -> str:
    return f"{plan.cell.task}/{plan.folder.name}"


def _reason(error: Exception) -> str:
    said = sentence(error)
    return str(
        masked(said if isinstance(error, (ValueError, KeyError, OSError)) else f"{type(error).__name__}: {said}")
    )
