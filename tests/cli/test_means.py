"""The command for generalized image means, as a user gives it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from losslab.runs.journal import Journal

SMALL = ("task=gim", "loss=l1", "data.size=32", "task.steps=8", "logger=csv", "trainer.accelerator=cpu")
WORDS = ("seconds_to_converge", "start")


def row_of(outputs: Path) -> dict[str, Any]:
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    (entry,) = journal.cells.values()
    (row,) = entry["rows"]
    return {name: value for name, value in row.items() if name not in WORDS}


def found_in(outputs: Path) -> np.ndarray:
    (path,) = outputs.glob("gim/*/images.npz")
    with np.load(path) as held:
        found: np.ndarray = held["found"]
    return found


@pytest.mark.parametrize("words", [(), ("task=gim_lbfgs", "task.steps=2")])
def test_two_devices_find_the_same_images(train: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Two processes over gloo share the sets out, and the images are those of one process."""
    one = train(*SMALL, *words, f"outputs={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr
    two = train(*SMALL, *words, "trainer.devices=2", "trainer.strategy=ddp")
    assert two.returncode == 0, two.stderr
    assert np.abs(found_in(tmp_path / "one") - found_in(tmp_path / "outputs")).max() < 1e-6
    assert row_of(tmp_path / "one") == pytest.approx(row_of(tmp_path / "outputs"), rel=1e-4)
    assert (tmp_path / "one" / "journal.jsonl").read_text().count("done") == 1
