"""The page: for each task on each data set a table of its cells, and their pictures side by side."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from losslab.runs.journal import Journal
from losslab.runs.matrix import VIEWS, names, warning
from losslab.runs.results import latest
from losslab.runs.summary import PICTURES, differing

UNENDED = "has not ended yet"
"""Why a planned cell has no result; the journal does not know whether it has begun."""


@dataclass(frozen=True)
class Picture:
    """A final picture of a done cell, or of several.

    Args:
        link: its address as seen from outputs/report/.
        caption: which cell it is of.
    """

    link: str
    caption: str


Grids = Mapping[str, list[Picture]]
"""Pictures beside the page that show the cells of a group side by side, by the groups' titles."""


@dataclass(frozen=True)
class Group:
    """The cells of one task on one data set; scores of different groups can't be compared.

    Args:
        task: the task's name.
        data: the data set's name.
        entries: a line of the journal for each cell.
    """

    task: str
    data: str
    entries: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """Name the group."""
        return f"{self.task} on {self.data}"

    @property
    def done(self) -> list[dict[str, Any]]:
        """Give the cells that are done."""
        return [entry for entry in self.entries if entry["state"] == "done"]

    @cached_property
    def axes(self) -> list[str]:
        """Name what tells the cells apart."""
        return differing([entry["axes"] for entry in self.entries])

    @cached_property
    def scores(self) -> list[str]:
        """Name the columns of results: scores, and words that tell the rows of one cell apart; counts are left out."""
        rows = [row for entry in self.entries for row in entry["rows"]]
        names = dict.fromkeys(name for row in rows for name in row)
        return [name for name in names if any(isinstance(row.get(name), (float, str)) for row in rows)]

    @cached_property
    def best(self) -> tuple[str, float] | None:
        """Give the score that sweeps maximise or minimise, and its best value.

        The journal says of no other score whether more or less of it is better, and of this one only by its value;
        None where that leaves open which it is.
        """
        primaries = [(entry, entry["primary"]) for entry in self.done if _is_number(entry.get("primary"))]
        signed = [
            (name, sign)
            for name in self.scores
            for sign in (1, -1)
            if all(_highest(entry["rows"], name, sign) == primary for entry, primary in primaries)
        ]
        if len(primaries) < 2 or len(signed) != 1:
            return None
        ((name, sign),) = signed
        return name, sign * max(primary for _, primary in primaries)

    @cached_property
    def measures(self) -> list[str]:
        """Name the losses that cells were measured by."""
        return names(self.entries)

    @property
    def mixed(self) -> str | None:
        """Say which of their columns can't be compared."""
        return warning(self.entries)

    def is_least(self, entry: dict[str, Any], measure: str, key: str) -> bool:
        """Tell whether a cell has the least of a measure, among several that have it."""
        found = [one["measures"][measure][key] for one in self.entries if measure in one.get("measures", {})]
        found = [value for value in found if value is not None]
        return len(found) > 1 and entry["measures"].get(measure, {}).get(key) == min(found)

    def caption(self, entry: dict[str, Any]) -> str:
        """Tell a cell of the group from the others."""
        axes = [f"{name} {shown(entry['axes'][name])}" for name in self.axes if name in entry["axes"]]
        return ", ".join(axes) or str(entry["label"])

    def walls(self, outputs: Path) -> dict[str, list[Picture]]:
        """Give the pictures of all done cells, by the pictures' names."""
        found: dict[str, list[Picture]] = {}
        for entry in self.done:
            for name in _final_pictures(outputs / entry["folder"] / "images"):
                link = quote(f"../{entry['folder']}/images/{name}")
                found.setdefault(Path(name).stem, []).append(Picture(link, self.caption(entry)))
        return dict(sorted(found.items(), key=lambda item: (item[0] == "loss_curve", item[0])))  # results come first


def groups(entries: Iterable[dict[str, Any]]) -> list[Group]:
    """Sort lines of the journal by task and data, and inside by what tells the cells apart."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        axes = entry["axes"]
        found.setdefault((str(axes.get("task", entry["task"])), str(axes.get("data", "unnamed data"))), []).append(
            entry
        )
    return [Group(task, data, _in_order(own)) for (task, data), own in found.items()]


def count(entries: list[dict[str, Any]]) -> str:
    """Say how many cells are done."""
    return f"{sum(entry['state'] == 'done' for entry in entries)} of {len(entries)} cells done"


def reason(entry: dict[str, Any]) -> str:
    """Say why a cell is not done; nothing where it is."""
    return str(entry.get("reason") or (UNENDED if entry["state"] == "planned" else ""))


def shown(value: Any) -> str:
    """Write a value as the terminal's tables do."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make_page(outputs: Path, journal: Journal, grids: Grids | None = None) -> str:
    """Write the page as HTML.

    Args:
        outputs: the folder that holds the cells' folders; the page is meant for outputs/report/.
        journal: its journal, read.
        grids: what `write_grids` has written.
    """
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"shown": shown, "reason": reason}
    entries = latest(journal)
    return pages.get_template("page.html.j2").render(
        folder=outputs.resolve().name,
        views=VIEWS,
        grids=grids or {},
        made=datetime.now(UTC),
        count=count(entries),
        groups=[(group, count(group.entries), group.walls(outputs)) for group in groups(entries)],
        # the page may be shown to others, whom the path does not concern
        complaint=(journal.complaint() or "").removeprefix(f"{journal.path.parent}/"),
    )


def _final_pictures(folder: Path) -> list[str]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:  # it was removed, or never copied here; the scores stand without it
        return []
    return sorted(name for name in names if name.endswith(PICTURES) and "-step" not in name)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _highest(rows: list[dict[str, Any]], name: str, sign: int) -> float | None:
    return max((sign * row[name] for row in rows if _is_number(row.get(name))), default=None)


def _in_order(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = differing([entry["axes"] for entry in entries])
    return sorted(entries, key=lambda entry: [_rank(entry["axes"].get(name, "")) for name in names])


def _rank(value: Any) -> tuple[bool, float, str]:
    """Order numbers by size, and before words."""
    return (False, value, "") if _is_number(value) else (True, 0, str(value))
