"""What a run and a sweep say at their start, on their way and at their end."""

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from losslab.runs.cell import Cell
from losslab.runs.plan import Plan, Request
from losslab.runs.sentences import sentence
from losslab.runs.states import STATES, Outcome

PICTURES = (".png", ".gif")
"""Endings of the files that are shown."""

WIDE = 10_000
"""Characters of a line where no terminal says how many it shows: more than any table has, so that no line is broken."""


def console() -> Console:
    """Give a console that cuts nothing off in a file or a pipe, and takes all text as text: errors hold brackets."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, soft_wrap=True, markup=False, emoji=False, highlight=False)


def say(what: Any) -> None:
    """Print; that nobody reads any more is no reason for a cell to fail."""
    with contextlib.suppress(OSError):
        console().print(what)


def announce(cell: Cell, folder: Path, facts: dict[str, int], resume: Path | None) -> None:
    """Say what is about to run."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in facts.items())
    how = "goes on from its last checkpoint" if resume else "starts"
    if resume is not None and resume.stem.endswith("-1"):
        how = "goes on from the checkpoint before the last, which is broken"
    say(f"{cell.task}/{cell.label} {how}: {counts}\n  {folder}")


def show(outcome: Outcome) -> None:
    """Print a cell's scores and where its pictures are."""
    plan, entry = outcome.plan, outcome.entry
    title = f"{plan.cell.task}/{plan.cell.label}  {plan.cell.id}"
    rows = entry["rows"]
    common = {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
    say(_scores(title, {**common, "seconds": entry["seconds"]}))
    if len(rows) > 1:
        say(rows_table(rows, common))
    if outcome.again and outcome.state == "done":
        how = ", by ".join(["done before", *outcome.notes])
        say(f"{how}; force=true computes it again")
    for path in sorted((plan.cell.outputs / entry["folder"] / "images").glob("*")):
        if path.suffix in PICTURES and "-step" not in path.name:
            say(f"  {path}")


def _scores(title: str, scores: Mapping[str, Any]) -> Table:
    """Make a table of names and values."""
    table = Table(title=title, title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        table.add_row(name, _shown(value))
    return table


def rows_table(rows: Sequence[dict[str, Any]], common: Mapping[str, Any]) -> Table:
    """Make a table of what tells a cell's rows apart, the best one first."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in common]
    table = Table()
    for name in names:
        table.add_column(name, justify="left" if any(isinstance(row.get(name), str) for row in rows) else "right")
    for row in sorted(rows, key=lambda row: -row.get("score", 0.0)):
        table.add_row(*(_shown(row.get(name, "")) for name in names))
    return table


def tally(outcome: Outcome, settled: int, total: int) -> None:
    """Say how one cell of a sweep ended."""
    entry = outcome.entry
    what = f"{entry['primary']:.4g}" if "primary" in entry else str(entry.get("reason", ""))
    place = f"{settled}/{total} {outcome.state} {outcome.plan.cell.task}/{outcome.plan.cell.label}"
    say(f"{place}: {what} ({entry.get('seconds', 0)} s)")


def waiting(plans: Sequence[Plan]) -> None:
    """Say which cells another process is computing."""
    for plan in plans:
        say(f"waiting for {plan.folder.name}, which {plan.lock.owner} computes")


def show_sweep(
    sweep: str, outcomes: Sequence[Outcome], bad: Iterable[tuple[Request, Exception]], more: Iterable[Any] = ()
) -> None:
    """Print the table of all cells of a sweep, further tables, and what is to be said of cells that are not done."""
    say(cells_table(f"sweep {sweep}", [{**o.entry, "axes": o.plan.cell.axes} for o in outcomes]))
    for table in more:
        say(table)
    for outcome in outcomes:
        notes = "; ".join(outcome.notes)
        if outcome.state != "done" or notes:
            name = f"{outcome.plan.cell.task}/{outcome.plan.folder.name}"
            say(f"{outcome.state}  {name}: {notes or 'not begun'}")
        if (outcome.plan.folder / "log.txt").exists() and outcome.state in ("failed", "diverged", "interrupted"):
            say(f"  log: {outcome.plan.folder / 'log.txt'}")
    bad = list(bad)
    alike: dict[str, list[str]] = {}
    for request, error in bad:
        alike.setdefault(sentence(error), []).append(request.words)
    for reason, cells in alike.items():
        say(f"failed  {cells[0] if len(cells) == 1 else f'{len(cells)} cells'}: {reason}")
        for words in cells if len(cells) > 1 else ():
            say(f"  {words}")
    again = sum(outcome.again for outcome in outcomes)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in STATES}
    counts["failed"] += len(bad)
    found = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    say(f"{found} of {len(outcomes) + len(bad)} cells; {again} of them were there before")


def cells_table(title: str, entries: Sequence[dict[str, Any]]) -> Table:
    """Make a table of lines of the journal: the axes that tell them apart, state, scores, seconds."""
    axes = differing([entry["axes"] for entry in entries])
    scores = list(dict.fromkeys(name for entry in entries for row in entry["rows"] for name in row))
    shown = [name for name in scores if any(isinstance(row.get(name), float) for e in entries for row in e["rows"])]
    words = [name for name in scores if any(isinstance(row.get(name), str) for e in entries for row in e["rows"])]
    table = Table(title=title, title_justify="left")
    for name in (*axes, *words, "state"):
        table.add_column(name, overflow="fold")
    for name in (*shown, "seconds"):
        table.add_column(name, justify="right", overflow="fold")
    for entry in entries:
        for row in entry["rows"] or [{}]:
            values = [*(_shown(entry["axes"].get(name, "")) for name in axes), *(row.get(name, "") for name in words)]
            numbers = [_shown(row.get(name, "")) for name in shown]
            table.add_row(*values, str(entry["state"]), *numbers, str(entry.get("seconds", "")))
    return table


def differing(axes: Sequence[dict[str, Any]]) -> list[str]:
    """Give the names that tell cells apart, the loss's always among them."""
    names = list(dict.fromkeys(name for each in axes for name in each))
    return [name for name in names if name == "loss" or len({str(each.get(name)) for each in axes}) > 1]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
