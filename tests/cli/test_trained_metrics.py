"""The real command trains a metric and leaves files that the real command reads."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from runs_here import request_of

from losslab.runs.attempt import attempt
from losslab.runs.journal import Journal
from losslab.runs.plan import make_plan

TINY = ["network=squeezenet1_1", "weights=random", "loss.layers=[relu1,fire2]", "data=known_order", "data.count=20",
        "data.train_count=32", "data.size=32", "data.batch_size=8", "trainer.max_epochs=2", "logger=csv",
        "trainer.accelerator=cpu"]  # fmt: skip
TRAINED = ["task=metric_training", *TINY, "loss.heads=none", "task.optimizer.lr=0.01"]


def row_of(outputs: Path) -> dict[str, Any]:
    """Give the only row of the only cell."""
    (entry,) = [one for one in Journal(outputs / "journal.jsonl").read() if one["state"] == "done"]
    (row,) = entry["rows"]
    assert entry["primary"] == row["score"]
    return {"cell": entry["cell"], **row, "seconds": None}


def test_metric_of_one_process_and_of_two(train: Run, tmp_path: Path) -> None:
    """The files of a cell are a metric that scores as its row says, and DDP over gloo trains the same one."""
    asked = [*TRAINED, "task.variant=scratch", "network.trainable=true", "task.sync=-1", "task.dropout=0"]
    attempt(make_plan(request_of(tmp_path / "outputs", "loss=lpips", *asked)))
    row, (folder,) = row_of(tmp_path / "outputs"), (tmp_path / "outputs" / "metrictraining").iterdir()
    assert {path.name for path in folder.glob("*.pth")} == {"heads.pth", "trunk.pth"}
    assert row["steps"] == 8
    with (folder / "metrics.csv").open() as file:
        assert [line["loss"] for line in csv.DictReader(file) if line.get("loss")]

    stored = ["weights=file", f"weights.path={folder / 'trunk.pth'}", "loss.heads=file",
              f"loss.heads_path={folder / 'heads.pth'}"]  # fmt: skip
    attempt(make_plan(request_of(tmp_path / "again", "task=two_afc", "loss=lpips", *TINY, *stored)))
    assert row_of(tmp_path / "again")["score"] == pytest.approx(row["score"])

    two = train(*asked, "trainer.devices=2", "trainer.strategy=ddp", f"outputs={tmp_path / 'two'}")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("starts:") == 1
    shared = row_of(tmp_path / "two")
    assert shared["cell"] == row["cell"]
    numbers = [{name: one for name, one in given.items() if isinstance(one, float)} for given in (shared, row)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)
    for name in ("heads.pth", "trunk.pth"):
        first, second = (torch.load(next(where.rglob(name)), weights_only=True) for where in (folder, tmp_path / "two"))
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=1e-4)
