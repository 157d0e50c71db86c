"""The real command, as a user gives it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT

from losslab.runs import read_results
from losslab.runs.journal import Journal


def report(*words: str | Path, cwd: Path = ROOT, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    asked = [sys.executable, *python, str(ROOT / "src" / "report.py"), *map(str, words)]
    return subprocess.run(asked, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def line(cell: str, state: str, loss: str, **more: Any) -> dict[str, Any]:
    axes = {"task": "glo", "loss": loss, "data": "photos", "seed": 0}
    found = {"cell": cell, "task": "glo", "label": loss, "folder": f"glo/{loss}-{cell}", "state": state, "axes": axes}
    return {**found, "rows": [], **more}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Give an outputs folder with a done and a failed cell."""
    place = tmp_path / "some outputs"
    journal = Journal(place / "journal.jsonl")
    journal.append(line("a", "done", "l1", rows=[{"psnr": 12.5}], primary=12.5, seconds=3.0))
    journal.append(line("b", "failed", "l2", reason="an accident, a comma"))
    return place


@pytest.mark.parametrize("words", ["{}", "outputs={}"])
def test_command_leaves_all_it_promises(outputs: Path, tmp_path: Path, words: str) -> None:
    """Tables, reasons, n of m and paths are printed, table and page written and nothing else, from any folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = report(words.format(outputs), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    table, page = outputs / "report" / "results.csv", outputs / "report" / "index.html"
    told = ["failed  glo/l2-b: an accident, a comma", "1 of 2 cells done", str(table), str(page)]
    assert done.stdout.splitlines()[-4:] == told
    assert "12.5" in done.stdout
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in outputs.rglob("*")} == {"journal.jsonl", "report", "results.csv", "index.html"}
    assert "1 of 2 cells done" in page.read_text(encoding="utf-8")


def test_csv_is_the_table_of_results(outputs: Path) -> None:
    """A line a result row, and one for a cell that has none, with the reason."""
    report(outputs)
    table = pd.read_csv(outputs / "report" / "results.csv")
    assert list(table.columns) == list(read_results(outputs).columns)
    table = table.set_index("cell")
    assert table.loc["a", "psnr"] == 12.5
    assert table.loc["b", "reason"] == "an accident, a comma"
    assert list(table.psnr.isna()) == [False, True]
    assert list(table.state) == ["done", "failed"]


def test_again_and_after_a_move(outputs: Path, tmp_path: Path) -> None:
    """The same command makes a new report of what is there now, wherever the folder is by then."""
    report(outputs)
    moved = tmp_path / "moved"
    shutil.move(outputs, moved)
    Journal(moved / "journal.jsonl").append(line("b", "done", "l2", rows=[{"psnr": 11.0}], primary=11.0))
    assert "2 of 2 cells done" in report(moved).stdout
    assert "Results in moved" in (moved / "report" / "index.html").read_text(encoding="utf-8")


def test_damaged_line_is_told(outputs: Path) -> None:
    """A torn last line is left out, named on stderr, and no error."""
    journal = outputs / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    told = report(outputs)
    assert told.returncode == 0
    assert told.stderr.startswith(f"{journal}: line 2 is damaged")
    assert len(told.stderr.splitlines()) == 1
    assert "1 of 1 cells done" in told.stdout


def test_nothing_to_report_is_one_sentence(tmp_path: Path) -> None:
    """A folder without a journal, or none at all, is named, gets no report, and the exit code is 1."""
    for folder in (tmp_path, tmp_path / "none"):
        told = report(folder)
        assert told.returncode == 1
        assert told.stderr.startswith(f"error: there is no journal in {folder}")
        assert len(told.stderr.splitlines()) == 1
        assert told.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_report_that_cannot_be_written_is_one_sentence(outputs: Path) -> None:
    (outputs / "report").touch()
    told = report(outputs)
    assert told.returncode == 1
    assert told.stderr.startswith("error: ")
    assert "Traceback" not in told.stderr


def test_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    """A mistyped option is not taken for a folder."""
    told = report("--forse", cwd=tmp_path)
    assert told.returncode == 2
    assert "--forse" in told.stderr
    assert "Traceback" not in told.stderr


def test_outputs_default_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is of train.py's default folder, wherever the command is given."""
    monkeypatch.setenv("COLUMNS", "1000")
    assert f"({ROOT / 'outputs'})" in report("--help", cwd=tmp_path).stdout


def test_report_is_quick(outputs: Path) -> None:
    """It imports no torch."""
    told = report(outputs, python=("-X", "importtime"))
    assert told.returncode == 0
    assert " jinja2\n" in told.stderr
    assert " torch\n" not in told.stderr
