"""Losses of several cells, compared by the distances that their cells have saved: what people said is the same."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losslab.metrics.arrays import Numbers
from losslab.metrics.scoring import score_pairs, score_triplets
from losslab.metrics.table import ScoreTable
from losslab.runs.journal import Journal
from losslab.runs.results import latest
from losslab.runs.summary import differing

FILE = "distances.parquet"
"""What judging tasks leave in a cell's folder."""


@dataclass
class Group:
    """Cells that were judged by the same pictures, and the same of what people said of them.

    Args:
        task: its name.
        facts: what the files tell of them.
        entries: of the journal.
        files: distances, one table a cell.
    """

    task: str
    facts: dict[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)
    files: list[pd.DataFrame] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What tells the group from others."""
        told = ", ".join(f"{value} {name}" for name, value in self.facts.items())
        return f"{self.task}, data {self.entries[0]['axes'].get('data', '')}: {told}"

    def distances(self) -> Iterator[tuple[str, Numbers]]:
        """Give each measure's name and distances, (draws, sides, T)."""
        names = differing([entry["axes"] for entry in self.entries])
        for entry, table in zip(self.entries, self.files, strict=True):
            cell = " ".join(str(entry["axes"].get(name, "")) for name in names).strip()
            found: dict[str, dict[str, list[Numbers]]] = defaultdict(lambda: defaultdict(list))
            for column in table.columns:
                side, of, rest = column.partition(" of ")
                if of and side in ("d", "d0", "d1"):
                    found[rest.partition(", draw ")[0]][side].append(table[column].to_numpy(np.float64))
            for measure, sides in found.items():
                name = measure if len(self.entries) == 1 else f"{cell}: {measure}" if len(found) > 1 else cell
                yield name, np.stack([np.stack(one) for one in sides.values()], 1)

    def scored(self, samples: int, seed: int) -> ScoreTable:
        """Score all measures on the same resamples."""
        table = self.files[0]
        names, distances = zip(*self.distances(), strict=True)
        subset, subsets = pd.factorize(table["subset"])  # in the data's order, on which resamples hang
        is_triplets = "judge" in table
        pictures = table[["reference", "p0", "p1"] if is_triplets else ["p0", "p1"]].to_numpy()
        score = score_triplets if is_triplets else score_pairs
        said = table["judge" if is_triplets else "same"].to_numpy()
        return score(names, distances, said, subset, subsets.tolist(), pictures, samples, seed)


def groups(outputs: Path) -> list[Group]:
    """Find the cells that have saved distances.

    Raises:
        ValueError: there is no journal, or no cell has any.
    """
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    found: dict[tuple[str, str], Group] = {}
    for entry in latest(journal):
        path = outputs / str(entry.get("folder")) / FILE
        if not entry["rows"] or not path.is_file():
            continue
        table = pd.read_parquet(path)
        facts = {str(name): value for name, value in table.attrs.items()}
        content = str(facts.pop("content"))
        group = found.setdefault((entry["task"], content), Group(entry["task"], facts))
        group.entries.append(entry)
        group.files.append(table)
    if not found:
        raise ValueError(f"no cell in {outputs} has saved distances: python src/train.py task=two_afc makes some")
    return list(found.values())
