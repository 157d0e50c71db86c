"""The real command, as a user gives it."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run, command, quiet

from losslab import images
from losslab.runs.journal import Journal

# A few batches of small things; what is tested is the command, not the result.
TINY = ["trainer=fast", "data.train_count=64", "data.val_count=4", "data.batch_size=16",
        "task.generator.widths=[16,16,16,16]", "task.code_size=8"]  # fmt: skip


def only_cell(outputs: Path) -> Path:
    (folder,) = (outputs / "glo").iterdir()
    return folder


def entries(outputs: Path) -> list[dict[str, Any]]:
    """Give the journal's lines of done cells."""
    journal = Journal(outputs / "journal.jsonl")
    return [entry for entry in journal.read() if entry["state"] == "done"]


@pytest.mark.parametrize("loss", ["mmdpp", "l1", "l2", "laplacian", "deep"])
def test_command_leaves_all_it_promises(train: Run, tmp_path: Path, loss: str) -> None:
    """Pictures, curve, numbers, config, versions, checkpoint, journal line, summary; nothing else, and exit code 0."""
    extra = ["loss.features=16"] if loss == "mmdpp" else ["layer=1"] if loss == "deep" else []
    done = train(f"loss={loss}", "task=glo", *TINY, *extra, "logger=csv", fresh=True)
    assert done.returncode == 0, done.stderr
    folder = only_cell(tmp_path / "outputs")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pictures = {"reconstructions", "samples", "interpolations", "loss_curve"}
    views = {f"reconstructions-step{step:06d}" for step in range(1, 5)}
    files = {"config.yaml", "provenance.json", "status.json", "log.txt", "metrics.csv", "checkpoints/last.ckpt"}
    assert found == files | {f"images/{name}.png" for name in pictures | views}
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    (attempt,) = json.loads((folder / "provenance.json").read_text())["attempts"]
    assert attempt["libraries"]["torch"]
    (entry,) = entries(tmp_path / "outputs")
    (row,) = entry["rows"]
    assert entry["axes"]["loss"] == loss
    assert row["steps"] == 4
    assert row["psnr_gain"] == pytest.approx(row["psnr"] - row["mean_colour_psnr"])
    assert row["warmup"] == (0.4 if loss == "mmdpp" else 0)
    assert entry["primary"] == row["psnr"]
    for name in pictures:
        assert str(folder / "images" / f"{name}.png") in done.stdout
        assert images.read(folder / "images" / f"{name}.png").float().std() > 1, f"{name} shows nothing"
    with (folder / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert {"step", "epoch", "psnr"} <= logged[0].keys()
    assert sum(bool(line.get("loss") or line.get("warmup")) for line in logged) == 4


def test_from_another_folder_and_again(train: Run, tmp_path: Path) -> None:
    """The place of the command does not matter, and a done cell is shown, not recomputed, unless force=true."""
    elsewhere = tmp_path / "a place with spaces"
    elsewhere.mkdir()
    first = train("loss=l2", *TINY, "logger=csv", cwd=elsewhere, fresh=True)
    assert first.returncode == 0, first.stderr
    assert list(elsewhere.iterdir()) == []
    before = (only_cell(tmp_path / "outputs") / "metrics.csv").stat().st_mtime_ns
    again = train("loss=l2", *TINY, "logger=tensorboard")
    assert again.returncode == 0
    assert "done before; force=true" in again.stdout
    assert (only_cell(tmp_path / "outputs") / "metrics.csv").stat().st_mtime_ns == before
    forced = train("loss=l2", *TINY, "logger=csv", "force=true")
    assert forced.returncode == 0
    one, two = entries(tmp_path / "outputs")
    assert one["cell"] == two["cell"]
    assert one["rows"] == two["rows"]  # bit for bit, on one machine


def test_outputs_default_to_the_checkout(tmp_path: Path) -> None:
    """Results don't scatter over the folders that commands are given in."""
    asked = [sys.executable, str(ROOT / "src" / "train.py"), "--cfg", "job", "--resolve"]
    shown = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True, env=quiet())
    assert f"outputs: {ROOT / 'outputs'}" in shown.stdout.replace("'", "")


