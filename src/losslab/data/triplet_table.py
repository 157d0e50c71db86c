"""Judgements of yours, in a CSV table."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from losslab.data.judged import JudgedData, Pairs, Triplets
from losslab.data.pictures import PictureTable, first_of

KINDS = {"judge": ("ref", "p0", "p1"), "same": ("p0", "p1")}
"""The column that tells what was asked, and the pictures that were shown."""

OPTIONAL = {"judge": ("subset", "votes"), "same": ("subset",)}

ALL = "all"
"""The subset's name where the table names none."""


@dataclass(frozen=True)
class Row:
    """One judgement: the pictures in the kind's order, the share of answers, and where it belongs."""

    pictures: tuple[Path, ...]
    share: float
    subset: str
    votes: int | None


class TripletTable(JudgedData):
    """A table of judgements, whose header tells the kind.

    With the columns ref, p0, p1, judge, a row is a triplet, and judge the share of people who found p1 nearer to ref;
    with p0, p1, same it is a pair, and same the share of people who saw no difference. A column subset gives each row
    to a named part; triplets may have votes, the number of people.

    Args:
        table: the CSV file, UTF-8; pictures are given relative to its folder, or by whole paths.
        size: side of the pictures in pixels; both sides of a file are scaled to it.
        antialias: how they get there, see `PictureTable`.
        cache: folder where the decoded pictures are kept; None decodes them each time.
        batch_size: triplets measured at a time.
        seed: of an order in training, which such a table has none of.

    Raises:
        ValueError: there is no such file; columns are missing or unknown; rows are bad: the message counts them and
            names the first ones by line.
    """

    def __init__(
        self,
        table: str | Path,
        size: int = 64,
        *,
        antialias: bool = True,
        cache: str | Path | None = None,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Keep the place."""
        super().__init__(batch_size, seed)
        self.table, self.pictures = Path(table).expanduser(), PictureTable(size, antialias, cache)

    def load(self) -> Triplets | Pairs:
        """Read the table, and each picture in it once."""
        kind, rows = read_table(self.table)
        files: dict[Path, int] = {}
        shown = torch.tensor([[files.setdefault(path, len(files)) for path in row.pictures] for row in rows])
        pictures, places = self.pictures.read([*files])
        shown = places[shown]
        share = torch.tensor([row.share for row in rows])
        subset, subsets = _numbered([row.subset for row in rows])
        if kind == "same":
            return Pairs(pictures, shown[:, 0], shown[:, 1], share, subset, subsets)
        votes = [row.votes for row in rows if row.votes is not None]
        reference, p0, p1 = shown.unbind(1)
        people = torch.tensor(votes) if votes else None
        return Triplets(pictures, reference, p0, p1, share, subset, subsets, people)

    def files(self) -> list[Path]:
        """List the table and the pictures in it."""
        rows = read_table(self.table)[1]
        return [self.table, *dict.fromkeys(path for row in rows for path in row.pictures)]


def read_table(table: Path) -> tuple[str, list[Row]]:
    """Read a table of judgements: its kind, "judge" or "same", and its rows.

    Raises:
        ValueError: as `TripletTable` has it.
    """
    if not table.is_file():
        raise ValueError(f"data.table={table} is no file")
    reader = _Reader(table)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return reader.kind_and_rows(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} can't be read as a CSV table in UTF-8: {error}") from error


class _Reader:
    """One reading of one table."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.there: dict[Path, bool] = {}

    def kind_and_rows(self, lines: Iterator[list[str]]) -> tuple[str, list[Row]]:
        columns = [name.strip() for name in next(lines, [])]
        kind = self._kind(columns)
        rows: list[Row] = []
        bad: list[str] = []
        for cells in lines:
            if not cells:
                continue
            try:
                rows.append(self._row(kind, columns, [cell.strip() for cell in cells]))
            except ValueError as error:
                bad.append(f"line {lines.line_num}: {error}")  # type: ignore[attr-defined] # csv's reader has it
        if bad:
            raise ValueError(f"{self.table} has {len(bad)} bad rows of {len(rows) + len(bad)}: {first_of(bad)}")
        if not rows:
            raise ValueError(f"{self.table} has no rows")
        return kind, rows

    def _kind(self, columns: Sequence[str]) -> str:
        kinds = [kind for kind in KINDS if kind in columns]
        if len(kinds) != 1 or len(set(columns)) != len(columns):
            raise ValueError(
                f"{self.table} has the columns {', '.join(columns) or 'of an empty file'}; "
                "expected ref,p0,p1,judge[,subset][,votes] or p0,p1,same[,subset], each once"
            )
        wanted, optional = (*KINDS[kinds[0]], kinds[0]), OPTIONAL[kinds[0]]
        missing = [name for name in wanted if name not in columns]
        if missing:
            raise ValueError(f"{self.table} has {kinds[0]}, and no column {missing[0]}: it has {', '.join(columns)}")
        for name in columns:
            if name not in (*wanted, *optional):
                near = get_close_matches(name, optional, n=1, cutoff=0)[0]
                raise ValueError(f"{self.table} has the unknown column {name!r}; did you mean {near!r}?")
        return kinds[0]

    def _row(self, kind: str, columns: Sequence[str], cells: Sequence[str]) -> Row:
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells, expected {len(columns)}")
        held = dict(zip(columns, cells, strict=True))
        empty = [name for name, cell in held.items() if not cell]
        if empty:
            raise ValueError(f"{empty[0]} is empty")
        pictures = tuple(self._picture(name, held[name]) for name in KINDS[kind])
        votes = _votes(held["votes"]) if "votes" in held else None
        return Row(pictures, _share(kind, held[kind]), held.get("subset", ALL), votes)

    def _picture(self, column: str, cell: str) -> Path:
        path = self.table.parent / cell
        if path not in self.there:
            self.there[path] = path.is_file()
        if not self.there[path]:
            raise ValueError(f"{column} is {cell!r}, and there is no such file")
        return path


def _share(kind: str, cell: str) -> float:
    try:
        share = float(cell)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:  # so is nan
        raise ValueError(f"{kind} is {cell!r}, expected a share from 0 to 1")
    return share


def _votes(cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and int(cell)):
        raise ValueError(f"votes is {cell!r}, expected a whole number from 1")
    return int(cell)


def _numbered(names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([places[name] for name in names]), tuple(places)
