"""Full disks, read-only folders, changed code, strangers' configs: one sentence, and nothing is lost."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from runs_here import asked, request_of, results, run_command, scores, states, surroundings, sweep_here

from losslab import files
from losslab.config import build
from losslab.runs import journal as journal_module
from losslab.runs import logs, provenance
from losslab.runs.command import UsageError, codes, run_sweep
from losslab.runs.crews import OneByOne

pytestmark = pytest.mark.usefixtures("trusted")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_for(ending: str) -> Callable[..., None]:
    """Make a write_bytes that finds the disk full for one kind of file."""
    whole = files.write_bytes

    def write(path: Path, content: bytes) -> None:
        if path.name.endswith(ending) and "standin" in str(path):
            full()
        whole(path, content)

    return write


def fill(monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    """Let the disk be full at one place where a cell writes."""
    if site == "checkpoint":
        monkeypatch.setattr(torch, "save", full)
    elif site == "journal":
        monkeypatch.setattr(journal_module, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
    elif site == "log":
        monkeypatch.setattr(logs._CellLog, "emit", _emit_full)
    else:
        write = fails_for({"config": "config.yaml", "status": "status.json", "metrics": ".csv", "image": "s.png"}[site])
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("losslab") and hasattr(module, "write_bytes"):
                monkeypatch.setattr(module, "write_bytes", write)


def _emit_full(handler: logs._CellLog, record: Any) -> None:
    try:
        full()
    except OSError:
        handler.handleError(record)


@pytest.mark.parametrize("site", ["config", "status", "metrics", "checkpoint", "image", "log", "journal"])
def test_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], site: str) -> None:
    """R16: the cell failed for want of space, the sweep stops with one sentence, and goes on when there is some."""
    sweep_here(tmp_path, "seed=9")  # the sweep's own files are there already
    request = ["seed=9", "seed=0", "seed=1"]
    with pytest.MonkeyPatch.context() as patch:
        sweep_here_planned(tmp_path, *request)
        fill(patch, site)
        sweep_here(tmp_path, *request)
    shown = capsys.readouterr()
    assert "no space left" in shown.out
    assert "1 planned, 1 done, 1 failed of 3 cells" in shown.out
    assert "the sweep stopped: no space left on the disk of" in shown.err
    assert results(tmp_path).complaint() is None
    assert not list(tmp_path.rglob("*.part"))
    assert list(scores(tmp_path)) == list(scores(tmp_path))[:1]
    sweep_here(tmp_path, *request)
    sweep_here(tmp_path / "straight", *request)
    assert scores(tmp_path) == scores(tmp_path / "straight")
    assert codes == []


def sweep_here_planned(outputs: Path, *cells: str) -> None:
    """Write a sweep's manifest and its line in the journal, before the disk is full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losslab.runs.sweep.Sweep.run", lambda self: [])
        sweep_here(outputs, *cells)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT])
def test_outputs_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """R17: a read-only folder, too many open files or a quota is told before any training."""
    whole = os.open

    def refuse(path: Any, flags: int, *more: Any, **words: Any) -> int:
        if str(tmp_path) in str(path) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, flags, *more, **words)

    monkeypatch.setattr(
        Path, "mkdir", lambda self, **_: refuse(self, os.O_WRONLY) if str(tmp_path) in str(self) else None
    )
    with pytest.raises(UsageError, match="can't write into outputs=.*: " + os.strerror(number)):
        sweep_here(tmp_path, "seed=0", "seed=1")
    assert "step" not in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may write everywhere")
@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["single", "sweep"])
def test_read_only_outputs_as_a_user(tmp_path: Path, words: list[str]) -> None:
    """R17: as a user without rights, the command says so in one sentence and computes nothing."""
    outputs = tmp_path / "outputs"
    outputs.mkdir(mode=0o555)
    program = asked(outputs, *words)
    if os.geteuid() == 0:
        program = [
            "/usr/bin/setpriv",
            "--reuid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
            *program,
        ]
    done = subprocess.run(program, env={**surroundings(), "HOME": "/tmp"}, capture_output=True, text=True, check=False,
                          timeout=120)  # fmt: skip
    if "Permission denied" in done.stderr and "losslab" not in done.stderr and "python" in done.stderr:
        pytest.skip(f"this user can't even start Python: {done.stderr[-200:]}")
    assert done.returncode in (1, 2)
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert "step" not in done.stderr


def changed(monkeypatch: pytest.MonkeyPatch, what: str) -> str:
    """Pretend that code or torch changed since; give what is said of it."""
    if what == "code":
        for module in ("states", "manifest"):
            monkeypatch.setattr(f"losslab.runs.{module}.code_hash", lambda: "0123456789abcdef")
        return "other code"
    new = {**provenance.libraries(), "torch": "9.9"}
    for module in ("states", "manifest"):
        monkeypatch.setattr(f"losslab.runs.{module}.libraries", lambda: new)
    return f"torch {torch.__version__.split('+')[0]} then, 9.9 now"