@pytest.mark.parametrize(
    ("overrides", "message", "code"),
    [
        (["loss=mmdp"], "there is no loss=mmdp; did you mean mmdpp?", 2),
        (["task=gol"], "there is no task=gol; did you mean glo?", 2),
        (["network=resnet"], "there is no network=resnet; did you mean resnet50?", 2),
        (["los=l2"], "there is no key 'los'; did you mean loss?", 2),
        (["task.code_sise=3"], "there is no key 'task.code_sise'; did you mean task.code_size?", 2),
        (["loss=deep", "layer=relu9_1"], "unknown layer 'relu9_1' of vgg16; did you mean", 2),
        (["loss=l2", "loss.sigma=3"], "there is no key 'loss.sigma'; the choices are loss._target_", 2),
        (["loss=laplacian", "loss.level=2"], "there is no key 'loss.level'; did you mean loss.levels?", 2),
        (["-m", "loss=l2,mmdp"], "there is no loss=mmdp; did you mean mmdpp?", 2),
        (["+loss.foo=1"], "unexpected keyword argument 'foo'", 1),
        (["data.size=100"], "not of 100", 1),
        (["loss=l2", "trainer.accelerator=abacus"], "abacus", 1),
        (["data=folder", "data.root=~/photos"], "a value with special characters needs quotes", 2),
        (["data=folder"], "data.root", 2),
        (["data=folder", "data.root=EMPTY"], "holds no picture", 1),
        (["loss=l1", "data.batch_size=999"], "256 training images are fewer than data.batch_size=999", 1),
        (["loss=mmdpp", "data.size=16"], "mmdpp needs images of at least 32×32 pixels, got 16×16", 1),
        (["logger.mode=never"], "is one of online, offline, disabled", 1),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(train: Run, tmp_path: Path, overrides: list[str], message: str, code: int) -> None:
    """It names what is wrong and the nearest valid choice; what can be told early leaves no folder."""
    (tmp_path / "EMPTY").mkdir()
    failed = train(*(text.replace("EMPTY", str(tmp_path / "EMPTY")) for text in overrides), fresh=code == 2)
    assert failed.returncode == code
    assert message in failed.stderr
    assert failed.stderr.startswith("error: ") or failed.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in failed.stderr
    if code == 2:
        assert not (tmp_path / "outputs").exists()
        assert len(failed.stderr.splitlines()) == 1
    assert entries(tmp_path / "outputs") == []


def test_failure_is_recorded(train: Run, tmp_path: Path) -> None:
    """The cell's own folder says why it failed, with the traceback."""
    train("loss=mmdpp", "data.size=16", "logger=csv")
    folder = only_cell(tmp_path / "outputs")
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    assert "Traceback" in (folder / "log.txt").read_text()


LONG = ["loss=mmdpp", "loss.features=4", "loss.redraw_every=7", *TINY, "logger=csv", "checkpoint_seconds=0",
        "trainer.max_epochs=40", "trainer.limit_train_batches=1.0"]  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the results of a training that nobody has killed."""
    outputs = tmp_path_factory.mktemp("straight")
    done = subprocess.run(command(outputs, *LONG), env=quiet(), check=False, capture_output=True, timeout=300,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return outputs


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_training_goes_on(train: Run, straight: Path, tmp_path: Path, how: signal.Signals) -> None:
    """After a kill the same command continues from the last checkpoint, to the same numbers bit for bit."""
    outputs = tmp_path / "outputs"
    process = subprocess.Popen(command(outputs, *LONG), env=quiet(), stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                               stdin=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    # Kill it after the warm-up's end (step 64 of 160) and before its own: many checkpoints on both sides.
    while not list(outputs.glob("glo/*/images/reconstructions-step000096.png")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert entries(outputs) == [], "it was done before the kill came: make it longer"
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert json.loads((only_cell(outputs) / "status.json").read_text())["state"] == "interrupted"
    resumed = train(*LONG)
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on from its last checkpoint" in resumed.stdout
    assert "step 16/160" not in resumed.stderr  # it did not start anew
    (one,), (two,) = entries(outputs), entries(straight)
    assert one["rows"] == two["rows"]
    assert len(json.loads((only_cell(outputs) / "provenance.json").read_text())["attempts"]) == 2
    assert (only_cell(outputs) / "metrics.csv").read_text() == (only_cell(straight) / "metrics.csv").read_text()
    assert not list(outputs.rglob("*.part"))


def test_other_code_is_told(train: Run, tmp_path: Path) -> None:
    """A done cell of other code is shown and marked; an interrupted one is gone on from only if nothing changed."""
    outputs = tmp_path / "outputs"
    assert train("loss=l2", *TINY, "logger=csv").returncode == 0
    journal, status = outputs / "journal.jsonl", only_cell(outputs) / "status.json"
    (entry,) = entries(outputs)
    journal.unlink()
    Journal(journal).append({**entry, "code": "other"})
    shown = train("loss=l2", *TINY, "logger=csv")
    assert "done before, by other code" in shown.stdout
    journal.unlink()
    status.write_text(json.dumps({"state": "interrupted", "code": "other"}))
    refused = train("loss=l2", *TINY, "logger=csv")
    assert refused.returncode == 1
    assert "it was left unfinished under other code: on_drift=continue goes on with it" in refused.stderr
    anew = train("loss=l2", *TINY, "logger=csv", "force=true")
    assert anew.returncode == 0
    assert "starts:" in anew.stdout


def test_two_processes_train_as_one(train: Run, tmp_path: Path) -> None:
    """DDP over gloo: one folder, one journal line, each image scored once, and the global batch is shared out."""
    asked = ["loss=l2", *TINY, "logger=csv", "trainer.accelerator=cpu"]
    two = train(*asked, "trainer.devices=2", "trainer.strategy=ddp", fresh=True)
    assert two.returncode == 0, two.stderr
    one = train(*asked, f"outputs={tmp_path / 'one'}")
    (shared,), (alone,) = entries(tmp_path / "outputs"), entries(tmp_path / "one")
    assert shared["cell"] == alone["cell"]  # devices at a fixed global batch change no number
    assert shared["rows"][0]["steps"] == alone["rows"][0]["steps"] == 4
    # Batch norm sees 8 images a process instead of 16, hence not the same bits; the baseline has none.
    assert shared["rows"][0]["mean_colour_psnr"] == pytest.approx(alone["rows"][0]["mean_colour_psnr"], rel=1e-5)
    assert shared["rows"][0]["psnr"] == pytest.approx(alone["rows"][0]["psnr"], abs=2)
    assert one.stdout.count("starts:") == two.stdout.count("starts:") == 1


def test_wandb_offline_by_default(tmp_path: Path) -> None:
    """A run with pictures in it, without an account, and a stored key changes nothing."""
    outputs = tmp_path / "outputs"
    done = subprocess.run(command(outputs, "loss=l2", *TINY), env={**quiet(), "WANDB_API_KEY": "0" * 40}, check=False,
                          capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (only_cell(tmp_path / "outputs") / "wandb").glob("offline-run-*")
    pictures = list(run.glob("files/media/images/reconstructions*.png"))
    assert len(pictures) == 5
    assert all(images.read(picture).float().std() > 1 for picture in pictures)


def test_tensorboard_gets_numbers_and_pictures(train: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("loss=l2", *TINY, "logger=tensorboard").returncode == 0
    events = EventAccumulator(str(only_cell(tmp_path / "outputs") / "tensorboard"))
    events.Reload()
    assert {"loss", "psnr"} <= set(events.Tags()["scalars"])
    assert {"reconstructions", "samples", "interpolations"} <= set(events.Tags()["images"])


def test_help_is_quick(tmp_path: Path) -> None:
    """--help shows the groups and imports no torch."""
    asked = [sys.executable, "-X", "importtime", str(ROOT / "src" / "train.py"), "--help"]
    shown = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "mmdpp" in shown.stdout
    assert " torch\n" not in shown.stderr
    assert list(tmp_path.iterdir()) == []
