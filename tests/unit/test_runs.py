"""Identity, journal and metrics: what a run knows itself by, and what it leaves behind."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException

from losslab.config import build, load, plain
from losslab.files import write_json
from losslab.runs import summary, tracking
from losslab.runs.cell import ADDED, NOT_COUNTED, NOT_COUNTED_AT_THE_END, identify
from losslab.runs.logs import logged
from losslab.runs.metrics import MetricsFile
from losslab.runs.plan import Plan, Request
from losslab.runs.sentences import inner, sentence

NO_NUMBERS = ("network", "weights", "compare", "layer", "normalize", "precision", "draws", "redraw_every", "logger",
              "outputs", "force", "checkpoint_seconds", "stale_seconds", "on_drift", "on_error", "retries",
              "measures")  # fmt: skip
"""Keys outside the subtrees that count: they say how a cell is run, or act through interpolation."""


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
        unread = part in NO_NUMBERS
        if not path.endswith("_target_"):
            same = identify(changed(settings, path), "content").id == own
            listed = path in NOT_COUNTED or any(f"{end}." in f"{path}." for end in NOT_COUNTED_AT_THE_END)
            assert same == (listed or unread), path
    assert identify(settings, "other content").id != own


def test_unused_axes_make_no_new_cells() -> None:
    """network, weights, layer and compare count where the loss has a network, and nowhere else."""

    def cell(*overrides: str) -> str:
        return identify(plain(load(*overrides)), "content").id

    assert cell("loss=l2", "layer=1") == cell("loss=l2", "layer=2", "compare.norm=l2", "normalize=false")
    assert cell("loss=deep", "layer=1") != cell("loss=deep", "layer=2")
    assert cell("loss=deep") == cell("loss=deep", "normalize=false")
    assert cell("loss=deep", "compare=sort") != cell("loss=deep", "compare=sort", "normalize=false")
    assert cell("loss=deep") != cell("loss=deep", "precision=bf16")


def test_weights_count_by_content(tmp_path: Path) -> None:
    """A file of weights may lie anywhere; what is in it makes the cell."""
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(content)
    ids = [
        identify(plain(load("loss=deep", "weights=file", f"weights.path={tmp_path / name}")), "").id for name in "abc"
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_panel_is_a_cell() -> None:
    """Its layers are told apart by commas, and a single layer may be given without brackets."""
    cell = identify(plain(load("loss=deep", "layer=[[1,2],[relu3_3]]", "compare=each")), "", {"compare": "each"})
    assert cell.axes["layers"] == "relu1_2+relu2_2,relu3_3"
    assert cell.axes["compare"] == "each"
    assert identify(plain(load("loss=scnn", "loss.layers=conv1")), "").axes["layers"] == "conv1"


def test_settings_of_a_network_are_named() -> None:
    """Cells that differ in a number of their network alone can be told apart; a loss without one says nothing of it."""
    words = ("network=cnn_kernel", "network.architecture.kernels=[5]", "task=gim")
    cell = identify(plain(load("loss=deep", *words)), "", {}, words)
    assert cell.axes["network.architecture.kernels"] == "[5]"
    assert "kernels_5" in cell.label
    assert "network.architecture.kernels" not in identify(plain(load("loss=l2", *words)), "", {}, words).axes


def test_numbers_that_mean_the_same_are_one_cell() -> None:
    """1 is 1.0, but for Lightning's limits, where 1 is a batch and 1.0 is all of them."""

    def cell(*overrides: str) -> str:
        return identify(plain(load(*overrides)), "").id

    assert cell("task.warmup=1") == cell("task.warmup=1.0")
    assert cell("trainer.limit_train_batches=1") != cell("trainer.limit_train_batches=1.0")
    assert cell("+trainer.overfit_batches=1") != cell("+trainer.overfit_batches=1.0")
    assert cell("trainer.precision=32") == cell("trainer.precision=32-true") != cell("trainer.precision=bf16")
    assert cell("+trainer.accumulate_grad_batches=1", "+trainer.num_nodes=1") == cell()


def test_two_names_of_one_layer_are_one_cell() -> None:
    cells = [identify(plain(load("loss=deep", f"layer={layer}")), "") for layer in ("2", "relu2_2", "features.8")]
    assert len({cell.id for cell in cells}) == 1
    assert cells[0].label == "deep-vgg16-relu2_2-seed0"


@pytest.mark.parametrize("text", ["../../x", "a/b", "two\nlines", "😀", "x" * 300, "..", "-rf", "a=b"])
def test_label_is_safe_as_a_folder_name(text: str) -> None:
    """R15: whatever a name holds, the folder lies in its place, and names change no id."""
    settings = plain(load())
    cell = identify(settings, "", {"loss": text}, [f"loss.note={text}"])
    assert cell.id == identify(settings, "").id
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,59}", cell.label)
    assert cell.folder.parent == cell.outputs / "glo"


