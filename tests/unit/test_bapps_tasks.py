"""From archives on a server to scores: a tree that is shaped like BAPPS goes through every task that is for it."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from bapps_tree import Site, make_tree, packed, serving

from losslab.config import build, load, plain
from losslab.data import bapps

SMALL = ["data.size=32", "data.batch_size=4", "data.download=true"]

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode")


def run(folder: Path, site: Site, *words: str) -> Any:
    """Take a task through its stages with the real configs, the data from the local server."""
    place = [f"data.root={folder / 'bapps'}", f"data.mirrors=[{site.url}/dataset]", f"data.cache={folder / 'cache'}"]
    settings = plain(load(*words, *SMALL, *place))
    pl.seed_everything(0, verbose=False)
    task = build(settings["task"], loss=build(settings["loss"]))
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)  # fmt: skip
    data = build(settings["data"])
    for stage in task.stages:
        getattr(trainer, stage)(task, datamodule=data)
    return task


@pytest.mark.parametrize("kind", ["tar", "gzip"])
def test_download_check_judge_and_train(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each archive is fetched when it is needed; L2 finds all that the tree's people said; heads learn from it."""
    monkeypatch.setenv("LOSSLAB_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tree = make_tree(tmp_path / "tree", count=6, side=32)
    with serving(Site()) as site:
        for name, folder in (("VAL", "2afc/val"), ("TRAIN", "2afc/train"), ("JND", "jnd/val")):
            content, part = packed(tree, folder, kind), getattr(bapps, name)
            site.files[f"/dataset/{part.name}.tar.gz"] = content
            monkeypatch.setattr(bapps, name, dataclasses.replace(part, sha256=hashlib.sha256(content).hexdigest()))
        (row,) = run(tmp_path, site, "task=two_afc", "data=bapps", "loss=l2", "task.samples=20").rows()
        assert row["accuracy"] == 1
        assert row["score"] == pytest.approx(row["oracle"])
        names = ("traditional", "cnn", "superres", "deblur", "color", "frameinterp", "distortions", "real", "pooled")
        assert {f"{what}/{name}" for what in ("score", "human", "oracle") for name in names} <= row.keys()
        (row,) = run(tmp_path, site, "task=jnd", "data=bapps_jnd", "loss=l2", "task.samples=20").rows()
        assert row["score"] > row["chance"]
        assert {"score/traditional", "score/cnn", "score/pooled"} <= row.keys()
        learnt = ["task=metric_training", "data=bapps_train", "network=alexnet", "weights=random"]
        (row,) = run(tmp_path, site, *learnt, "loss.layers=[relu1,relu2]").rows()
        assert 0 < row["train_loss"] < 2
        assert 0.5 < row["score"] <= 1
    assert [path for path, _ in site.asked] == [
        f"/dataset/{name}.tar.gz" for name in ("twoafc_val", "jnd", "twoafc_train")
    ]
