"""Identity, journal and metrics: what a run knows itself by, and what it leaves behind."""

import copy
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losslab.config import build, load, plain
from losslab.files import write_json
from losslab.runs import tracking
from losslab.runs.cell import NOT_COUNTED, identify
from losslab.runs.command import sentence
from losslab.runs.journal import Journal
from losslab.runs.metrics import MetricsFile
from losslab.runs.run import _logged


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, inner in node.items():
            if key != "properties":
                yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path


def changed(settings: dict[str, Any], path: str) -> dict[str, Any]:
    other = copy.deepcopy(settings)
    *parents, last = path.split(".")
    node = other
    for key in parents:
        node = node[key]
    node[last] = f"other than {node[last]}"
    return other


@pytest.mark.parametrize(
    "overrides", [[], ["loss=deep"], ["data=folder", "data.root=x"]], ids=["mmdpp", "deep", "folder"]
)
def test_every_key_counts_or_is_listed(overrides: list[str]) -> None:
    """A key that changes numbers and not the id would show one cell's results as another's."""
    settings = plain(load(*overrides))
    own = identify(settings, "content").id
    for path in leaves(settings):
        part = path.split(".")[0]
        # A group outside COUNTED acts through the copies of its values inside.
        unread = part in ("network", "weights", "compare", "layer", "logger", "outputs", "force", "checkpoint_seconds")
        if not path.endswith("_target_"):
            same = identify(changed(settings, path), "content").id == own
            assert same == (path in NOT_COUNTED or unread), path
    assert identify(settings, "other content").id != own


def test_unused_axes_make_no_new_cells() -> None:
    """network, weights, layer and compare count where the loss has a network, and nowhere else."""

    def cell(*overrides: str) -> str:
        return identify(plain(load(*overrides)), "content").id

    assert cell("loss=l2", "layer=1") == cell("loss=l2", "layer=2", "compare.norm=l2")
    assert cell("loss=deep", "layer=1") != cell("loss=deep", "layer=2")


def test_numbers_that_mean_the_same_are_one_cell() -> None:
    """1 is 1.0, but for Lightning's limits, where 1 is a batch and 1.0 is all of them."""

    def cell(*overrides: str) -> str:
        return identify(plain(load(*overrides)), "").id

    assert cell("task.warmup=1") == cell("task.warmup=1.0")
    assert cell("trainer.limit_train_batches=1") != cell("trainer.limit_train_batches=1.0")


def test_two_names_of_one_layer_are_one_cell() -> None:
    cells = [identify(plain(load("loss=deep", f"layer={layer}")), "") for layer in ("2", "relu2_2", "features.8")]
    assert len({cell.id for cell in cells}) == 1
    assert cells[0].label == "deep-vgg16-relu2_2-seed0"


def test_label_is_safe_as_a_folder_name() -> None:
    settings = plain(load())
    settings["seed"] = "../../\n😀" + "x" * 300
    cell = identify(settings, "")
    assert "/" not in cell.label
    assert cell.label.isascii()
    assert len(cell.label) <= 60
    assert cell.folder.parent.parent == cell.outputs


def test_folder_is_found_by_id(tmp_path: Path) -> None:
    cell = identify({**plain(load()), "outputs": str(tmp_path)}, "")
    renamed = tmp_path / "glo" / f"an-older-label-{cell.id}"
    renamed.mkdir(parents=True)
    assert cell.folder == renamed


def test_journal_keeps_lines_around_a_torn_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.last("a") is None
    journal.append({"cell": "a", "primary": 1.0})
    with journal.path.open("a") as file:
        file.write('{"cell": "b", "prim')  # the power went off here
    journal.append({"cell": "a", "primary": 2.0})
    assert [entry["cell"] for entry in journal.entries()] == ["a", "a"]
    assert journal.last("a") == {"cell": "a", "primary": 2.0}
    assert journal.last("b") is None


def test_journal_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Journal(tmp_path / "j").append({"primary": float("nan")})
    assert not (tmp_path / "j").exists()


def _append(path: Path, writer: int) -> None:
    for number in range(50):
        Journal(path).append({"cell": f"{writer}-{number}", "text": "x" * 5000})


def test_journal_takes_many_writers(tmp_path: Path) -> None:
    """Four processes leave 200 whole lines."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(tmp_path / "j", writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({entry["cell"] for entry in Journal(tmp_path / "j").entries()}) == 200


def test_metrics_survive_a_resume(tmp_path: Path) -> None:
    """Rows after the checkpoint are written again, earlier ones are kept, new columns find room."""
    first = MetricsFile(tmp_path / "metrics.csv")
    for step in range(4):
        first.log_metrics({"epoch": 0, "loss": step / 2}, step)
    first.save()
    second = MetricsFile(tmp_path / "metrics.csv")
    second.rewind(1)
    second.log_metrics({"epoch": 1, "loss/mmd": 9.0}, 2)
    second.finalize("success")
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,loss,loss/mmd\n0,0.0,0.0,\n1,0.0,0.5,\n2,1.0,,9.0\n"
    second.draw_curve(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_json_files_are_whole_or_absent(tmp_path: Path) -> None:
    """A content that can't be written leaves the old file."""
    write_json(tmp_path / "status.json", {"state": "running"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "status.json", {"state": object()})
    assert json.loads((tmp_path / "status.json").read_text()) == {"state": "running"}


def test_log_is_the_cells_own(tmp_path: Path) -> None:
    """Each cell logs into its own file, and leaves no handler behind."""
    import logging

    before = logging.getLogger().handlers[:]
    for name in ("one", "two"):
        with _logged(tmp_path / name):
            logging.getLogger("pytorch_lightning").info("from %s", name)
    assert logging.getLogger().handlers == before
    assert "from one" in (tmp_path / "one").read_text()
    assert "one" not in (tmp_path / "two").read_text()


def test_targets_of_strangers_are_refused() -> None:
    """A config can't run code of its choice, however deep it hides."""
    for target in ("os.system", "builtins.eval", "torch.load", "losslabevil.run"):
        with pytest.raises(ValueError, match=f"{target}.*is refused"):
            build({"_target_": "losslab.losses.pixel.L1", "inner": [{"_target_": target}]})
    with pytest.raises(ValueError, match=r"losslab.losses.pixel has no 'L3'"):
        build({"_target_": "losslab.losses.pixel.L3"})
    with pytest.raises(ValueError, match="can't be imported"):
        build({"_target_": "losslab.losses.pixl.L1"})


def test_wandb_never_waits_or_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline by default, whatever is stored; online without a key is one sentence and no prompt."""
    import wandb

    def mode() -> str:
        return str(plain(load())["logger"]["mode"])

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode() == "online"
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    settings = {**plain(load()), "outputs": str(tmp_path)}
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    with pytest.raises(ValueError, match="needs a W&B key"):
        tracking.mirrors(settings, identify(settings, ""))
    settings["logger"]["mode"] = "sometimes"
    with pytest.raises(ValueError, match="is one of online, offline, disabled, got 'sometimes'"):
        tracking.mirrors(settings, identify(settings, ""))
    settings["logger"] = {"name": "mlflow"}
    with pytest.raises(ValueError, match="wandb, tensorboard or csv, got 'mlflow'"):
        tracking.mirrors(settings, identify(settings, ""))


def test_sentence_unwraps_key_errors() -> None:
    assert sentence(KeyError("unknown layer 'x'")) == "unknown layer 'x'"
    assert sentence(ValueError("two\nlines")) == "two lines"
