"""The judges as a user runs them: one command for a grid, one for a table of several cells, on one device or two."""

import io
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, Run, quiet
from PIL import Image as Picture
from warm import Warm

from losslab.runs.journal import Journal

SMALL = ["task=two_afc", "data.count=20", "data.size=32", "data.families=[noise,blur]", "task.samples=50", "logger=csv"]
GRID = ["loss=deep", "network=cnn1", "layer=[[1],[pixels]]", "compare=each", "weights=random", "draws=2"]


def rows_of(outputs: Path) -> list[dict[str, float]]:
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    (entry,) = journal.cells.values()
    return list(entry["rows"])


def test_grid_on_one_device_and_on_two(train: Run, tmp_path: Path) -> None:
    """A row for each layer and comparison; two processes over gloo give the same numbers, bit for bit."""
    one = train(*SMALL, *GRID, f"outputs={tmp_path / 'one'}", "trainer.accelerator=cpu")
    assert one.returncode == 0, one.stderr
    two = train(*SMALL, *GRID, "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", fresh=True)
    assert two.returncode == 0, two.stderr
    rows = rows_of(tmp_path / "one")
    assert len(rows) == 10
    assert {row["measure"] for row in rows} >= {"relu1, spatial", "pixels, spatial_sort"}
    assert all(row["draws"] == 2 for row in rows)
    assert rows == rows_of(tmp_path / "outputs")
    (cell,) = (tmp_path / "one").glob("*/*/distances.parquet")
    table = pd.read_parquet(cell)
    assert len(table) == 20
    assert {"d0 of relu1, sort, draw 1", "judge", "subset"} <= set(table)
    assert table.attrs["judgements"] == "made, not human"
    for worst in (tmp_path / "one").glob("*/*/images/worst_*.png"):
        assert Picture.open(worst).size[1] == 3 * 34 + 2


def test_cells_are_compared(train: Run, warm: Warm, tmp_path: Path) -> None:
    """Losses of a sweep come into one table, on the same resamples, with all differences in a file."""
    swept = train("-m", *SMALL, "loss=l1,ssim")
    assert swept.returncode == 0, swept.stderr
    out = tmp_path / "table.csv"
    program = [
        sys.executable,
        str(ROOT / "src" / "agreement.py"),
        str(tmp_path / "outputs"),
        f"out={out}",
        "samples=50",
    ]
    shown = warm.run(program, ROOT, quiet(), timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert "20 judged" in shown.stdout
    assert "made, not human" in shown.stdout
    table = pd.read_csv(io.StringIO(out.read_text()))
    assert sorted(table["measure"]) == ["l1", "ssim"]
    assert {"like_best", "low", "high", "score/noise", "human/blur"} <= set(table)
    assert len(pd.read_csv(tmp_path / "table_differences.csv")) == 1
    nothing = warm.run([*program[:2], str(tmp_path)], ROOT, quiet(), timeout=300)
    assert nothing.returncode != 0
    assert "no cell in" in nothing.stderr
    assert "Traceback" not in nothing.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task=glo", "loss=l1", "draws=3"], "draws=3 is for the tasks two_afc, jnd and gim"),
        (["task=glo", "loss=deep", "network=cnn1", "layer=[[1],[pixels]]"], "is a panel of several, and GLO takes one"),
        (["task=jnd", "loss=l1", "data=known_order", "data.count=20"], "judges by pairs, and data of KnownOrder"),
    ],
)
def test_what_does_not_fit(train: Run, tmp_path: Path, words: list[str], sentence: str) -> None:
    """One sentence, before anything is computed."""
    done = train(*words, "logger=csv")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    if "task=glo" in words:
        assert not (tmp_path / "outputs").exists()
