"""The table of docs/human-triplets.md is one that its maker would write, of the experiment's rows."""

import re
from pathlib import Path
from typing import Any

import make_human_triplets
import pytest

from losslab.config import load, plain

NUMBER = r"(\d\.\d{3})"
CELL = re.compile(rf"\*\*{NUMBER}\*\* \({NUMBER} to {NUMBER}; {NUMBER} to {NUMBER}\)( ●)?")
BLOCK = (
    make_human_triplets.PAGE.read_text(encoding="utf-8")
    .partition(make_human_triplets.BEGIN)[2]
    .partition(make_human_triplets.END)[0]
    .strip()
)
LINES = [[cell.strip() for cell in line.strip("|").split("|")] for line in BLOCK.splitlines() if line.startswith("| ")]
SIZES = [int(title.removesuffix(" pixels")) for title in LINES[0][1:-1]]
KEYS = ("score", "low", "high", "low_alone", "high_alone")


def column(number: int) -> list[dict[str, Any]]:
    """Read the rows of one size back from the page."""
    found: list[dict[str, Any]] = []
    for name, *cells, spread in LINES[1:]:
        match = CELL.fullmatch(cells[number])
        assert match, f"{name}: {cells[number]}"
        scores = dict(zip(KEYS, map(float, match.groups()[:5]), strict=True))
        found.append({"measure": name, **scores, "like_best": str(match[6] is not None)})
        found[-1] |= {"sd_of_draws": float(spread)} if spread else {}
    return found


class Stored:
    """A scored cell with the numbers of the page."""

    def __init__(self, number: int) -> None:
        self.found = column(number)
        self.facts, self.task = {"size": str(SIZES[number])}, "twoafc"

    def scored(self, samples: int, seed: int) -> "Stored":
        return self

    def rows(self) -> list[dict[str, Any]]:
        return self.found

    def differences(self) -> list[dict[str, bool]]:
        told = rf"(\d+) of (\d+) differences at {self.facts['size']} pixels are real\."
        ((real, pairs),) = re.findall(told, BLOCK)
        return [{"real": number < int(real)} for number in range(int(pairs))]


def test_table_is_what_its_maker_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are read from the page and given to the maker bring the page's own lines: form and order."""
    assert SIZES == [64, 128]
    monkeypatch.setattr(make_human_triplets, "groups", lambda outputs: [Stored(number) for number in range(len(SIZES))])
    assert make_human_triplets.table(Path()) == BLOCK


def test_rows_are_those_of_the_experiment() -> None:
    """Each loss of the config has its row, the panel one for each of four slots and five comparisons; no other has."""
    names = [name for name, *_ in LINES[1:]]
    assert len(set(names)) == len(names)
    losses = plain(load("experiment=human_triplets"))["loss"]["losses"]
    panel = losses["squeezenet"]
    rows = {f"squeezenet: {layer}, {compare}" for (layer,) in panel["layers"] for compare in panel["compare"]["names"]}
    assert {*names} == {*losses} - {"squeezenet"} | rows
    assert len(rows) == 4 * 5


@pytest.mark.parametrize("number", range(len(SIZES)), ids=lambda number: f"{SIZES[number]} pixels")
def test_numbers_fit_together(number: int) -> None:
    """Scores lie in their intervals, below what anybody can reach; the best is like itself; all pairs are counted."""
    rows = column(number)
    for row in rows:
        assert 0.5 < row["low"] < row["low_alone"] < row["score"] < row["high_alone"] < row["high"] < 0.844
    like = [row["like_best"] == "True" for row in sorted(rows, key=lambda row: -row["score"])]
    assert like[0]
    assert not all(like)
    real = Stored(number).differences()
    assert len(real) == len(rows) * (len(rows) - 1) // 2
    assert 0 < sum(one["real"] for one in real) < len(real)