def test_axes_are_what_the_command_sets() -> None:
    """Cells that differ in one argument are told apart in tables and folders."""
    words = ["loss=laplacian", "loss.levels=4", "trainer=fast", "logger=csv"]
    cell = identify(plain(load(*words)), "", {"loss": "laplacian", "trainer": "fast"}, words)
    assert cell.axes == {"task": "glo", "loss": "laplacian", "data": "photos", "trainer": "fast", "seed": 0,
                         "loss.levels": 4}  # fmt: skip
    assert cell.label == "laplacian-levels4-seed0"
    words = ["loss=l2", "penalty=total_variation"]
    cell = identify(plain(load(*words)), "", {"loss": "l2", "penalty": "total_variation"}, words)
    assert cell.axes["penalty"] == "total_variation"
    assert cell.label == "l2-total_variation-seed0"


def test_keys_added_later_leave_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key with its documented default is what older cells had without knowing."""
    settings = plain(load("loss=l2"))
    before = identify(settings, "").id
    settings["task"]["new"] = 3
    assert identify(settings, "").id != before
    monkeypatch.setitem(ADDED, "task.new", 3)
    assert identify(settings, "").id == before
    settings["task"]["new"] = 4
    assert identify(settings, "").id != before


def test_folder_is_found_by_id(tmp_path: Path) -> None:
    cell = identify({**plain(load()), "outputs": str(tmp_path)}, "")
    renamed = tmp_path / "glo" / f"an-older-label-{cell.id}"
    renamed.mkdir(parents=True)
    assert cell.folder == renamed


def test_metrics_survive_a_resume(tmp_path: Path) -> None:
    """Rows after the checkpoint are written again, earlier ones are kept, new columns find room."""
    first = MetricsFile(tmp_path / "metrics.csv")
    for step in range(4):
        first.log_metrics({"epoch": 0, "loss": step / 2}, step)
    first.save()
    assert not first.path.exists(), "Lightning saves at every logged step, which must not write at every step"
    first.write()
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
        with logged(tmp_path / name):
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


def plan_of(settings: dict[str, Any]) -> Plan:
    return Plan(identify(settings, ""), Request(settings))


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
        tracking.mirrors(plan_of(settings), tmp_path)
    settings["logger"]["mode"] = "sometimes"
    with pytest.raises(ValueError, match="is one of online, offline, disabled, got 'sometimes'"):
        tracking.mirrors(plan_of(settings), tmp_path)
    settings["logger"] = {"name": "mlflow"}
    with pytest.raises(ValueError, match="wandb, tensorboard or csv, got 'mlflow'"):
        tracking.mirrors(plan_of(settings), tmp_path)


def test_sentence_unwraps_key_errors() -> None:
    assert sentence(KeyError("unknown layer 'x'")) == "unknown layer 'x'"
    assert sentence(ValueError("two\nlines")) == "two lines"


def test_sentence_of_what_hydra_wraps() -> None:
    """A reason begins with what a target said, whatever was wrapped around it and however often."""
    with pytest.raises(InstantiationException) as caught:
        build({"_target_": "losslab.losses.patch.PatchRBF", "sigma": -1.0})
    assert sentence(caught.value) == "stride, sigma and eps are more than 0, got 1, -1.0 and 0.01"
    outer = InstantiationException("Error in call to target")
    outer.__cause__ = caught.value
    assert isinstance(inner(outer), ValueError)
    assert sentence(outer) == sentence(caught.value)
    alone = InstantiationException("no cause")
    assert inner(alone) is alone


def test_tables_are_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A file or a pipe gets a row a line, however many columns there are."""
    scores = {f"a_score_with_a_long_name_{number}": number / 7 for number in range(20)}
    entry = {"axes": {"loss": "l2"}, "rows": [scores], "state": "done", "seconds": 1.5}
    summary.say(summary.cells_table("sweep", [entry, entry]))
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if "done" in line]) == 2
    assert all(name in next(line for line in printed if "state" in line) for name in scores)
    assert len(printed) == 1 + 3 + 2 + 1  # title, head, rows, end


def test_one_reason_of_many_cells_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing data set is told once with the number of cells and their words; another reason by itself."""
    errors = {"loss=l1": "no data", "loss=l2": "no data", "loss=l3": "no loss"}
    bad = [(Request({}, overrides=(words,)), ValueError(error)) for words, error in errors.items()]
    summary.show_sweep("a", [], bad)
    printed = capsys.readouterr().out
    assert printed.count("no data") == 1
    assert "failed  2 cells: no data\n  loss=l1\n  loss=l2\nfailed  loss=l3: no loss\n3 failed of 3 cells" in printed