@pytest.mark.parametrize("what", ["code", "libraries"])
def test_drift_is_told_per_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """R36: done cells are shown and marked, an unfinished one is not gone on with unless that is asked for."""
    cells = ["seed=0", "seed=1 task.harm=fail_once task.at=8 checkpoint_seconds=0", "seed=2"]
    sweep_here(tmp_path, *cells)
    capsys.readouterr()
    said = changed(monkeypatch, what)
    sweep_here(tmp_path, *cells)
    shown = capsys.readouterr().out
    assert [line.count(said) for line in shown.splitlines() if line.startswith(("done", "interrupted"))] == [1, 1, 1]
    assert (
        f"it was left unfinished under {said}: on_drift=continue goes on with it, on_drift=restart begins anew" in shown
    )
    assert "2 done, 1 interrupted of 3 cells; 2 of them were there before" in shown
    assert codes == [1]
    lines = (tmp_path / "journal.jsonl").read_text()
    sweep_here(tmp_path, *(f"{cell} on_drift=refuse" for cell in cells))
    assert (tmp_path / "journal.jsonl").read_text() == lines
    sweep_here(tmp_path, *(f"{cell} on_drift=continue" for cell in cells))
    assert "goes on from its last checkpoint" in capsys.readouterr().out
    assert codes == []


def test_restart_after_drift_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R36: on_drift=restart leaves no step of the old code in the result."""
    cell = "task.harm=fail_once task.at=8 checkpoint_seconds=0"
    sweep_here(tmp_path, cell)
    changed(monkeypatch, "code")
    sweep_here(tmp_path, f"{cell} on_drift=restart")
    (path,) = tmp_path.glob("standin/*/provenance.json")
    assert [attempt["resumed"] for attempt in json.loads(path.read_text())["attempts"]] == [False, False]
    assert list(states(tmp_path).values()) == ["done"]


def test_diverged_is_a_result_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R20: the same code would diverge again, so it is shown; other code or force=true tries."""
    sweep_here(tmp_path, "task.harm=nan_loss")
    capsys.readouterr()
    sweep_here(tmp_path, "task.harm=nan_loss")
    assert "starts" not in capsys.readouterr().out
    sweep_here(tmp_path, "task.harm=nan_loss force=true")
    assert "starts" in capsys.readouterr().out
    changed(monkeypatch, "code")
    sweep_here(tmp_path, "task.harm=nan_loss")
    assert "starts" in capsys.readouterr().out


def test_config_edited_between_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R36: the same words that now mean another cell are told, with the key; the old result stays."""
    sweep_here(tmp_path, "seed=0", "seed=1")
    requests = [request_of(tmp_path, f"seed={seed}") for seed in (0, 1)]
    for request in requests:
        request.settings["trainer"]["max_epochs"] = 5
    capsys.readouterr()
    run_sweep(requests, lambda _: OneByOne())
    shown = capsys.readouterr().out
    assert shown.count("config changed since") == 2
    assert "trainer.max_epochs 4 → 5; a new cell, the one before is" in shown
    assert len(scores(tmp_path)) == 4
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert [path.name for path in sorted(folder.iterdir())] == ["manifest-001.json", "manifest-002.json"]
    frozen = json.loads((folder / "manifest-001.json").read_text())
    assert [cell["settings"]["trainer"]["max_epochs"] for cell in frozen["cells"]] == [4, 4]
    assert frozen["code"] == provenance.code_hash()


def test_conf_edited_during_a_sweep(tmp_path: Path) -> None:
    """Pain 5: cells that have not begun are computed with the config of the sweep's start."""
    conf = tmp_path / "conf" / "task"
    conf.mkdir(parents=True)
    text = (Path(__file__).parent / "conf" / "task" / "stand_in.yaml").read_text()
    (conf / "mine.yaml").write_text(text.replace("step_seconds: 0.0", "step_seconds: 0.05"))
    program = asked(
        tmp_path / "outputs", "-m", "hydra.searchpath=[file://" + str(conf.parent) + "]", "seed=0,1", "task=mine"
    )
    process = subprocess.Popen(program, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("outputs/standin/*/status.json")):
        time.sleep(0.02)
        assert process.poll() is None
    (conf / "mine.yaml").write_text("_target_: nothing.Sensible\n")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert len(scores(tmp_path / "outputs")) == 2


