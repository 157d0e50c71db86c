"""What W&B gets of a run: all of it, one run a cell, and never at the training's cost."""

import functools
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import wandb
from conftest import ROOT, command, quiet
from runs_here import asked, results, run_command, states, surroundings, sweep_here

from losslab import images
from losslab.runs import tracking
from losslab.runs.command import codes
from losslab.runs.locks import CellLock
from losslab.runs.metrics import MetricsFile
from losslab.runs.replay import replay, upload

KEY = "0" * 40
CLOSED = "http://127.0.0.1:9"
"""No server listens at the discard port."""

SECRET = "abcdefgh12345"
here = pytest.mark.usefixtures("trusted", "no_account")
"""Runs in this process: quicker, and the next cell shows what one leaves behind."""

SECRETS = ("+logger.note=${oc.env:MY_API_KEY}", f"+logger.typed={SECRET}")

# A few batches of small things, as in tests/cli.
TINY = ("loss=l2", "trainer=fast", "data.train_count=64", "data.val_count=4", "data.batch_size=16",
        "task.generator.widths=[16,16,16,16]", "task.code_size=8")  # fmt: skip


class Log:
    """What W&B's own reader finds in the log of a run."""

    def __init__(self, run: Path) -> None:
        """Read it."""
        reader = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
        found = subprocess.run(reader, capture_output=True, text=True, timeout=60, check=True, env=quiet())
        records = [json.loads(line) for line in found.stdout.splitlines()]
        self.media = run / "files"
        self.run: dict[str, Any] = next((record["run"] for record in records if record["type"] == "run"), {})
        self.history = [record["history"]["item"] for record in records if record["type"] == "history"]
        self.exit = next((record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"), None)
        updates = [record["summary"].get("update", {}) for record in records if record["type"] == "summary"]
        self.summary = {name: value for update in updates for name, value in update.items()}
        self.config = self.run.get("config", {}).get("update", {})

    def numbers(self) -> list[tuple[int, dict[str, float]]]:
        """Give the steps with their numbers, in the order of the steps."""
        rows = [row for row in self.history if not any(name.endswith(".filenames") for name in row)]
        own = [{key: value for key, value in row.items() if not key.startswith(("_", "trainer/"))} for row in rows]
        return sorted(zip((row["trainer/global_step"] for row in rows), own, strict=True), key=lambda pair: pair[0])

    def pictures(self) -> list[tuple[int, str, Path]]:
        """Give steps, names and files of the pictures."""
        return sorted(
            (row["trainer/global_step"], name.removesuffix(".filenames"), self.media / file)
            for row in self.history
            for name, files in row.items()
            if name.endswith(".filenames")
            for file in files
        )


@functools.cache
def log_of(run: Path) -> Log:
    """Read the log of a run that has ended, once."""
    return Log(run)


def offline_runs(outputs: Path) -> list[Path]:
    return sorted(outputs.glob(f"*/*/wandb/{tracking.OFFLINE}*"))


def written(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Give the rows of metrics.csv."""
    return sorted(MetricsFile(folder / "metrics.csv").rows.items())


def assert_whole(run: Path) -> Log:
    """Compare a run with the folder of its cell."""
    log, folder = log_of(run), run.parents[1]
    assert log.numbers() == written(folder)
    assert log.exit == 0
    assert json.loads((folder / tracking.COMPLETE).read_text()) == {"run": run.name}
    found = {(name, images.read(path).numpy().tobytes()) for _, name, path in log.pictures()}
    files = [path for path in (folder / "images").glob("*.png") if path.stem != "loss_curve"]
    assert found == {(path.stem.partition("-step")[0], images.read(path).numpy().tobytes()) for path in files}
    assert len(log.pictures()) == len(files)
    return log


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the results of one run of the real command."""
    outputs = tmp_path_factory.mktemp("alone")
    done = subprocess.run(command(outputs, *TINY, *SECRETS), env={**quiet(), "MY_API_KEY": SECRET}, timeout=120,
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return outputs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the results of a multirun of four cells, of which two fail at step 8."""
    outputs = tmp_path_factory.mktemp("sweep")
    words = ["-m", "logger=wandb", "loss=l1,l2", "task.harm=none,fail", *SECRETS]
    done = run_command(outputs, *words, MY_API_KEY=SECRET)
    assert done.returncode == 1, done.stderr
    assert "2 done, 2 failed of 4 cells" in done.stdout
    return outputs


@pytest.fixture
def no_account(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide a developer's account, begin W&B in this process anew, and see that it writes into outputs only."""
    home = tmp_path_factory.mktemp("account")
    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    monkeypatch.chdir(home)
    yield
    wandb.teardown()
    assert not list(home.iterdir())


class Server(BaseHTTPRequestHandler):
    """As much of W&B's server as an upload asks for."""

    state: ClassVar[int] = 200
    goes_away: ClassVar[bool] = False
    lines: ClassVar[int] = 0
    address: ClassVar[str] = ""

    def do_POST(self) -> None:
        """Answer, or refuse."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = self._answer(body) if self.state == 200 else {"errors": [{"message": "unauthorized"}]}
        content = json.dumps(answer).encode()
        self.send_response(self.state)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        """Answer in the same way."""
        self.do_POST()

    def do_GET(self) -> None:
        """Answer in the same way."""
        self.do_POST()

    def _answer(self, body: bytes) -> dict[str, Any]:
        if self.path.endswith("/file_stream") and self.goes_away:
            type(self).state = 503  # from the next request on
        elif self.path.endswith("/file_stream"):
            stream = json.loads(body).get("files", {}).get("wandb-history.jsonl", {})
            type(self).lines += len(stream.get("content", []))
        if self.path != "/graphql":
            return {}
        asked_for = json.loads(body)
        found = re.search(r"(?:query|mutation) (\w+)", asked_for["query"])
        name = found.group(1) if found else ""
        if name == "UpsertBucket":
            project = {"name": "losslab", "entity": {"name": "me"}}
            bucket = {"id": "1", "name": asked_for["variables"]["name"], "displayName": "", "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name == "CreateRunFiles":
            names = asked_for["variables"]["files"]
            files = [{"name": name, "uploadUrl": f"{self.address}/files/{name}"} for name in names]
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return {"data": {"model": None}} if name == "RunResumeStatus" else {"errors": [{"message": "unknown"}]}

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    """Give a server on this machine, which W&B is told to be its own."""
    request.getfixturevalue("no_account")  # which hides the address that is told below
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.state, Server.goes_away, Server.lines = 200, False, 0
    Server.address = f"http://127.0.0.1:{listening.server_port}"
    monkeypatch.setenv("WANDB_BASE_URL", Server.address)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield Server
    wandb.teardown()
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_live_run_holds_all(alone: Path) -> None:
    """R34: the offline run has the cell's id, name, tags, axes, every step, the scores and the pictures."""
    (run,), (entry,) = offline_runs(alone), results(alone).cells.values()
    log = assert_whole(run)
    assert log.run["run_id"] == entry["cell"]
    assert log.run["display_name"] == f"glo/{entry['label']}"
    assert log.run["job_type"] == "glo"
    assert log.run["project"] == "losslab"
    assert "run_group" not in log.run
    assert {"loss=l2", "seed=0", "task.code_size=8"} <= set(log.run["tags"])
    axes = {key.removeprefix("axis/"): value for key, value in log.config.items() if key.startswith("axis/")}
    assert axes == entry["axes"]
    assert log.config["task"]["code_size"] == 8
    assert [step for step, row in log.numbers() if "loss" in row] == [0, 1, 2, 3]
    (row,) = entry["rows"]
    assert {**log.summary, **row, "state": "done"} == log.summary
    assert [(step, name) for step, name, _ in log.pictures()] == [
        *((step, "reconstructions") for step in (1, 2, 3)),
        *((4, name) for name in ("interpolations", "reconstructions", "reconstructions", "samples")),
    ]
    assert all(images.read(path).float().std() > 1 for _, _, path in log.pictures())


def test_sweep_makes_one_run_a_cell(sweep: Path) -> None:
    """R34, pain 20: the cells of a multirun share a group and nothing else."""
    logs = [log_of(run) for run in offline_runs(sweep)]
    assert sorted(log.run["run_id"] for log in logs) == sorted(results(sweep).cells)
    (name,) = results(sweep).sweeps
    assert {log.run["run_group"] for log in logs} == {f"sweep-{name}"}
    for run in offline_runs(sweep):
        assert log_of(run).numbers() == written(run.parents[1])


def test_failed_cell_is_a_failed_run(sweep: Path) -> None:
    """R34, pain 21: W&B does not show a cell as finished that failed, and shows no other as failed."""
    exits = {log_of(run).run["run_id"]: log_of(run).exit for run in offline_runs(sweep)}
    ends = {cell: entry["state"] for cell, entry in results(sweep).cells.items()}
    assert sorted(ends.values()) == ["done", "done", "failed", "failed"]
    assert exits == {cell: int(state == "failed") for cell, state in ends.items()}
    reasons = {log_of(run).summary.get("reason") for run in offline_runs(sweep) if log_of(run).exit == 1}
    assert reasons
    assert None not in reasons
    whole = {run.parents[1] / tracking.COMPLETE for run in offline_runs(sweep) if log_of(run).exit == 0}
    assert set(sweep.glob(f"*/*/{tracking.COMPLETE}")) == whole


def test_no_secret_is_written(alone: Path, sweep: Path) -> None:
    """R34: the value of a variable such as MY_API_KEY is in no file of a run, whichever way it came into the config."""
    for outputs in (alone, sweep):
        for path in (path for path in outputs.rglob("*") if path.is_file()):
            assert SECRET.encode() not in path.read_bytes(), path
        for run in offline_runs(outputs):
            (log,) = run.glob("*.wandb")
            assert b"***" in log.read_bytes()  # the search sees what is in these files
            assert log_of(run).config["logger"]["note"] == "***"
    assert (sweep / "sweeps").is_dir()


def test_missing_package_costs_no_training(tmp_path: Path) -> None:
    """R34: without wandb a run trains, says what is missing, and can be shown in W&B later."""
    stub, outputs = tmp_path / "stub", tmp_path / "outputs"
    (stub / "wandb").mkdir(parents=True)
    (stub / "wandb" / "__init__.py").write_text("raise ImportError('no such package')\n")
    path = f"{stub}:{surroundings()['PYTHONPATH']}"
    done = run_command(outputs, "logger=wandb", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert "wandb can't be imported (no such package): this run is in metrics.csv and the journal only" in done.stderr
    assert not offline_runs(outputs)
    assert replay(outputs) == 0
    (run,) = offline_runs(outputs)
    assert_whole(run)


def test_unreachable_server_costs_no_training(tmp_path: Path) -> None:
    """R34, pain 22: online, with a key and no server, a run begins within seconds and is kept offline."""
    surroundings_of = {"WANDB_BASE_URL": CLOSED, "WANDB_API_KEY": KEY}
    done = run_command(tmp_path, "logger=wandb", "logger.mode=online", **surroundings_of)
    assert done.returncode == 0, done.stderr
    assert f"W&B can't be reached ({CLOSED}: " in done.stderr
    assert "this run is kept offline, and `make wandb-sync` uploads it" in done.stderr
    assert results(tmp_path).cells.popitem()[1]["seconds"] < 30
    (run,) = offline_runs(tmp_path)
    assert_whole(run)


def test_killed_run_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R34: the log of a killed run lacks its tail and the next one its beginning; a replay has each step once."""
    outputs, said = tmp_path / "outputs", tmp_path / "said"
    words = ["logger=wandb", "task.step_seconds=0.05", "checkpoint_seconds=0", "trainer.log_every_n_steps=1"]
    with said.open("w") as errors:
        process = subprocess.Popen(asked(outputs, *words), env=surroundings(), stderr=errors, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 60
    while "step 12/20" not in said.read_text():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=60)
    (killed,) = offline_runs(outputs)
    assert not results(outputs).cells, "it was done before the kill came: make it longer"
    assert log_of(killed).exit is None
    assert len(log_of(killed).numbers()) < 10  # W&B's service holds what it has not written yet in memory, and ends too
    resumed = run_command(outputs, *words)
    assert resumed.returncode == 0, resumed.stderr
    _, second = offline_runs(outputs)
    folder = second.parents[1]
    assert log_of(second).numbers()[0][0] > 0
    assert not (folder / tracking.COMPLETE).exists()
    assert _replay(monkeypatch, outputs) == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert folder.name in told
    (whole,) = offline_runs(outputs)
    log = assert_whole(whole)
    assert len(log.numbers()) > len(log_of(second).numbers())
    assert len(list((folder / "wandb").glob("superseded-*"))) == 2
    (entry,) = results(outputs).cells.values()
    assert log.run["run_id"] == entry["cell"]
    assert log.run["display_name"] == f"standin/{entry['label']}"
    assert log.summary["error"] == entry["rows"][0]["error"]
    assert log.pictures()[0][:2] == (20, "weights")


@here
def test_replay_command_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R34: no journal, no key, no server: exit code 1 and one sentence, at once."""
    assert _replay(monkeypatch, tmp_path) == 1
    said = capsys.readouterr().err
    assert said == f"error: there is no journal in {tmp_path}: python src/train.py writes one\n"
    sweep_here(tmp_path, "logger=wandb")
    assert _replay(monkeypatch, tmp_path, "--sync") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: the upload needs a W&B key: `wandb login` stores one, or set WANDB_API_KEY"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    wandb.teardown()
    started = time.monotonic()
    assert _replay(monkeypatch, tmp_path, "--sync") == 1
    assert time.monotonic() - started < 10
    said = capsys.readouterr().err
    assert said.startswith(f"error: W&B can't be reached ({CLOSED}: ")
    assert said.endswith("): nothing was uploaded\n")


@here
def test_disabled(tmp_path: Path) -> None:
    """R34: mode disabled trains, writes no run, and a replay respects it."""
    sweep_here(tmp_path, "logger=wandb logger.mode=disabled")
    assert list(states(tmp_path).values()) == ["done"]
    assert not list(tmp_path.glob("*/*/wandb*"))
    assert replay(tmp_path) == 0
    assert not list(tmp_path.glob("*/*/wandb*"))


@here
def test_online_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pain 25: no prompt and no wait, one sentence before the training."""
    sweep_here(tmp_path, "logger=wandb logger.mode=online")
    assert codes == [1]
    assert list(states(tmp_path).values()) == ["failed"]
    said = "logger.mode=online needs a W&B key: `wandb login` stores one, or set WANDB_API_KEY"
    assert said in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.glob("*/*/wandb"))
    assert not list(tmp_path.glob("*/*/images"))


@here
@pytest.mark.parametrize(
    ("key", "reason"), [(KEY, "W&B does not take this run ("), ("short", "W&B does not take the key (")]
)
def test_bad_key_costs_no_training(
    tmp_path: Path, server: type[Server], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], key: str, reason: str,
) -> None:  # fmt: skip
    """R34: a key that the server refuses, or that is none, leaves a whole offline run."""
    monkeypatch.setenv("WANDB_API_KEY", key)
    server.state = 401
    sweep_here(tmp_path, "logger=wandb logger.mode=online", "seed=1 logger=wandb logger.mode=online")
    assert codes == []
    said = capsys.readouterr().err
    assert said.count(reason) == 2
    assert said.count("this run is kept offline") == 2
    for run in offline_runs(tmp_path):
        assert_whole(run)
    assert len(offline_runs(tmp_path)) == 2


@here
def test_lost_server_costs_no_training(
    tmp_path: Path, server: type[Server], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """R34: the end of a run does not wait for a server that went away, and all of it can be uploaded later."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 1)
    server.goes_away = True
    started = time.monotonic()
    sweep_here(tmp_path, "logger=wandb logger.mode=online")
    assert time.monotonic() - started < 15
    assert codes == []
    assert "W&B has not got all of this run in 1 s" in capsys.readouterr().err
    assert not list(tmp_path.glob(f"*/*/{tracking.COMPLETE}"))
    server.state, server.goes_away = 200, False
    server.lines = 0
    wandb.teardown()
    assert replay(tmp_path) == 0
    (run,) = offline_runs(tmp_path)
    log = assert_whole(run)
    server.state = 401
    assert upload(tmp_path) == 1
    server.state = 503
    with monkeypatch.context() as patch:
        patch.setattr("losslab.runs.replay.UPLOAD_SECONDS", 3)
        assert upload(tmp_path) == 1
    assert "the upload has not ended in 3 s: the same command goes on" in capsys.readouterr().err
    server.state = 200
    assert upload(tmp_path) == 0
    assert server.lines == len(log.history)
    assert upload(tmp_path) == 0
    assert server.lines == len(log.history)
    assert capsys.readouterr().out.splitlines() == [
        "1 of 1 W&B runs that were waiting are uploaded",
        "0 of 0 W&B runs that were waiting are uploaded",
    ]


@here
def test_replay_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """R34: --all shows cells that log elsewhere, a failed one as failed; a lost folder stops no other cell."""
    sweep_here(tmp_path, "seed=0", "seed=1 task.harm=fail", "seed=2")
    assert replay(tmp_path) == 0
    assert not offline_runs(tmp_path)
    lost = next(tmp_path.glob("*/l2-seed2-*"))
    shutil.rmtree(lost)
    capsys.readouterr()
    assert _replay(monkeypatch, tmp_path, "--all") == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"standin/{lost.name}: its folder is gone, and with it all but the scores in the journal"
    ]
    assert len(said.out.splitlines()) == 2
    failed, done = (log_of(run) for run in offline_runs(tmp_path))
    assert (failed.exit, done.exit) == (1, 0)
    assert failed.summary["state"] == "failed"
    assert failed.summary["reason"] == "ZeroDivisionError: as asked"
    assert done.summary["state"] == "done"
    assert done.run["run_group"] == failed.run["run_group"] == f"sweep-{next(iter(results(tmp_path).sweeps))}"


@here
def test_replay_equals_the_live_run(alone: Path, tmp_path: Path) -> None:
    """R34: the replay of a whole run says and shows what the live run did, at the same steps."""
    outputs = tmp_path / "outputs"
    shutil.copytree(alone, outputs, symlinks=True)
    assert replay(outputs, every=True) == 0
    (run,), (live,) = offline_runs(outputs), offline_runs(alone)
    one, two = assert_whole(run), log_of(live)
    for fact in ("run_id", "display_name", "project", "job_type", "tags", "config"):
        assert one.run[fact] == two.run[fact]
    assert [picture[:2] for picture in one.pictures()] == [picture[:2] for picture in two.pictures()]
    assert all(
        ours.read_bytes() == theirs.read_bytes()
        for (_, _, ours), (_, _, theirs) in zip(one.pictures(), two.pictures(), strict=True)
    )
    scores = {name: value for name, value in two.summary.items() if not name.startswith("_") and "." not in name}
    assert {**one.summary, **scores} == one.summary


@here
def test_replay_is_done_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R34: a second replay changes nothing and says so."""
    sweep_here(tmp_path, "logger=wandb", "seed=1", "seed=2 logger=wandb task.harm=fail")
    (whole,) = tmp_path.glob(f"*/*/{tracking.COMPLETE}")
    whole.unlink()
    failed, live = offline_runs(tmp_path)
    live.rename(live.with_name(f"{tracking.OFFLINE}20200101_000000-{_stem(live).rpartition('-')[2]}"))
    assert replay(tmp_path) == 0
    assert failed in offline_runs(tmp_path)
    (run,) = set(offline_runs(tmp_path)) - {failed}
    assert_whole(run)
    before = _files(tmp_path)
    capsys.readouterr()
    assert replay(tmp_path) == 0
    assert capsys.readouterr().out == (
        "all 1 done cells have whole W&B runs; 1 more log elsewhere, and --all makes runs of them\n"
    )
    assert _files(tmp_path) == before


@here
@pytest.mark.usefixtures("server")
def test_replay_leaves_what_is_not_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R34: a cell that is being computed, or that a later attempt has begun to overwrite, is not whole."""
    sweep_here(tmp_path, "logger=wandb")
    (whole,) = tmp_path.glob(f"*/*/{tracking.COMPLETE}")
    whole.unlink()
    before = offline_runs(tmp_path)
    lock = CellLock(tmp_path / ".locks" / next(iter(results(tmp_path).cells)), 60)
    assert lock.claim()
    assert replay(tmp_path) == 0
    assert "is computing it, so its run is left for later" in capsys.readouterr().out
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert upload(tmp_path) == 0
    assert capsys.readouterr().out == "0 of 0 W&B runs that were waiting are uploaded\n"
    lock.release()
    status = whole.with_name("status.json")
    status.write_text(json.dumps({"state": "running", "since": "9999-01-01T00:00:00+00:00"}))
    assert replay(tmp_path) == 1
    assert "its folder holds a later attempt, which is running" in capsys.readouterr().err
    assert offline_runs(tmp_path) == before


@here
def test_forced_run_supersedes(tmp_path: Path) -> None:
    """R34: after force=true only the new run is uploaded; after a failed one none counts as whole."""
    sweep_here(tmp_path, "logger=wandb")
    (first,) = offline_runs(tmp_path)
    sweep_here(tmp_path, "logger=wandb force=true")
    (second,) = offline_runs(tmp_path)
    assert second != first
    assert_whole(second)
    sweep_here(tmp_path, "logger=wandb logger.mode=never force=true")
    assert not list(tmp_path.glob(f"*/*/{tracking.COMPLETE}"))


def _replay(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command as the program of this process."""
    program = str(ROOT / "src" / "replay.py")
    monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(program, run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _stem(run: Path) -> str:
    return run.name.removeprefix(tracking.OFFLINE)


def _files(outputs: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in outputs.rglob("*") if path.parent.name != ".locks"}
