"""What the terminal shows of an outputs folder: a table for each task on each data set, and what is not done."""

import sys
from typing import Any

from losslab.reports.page import count, groups, reason
from losslab.runs.journal import Journal
from losslab.runs.matrix import matrices, warning
from losslab.runs.results import latest
from losslab.runs.summary import cells_table, console


def show(journal: Journal) -> None:
    """Print the tables, the cells that are not done with their reasons, how many are, and what is damaged.

    Args:
        journal: it has been read.
    """
    out, entries = console(), latest(journal)
    found = groups(entries)
    for group in found:
        out.print(cells_table(group.title, group.entries))
        for table in matrices(group.title, group.entries):
            out.print(table)
        if (mixed := warning(group.entries)) is not None:
            out.print(mixed)
    for entry in (entry for group in found for entry in group.entries if entry["state"] != "done"):
        out.print(f"{entry['state']}  {place(entry)}: {reason(entry)}")
    out.print(count(entries))
    if (complaint := journal.complaint()) is not None:
        print(complaint, file=sys.stderr)


def place(entry: dict[str, Any]) -> str:
    """Name a cell by its folder, one that has not begun by the one it will have, and one that can't by its words."""
    named = f"{entry['task']}/{entry['label']}-{entry['cell']}" if entry["cell"] else str(entry["label"])
    return str(entry.get("folder") or named)
