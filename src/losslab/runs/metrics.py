"""metrics.csv: every logged number, one row a step, and the loss curve drawn from it."""

import csv
import io
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from losslab.files import write_bytes, write_text

SAVE_SECONDS = 5.0
"""How long numbers may wait in memory; a file that takes long to write is written less often."""

CURVES = ("loss", "warmup")
"""What is drawn, with the parts that go by these names and a slash."""


class MetricsFile(Logger):
    """A Lightning logger that keeps one CSV file, also over a resume.

    Args:
        path: the file; rows that it holds already are kept, so that a resumed run's curve is whole.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier part of the run has written."""
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        self._due = time.monotonic() + SAVE_SECONDS
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    self.rows[step] = {name: float(value) for name, value in row.items() if value}

    @property
    def name(self) -> str:
        """Give Lightning's name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Give Lightning's version of the logger: there is one a cell."""
        return ""

    def rewind(self, step: int) -> None:
        """Forget the rows after `step`: a resumed run writes them again."""
        self.rows = {at: row for at, row in self.rows.items() if at <= step}

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers to the row of a step."""
        self.rows.setdefault(step or 0, {}).update({name: float(value) for name, value in metrics.items()})

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Ignore what config.yaml holds already."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file if the last writing is long past: Lightning calls this at every logged step."""
        if time.monotonic() >= self._due:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file."""
        started = time.monotonic()
        names = sorted({name for row in self.rows.values() for name in row} - {"epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        write_text(self.path, text.getvalue())
        now = time.monotonic()
        self._due = now + max(SAVE_SECONDS, 20 * (now - started))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.write()

    @property
    def has_curve(self) -> bool:
        """Whether anything was trained that has a loss."""
        return any(name.split("/")[0] in CURVES for row in self.rows.values() for name in row)

    def draw_curve(self, path: Path) -> None:
        """Draw the loss, its parts and the warm-up over the steps."""
        figure = Figure(figsize=(8, 4.5))
        axes = figure.add_axes((0.11, 0.11, 0.87, 0.86))  # a layout engine would draw everything twice
        steps = sorted(self.rows)
        for name in sorted({name for row in self.rows.values() for name in row}):
            if name.split("/")[0] not in CURVES:
                continue
            points = [(step, self.rows[step][name]) for step in steps if name in self.rows[step]]
            label = "warm-up (L2)" if name == "warmup" else name
            axes.plot(*zip(*points, strict=True), label=label, linewidth=2 if "/" not in name else 1)
        axes.set(xlabel="step", ylabel="loss, mean over the batch", yscale="log")
        low, high = axes.get_ylim()
        if 0 < low < high < 10 * low:  # within a decade, powers of ten would leave no room for the numbers
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.yaxis.set_minor_formatter("{x:.3g}")
        axes.grid(alpha=0.3, which="both")
        if axes.lines:
            axes.legend()
        content = io.BytesIO()
        figure.savefig(content, dpi=110, format="png")
        write_bytes(path, content.getvalue())