def test_two_spellings_are_one_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Configs that mean the same are computed once and shown once."""
    sweep_here(tmp_path, "seed=0", "seed=0 task.step_seconds=0", "seed=0 layer=2")
    assert "1 done of 1 cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch PWNED"},
        {"_target_": "stand_ins.Numbers", "_partial_": True, "inner": {"_target_": "builtins.eval", "_args_": ["1"]}},
        {"_target_": "losslab.config.importlib.import_module", "name": "os"},
        {"_target_": "torch.load"},
        {"_target_": "stand_inside.x"},
    ],
)
def test_strangers_configs_run_nothing(node: dict[str, Any]) -> None:
    """R14: targets come from a list of prefixes, however deep and partial they are."""
    with pytest.raises(ValueError, match=r"refused|does not exist|can't be imported"):
        build(node)


def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    """R14: a YAML file that asks Python for an object is refused."""
    group = tmp_path / "conf" / "task"
    group.mkdir(parents=True)
    mark = tmp_path / "mark"
    (group / "evil.yaml").write_text(f"x: !!python/object/apply:os.system ['touch {mark}']\n")
    program = asked(tmp_path / "outputs", "task=evil", f"hydra.searchpath=[file://{group.parent}]")
    done = subprocess.run(program, env=surroundings(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert not mark.exists()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load((group / "evil.yaml").read_text())


def test_trust_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: only the environment adds prefixes; without it the stand-ins are strangers."""
    node = {"_target_": "stand_ins.Numbers", "count": 1, "value": 0, "batch_size": 1, "seed": 0}
    build(node)
    monkeypatch.delenv("LOSSLAB_TRUST")
    with pytest.raises(ValueError, match=r"is refused: .* LOSSLAB_TRUST"):
        build(node)


def test_secrets_are_written_nowhere(tmp_path: Path) -> None:
    """R14: what a config takes from a variable that names a key is masked in every file."""
    secret = "s3cret-abcdef-0123"
    done = run_command(tmp_path, "+logger.note=${oc.env:SERVICE_TOKEN}", "+logger.api_key=anotherone",
                       "task.harm=fail", SERVICE_TOKEN=secret)  # fmt: skip
    assert done.returncode == 1
    swept = run_command(tmp_path, "-m", "seed=0,1", "task.harm=${oc.env:SERVICE_TOKEN}", "+logger.api_key=anotherone",
                        SERVICE_TOKEN=secret)  # fmt: skip
    assert swept.returncode == 0
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) > 12
    for hidden in (secret, "anotherone"):
        for path in found:
            assert hidden not in str(path)
            assert hidden.encode() not in path.read_bytes(), path
        assert hidden not in done.stdout + done.stderr + swept.stdout + swept.stderr
    (config,) = tmp_path.glob("standin/l2-harmfail-*/config.yaml")
    assert "note: '***'" in config.read_text()
    assert "api_key: '***'" in config.read_text()


def test_devices_in_a_multirun_are_refused(tmp_path: Path) -> None:
    """R30: several devices in a cell of a sweep would begin the sweep again; the sentence has the command to use."""
    for words in (["trainer.devices=2"], ["trainer.devices=2", "hydra/launcher=parallel"], ["trainer.devices=auto"]):
        started = time.monotonic()
        refused = run_command(tmp_path, "-m", "seed=0,1", *words)
        took = time.monotonic() - started
        assert refused.returncode == 2
        assert "a cell of a multirun has one device" in refused.stderr
        assert "use python src/train.py" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert took < 10, "torch must not be imported for this; typical is 0.8 s"
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["on_error=ignore"], "on_error is continue or stop, got 'ignore'"),
        (["on_drift=accept"], "on_drift is refuse, continue or restart, got 'accept'"),
        (["retries=-1"], "retries is a whole number from 0, got -1"),
        (["-m", "hydra/launcher=parallel", "hydra.launcher.n_jobs=0", "seed=0,1"], "n_jobs is a number of cells"),
        (["-m", "hydra.sweeper.max_batch_size=1", "seed=0,1"], "leave hydra.sweeper.max_batch_size out"),
        (["-m", "hydra/launcher=paralel", "seed=0,1"], "there is no hydra/launcher=paralel; did you mean parallel?"),
        (["-m", "seed=0,1", "on_eror=stop"], "there is no key 'on_eror'; did you mean on_error?"),
        (["-m", "loss=deep", "layer=2,relu9_1", "task=glo"], "unknown layer 'relu9_1' of vgg16"),
    ],
)
def test_words_of_sweeps_are_checked(tmp_path: Path, words: list[str], said: str) -> None:
    """R33: a typo is one sentence with the nearest choice, exit code 2, no folder."""
    refused = run_command(tmp_path / "outputs", *words)
    assert said in refused.stderr + refused.stdout
    assert refused.returncode == (1 if "relu9_1" in said else 2), refused.stderr
    if "relu9_1" not in said:
        assert not (tmp_path / "outputs").exists()
        assert "Traceback" not in refused.stderr


def test_outputs_of_elsewhere(tmp_path: Path) -> None:
    """A sweep over folders is refused: each would need a table of its own."""
    with pytest.raises(UsageError, match="one outputs folder"):
        sweep_here(tmp_path, f"outputs={tmp_path / 'a'}", f"outputs={tmp_path / 'b'}")
