"""What the terminal shows of an outputs folder: a table for each task on each data set, and what is not done."""

import sys

from rich.markup import escape

from losslab.reports.page import count, groups, reason
from losslab.runs.journal import Journal
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
        # names and values are no markup, also where they hold brackets
        out.print(cells_table(escape(group.title), group.entries), markup=False, emoji=False)
    for entry in (entry for group in found for entry in group.entries if entry["state"] != "done"):
        place = entry.get("folder") or f"{entry['task']}/{entry['label']}-{entry['cell']}"
        out.print(f"{entry['state']}  {place}: {reason(entry)}", markup=False, emoji=False, highlight=False)
    out.print(count(entries), highlight=False)
    if (complaint := journal.complaint()) is not None:
        print(complaint, file=sys.stderr)
