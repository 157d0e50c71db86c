"""The matrix of measures: a row a cell, a column for each loss that cells were measured by."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from losslab.runs.journal import Journal
from losslab.runs.states import Outcome
from losslab.runs.summary import differing

VIEWS = {"distance at the end": "end", "share of the distance at the start": "share"}
"""What the matrix shows, table by table."""


def with_measures(entry: dict[str, Any], measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Add to a cell's line of the journal what it was measured by.

    Args:
        entry: the line.
        measures: the lines of its measures, by their names.
    """
    if not measures or entry["state"] != "done":
        return entry
    return {**entry, "measures": {name: _numbers(line) for name, line in measures.items()}}


def names(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Name the losses that any of these cells was measured by."""
    return list(dict.fromkeys(name for entry in entries for name in entry.get("measures", {})))


def mixed(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Name those columns whose numbers can't be compared: the loss's config has changed between two cells."""
    entries = list(entries)
    configs = {name: {e["measures"][name]["alike"] for e in entries if name in e.get("measures", {})}
               for name in names(entries)}  # fmt: skip
    return [name for name, found in configs.items() if len(found) > 1]


def warning(entries: Iterable[dict[str, Any]]) -> str | None:
    """Say which columns are mixed, and what helps."""
    found = mixed(entries)
    if not found:
        return None
    which = ", ".join(found)
    return f"cells were measured by different configs of {which}: the same command again measures them alike"


def matrices(title: str, entries: Sequence[dict[str, Any]]) -> list[Table]:
    """Make the tables of the cells that were measured; none where no cell was.

    Args:
        title: what the tables are of.
        entries: lines of the journal, with their measures.
    """
    return [_matrix(f"{title}: {view}", entries, key) for view, key in VIEWS.items()] if names(entries) else []


def matrices_of(title: str, outcomes: Sequence[Outcome], journal: Journal) -> list[Table | str]:
    """Make them for the cells of a command, and say what in them can't be compared.

    Args:
        title: what the tables are of.
        outcomes: of the cells.
        journal: it has been read.
    """
    entries = [with_measures({**outcome.entry, "axes": outcome.plan.cell.axes},
                             journal.measures.get(outcome.plan.cell.id, {})) for outcome in outcomes]  # fmt: skip
    return [*matrices(title, entries), *filter(None, [warning(entries)])]


def _matrix(title: str, entries: Sequence[dict[str, Any]], key: str) -> Table:
    axes = differing([entry["axes"] for entry in entries])
    columns = names(entries)
    table = Table(title=title, title_justify="left")
    for name in axes:
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for entry in entries:
        if "measures" in entry:
            values = [shown(entry["measures"].get(name, {}).get(key)) for name in columns]
            table.add_row(*(str(entry["axes"].get(name, "")) for name in axes), *values)
    return table


def shown(value: float | None) -> str:
    """Write a number of the matrix."""
    return "–" if value is None else f"{value:.4g}"


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    start, end = line["start"], line["end"]
    return {"start": start, "end": end, "share": end / start if start else None, "alike": line["alike"]}
