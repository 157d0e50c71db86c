"""All results of an outputs folder as one table, from the journal alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.runs.journal import Journal
from losslab.runs.matrix import with_measures

if TYPE_CHECKING:
    import pandas as pd

FACTS = ("cell", "state", "label", "folder", "sweep", "seconds", "finished", "code", "primary", "reason", "step")
"""What every line of the table tells beside axes and scores."""


def read_results(outputs: str | Path) -> "pd.DataFrame":
    """Read the journal into a table: a line for each result row, and one for each cell that has none.

    Cells of a sweep that have not ended are `planned`; a cell that was computed again counts once, by its last result.

    Args:
        outputs: the folder that holds journal.jsonl.

    Returns:
        Axes (such as loss, network, seed) and scores (such as psnr) as columns, beside those of `FACTS`; for each
        measure of any cell, such as l2, the distances `start/l2` and `end/l2`.
        `attrs["complaint"]` says which lines of the journal are damaged, or is None.

    Raises:
        ValueError: there is no journal.

    Example:
        >>> read_results("outputs").groupby("loss").psnr.mean()  # doctest: +SKIP
    """
    import pandas as pd  # here, since a training needs none

    path = Path(outputs) / "journal.jsonl"
    if not path.exists():
        raise ValueError(f"there is no journal in {outputs}: python src/train.py writes one")
    journal = Journal(path)
    journal.read()
    table = pd.DataFrame([line for entry in latest(journal) for line in _lines(entry)])
    table.attrs["complaint"] = journal.complaint()
    return table


def latest(journal: Journal) -> list[dict[str, Any]]:
    """Give one entry a cell: the ended ones in the order of their first end, then those that sweeps still plan.

    Those of cells that were measured have "measures": "start", "end" and "share" by the measures' names.
    """
    planned = {
        cell["cell"]: {**cell, "state": "planned", "rows": [], "sweep": sweep["sweep"]}
        for sweep in journal.sweeps.values()
        for cell in sweep["cells"]
        if cell["cell"] not in journal.cells
    }
    # The words of what can't be planned stand for its axes, since no config says them.
    unplanned = [
        {"cell": "", "task": "unplanned", "state": "failed", "label": each["words"], "folder": "", "rows": [],
         "sweep": sweep["sweep"], "reason": each["reason"], "axes": {**each["axes"], "words": each["words"]}}
        for sweep in journal.sweeps.values()
        for each in sweep.get("unplanned", [])
    ]  # fmt: skip
    ended = [with_measures(entry, journal.measures.get(cell, {})) for cell, entry in journal.cells.items()]
    return [*ended, *planned.values(), *unplanned]


def _lines(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    facts = {name: entry.get(name) for name in FACTS}
    measures = entry.get("measures", {}).items()
    facts |= {f"{end}/{name}": found[end] for name, found in measures for end in ("start", "end")}
    rows: Iterable[dict[str, Any]] = entry["rows"] or [{}]
    for row in rows:
        yield {**entry["axes"], **row, **facts}
