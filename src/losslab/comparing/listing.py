"""A line a pair while it is measured, then the mean, and all of it in a file."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from losslab.comparing.distances import Measured, Rows, standard_error
from losslab.files import write_text

MEAN, ERROR = "mean", "± standard error"


class Listing:
    """Prints the distances of pairs as they come.

    Args:
        head: the first lines.
        labels: of the pairs.
        losses: their names.
    """

    def __init__(self, head: Sequence[str], labels: Sequence[str], losses: Sequence[str]) -> None:
        """Find the widths."""
        self.head, self.labels, self.losses = head, labels, losses
        self.widths = [max(len(one) for one in (*labels, ERROR)), *(max(len(loss), 11) for loss in losses)]

    def run(self, measured: Measured, pairs: Int[Tensor, "pairs _"]) -> Rows:
        """Print each pair, then mean and standard error, and give all distances, (pairs, losses).

        Args:
            measured: distances of all pairs.
            pairs: numbers of the pictures, or of what two pictures share, of each pair.
        """
        found = torch.empty(len(pairs), len(self.losses))
        for block, (numbers, rows) in enumerate(measured):
            if block == 0:  # now that the first pictures were not refused
                print(*self.head, sep="\n")
                self._print("", self.losses)
            found[numbers] = rows
            for number, row in zip(numbers.tolist(), rows.tolist(), strict=True):
                self._print(self.labels[number], [f"{one:.6g}" for one in row])
        exact = found.double()
        for name, row in ((MEAN, exact.mean(0)), (ERROR, standard_error(exact, pairs))):
            self._print(name, [f"{one:.6g}" for one in row.tolist()])
        return found

    def _print(self, label: str, cells: Sequence[str]) -> None:
        line = [
            f"{label:{self.widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(cells, self.widths[1:], strict=True)),
        ]
        print("  ".join(line), flush=True)


def write_rows(path: Path, head: Sequence[str], names: Sequence[Sequence[str]], rows: Rows) -> None:
    """Write a line a pair as CSV: its names, and its distances."""
    _write(path, [head, *([*some, *map(_exact, row)] for some, row in zip(names, rows.tolist(), strict=True))])


def write_matrices(path: Path, losses: Sequence[str], names: Sequence[str], table: Tensor) -> None:
    """Write distances of all to all, (rows, columns, losses), as CSV: a line a loss and picture, a column a picture."""
    lines = product(range(len(losses)), range(len(names)))
    _write(
        path,
        [
            ["loss", "from", *names],
            *([losses[k], names[row], *map(_exact, table[row, :, k].tolist())] for k, row in lines),
        ],
    )


def _exact(value: float) -> str:
    return f"{value:.9g}"  # as many digits as tell 32-bit numbers apart


def _write(path: Path, lines: Iterable[Sequence[str]]) -> None:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(lines)
    write_text(path, content.getvalue())
