"""Many processes, machines and clocks, one outputs folder."""

import datetime as dt
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from runs_here import asked, request_of, scores, surroundings, sweep_here
from warm import Warm

from losslab.runs import locks, states
from losslab.runs.journal import Journal
from losslab.runs.locks import CellLock, LockError
from losslab.runs.plan import make_plan
from losslab.runs.results import read_results

pytestmark = pytest.mark.usefixtures("trusted")


def _append(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        Journal(path).append({"cell": f"{writer}-{number}", "state": "done", "text": "x" * 500})


def test_ten_writers_leave_two_thousand_lines(tmp_path: Path) -> None:
    """R27: 10 processes × 200 appends, all whole."""
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=_append, args=(tmp_path / "j", writer, 200)) for writer in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    journal = Journal(tmp_path / "j")
    assert len(journal.read()) == len(journal.cells) == 2000
    assert journal.complaint() is None


def test_damaged_lines_cost_themselves_only(tmp_path: Path) -> None:
    """R4: a torn line, a flipped bit and a stranger's line are told by number; the lines around them count."""
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.read() == []
    for name in "abc":
        journal.append({"cell": name, "state": "done", "primary": 1.0})
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(
        lines[0] + lines[1].replace(b"1.0", b"2.0") + b'{"cell": "x"}\n' + lines[2] + lines[0][:20]
    )
    found = Journal(journal.path)
    found.read()
    assert list(found.cells) == ["a", "c"]
    assert (
        found.complaint()
        == f"{journal.path}: lines 2, 3, 5 are damaged and left out; what they held counts as not done"
    )
    journal.append({"cell": "d", "state": "done"})  # closes the torn line
    found.read()
    assert list(found.cells) == ["a", "c", "d"]
    assert found.damaged == [2, 3, 5]


def test_journal_refuses_what_is_no_number(tmp_path: Path) -> None:
    """A NaN in the journal would be a NaN in somebody's table of best losses."""
    with pytest.raises(ValueError, match="JSON"):
        Journal(tmp_path / "j").append({"primary": float("nan")})
    assert not (tmp_path / "j").exists()


def test_a_later_failure_hides_no_result(tmp_path: Path) -> None:
    """P1: after force=true was interrupted, the result of before is still one; a new result replaces it."""
    journal = Journal(tmp_path / "j")
    for state, primary in (("done", 1), ("interrupted", 0), ("failed", 0)):
        journal.append({"cell": "a", "state": state, "primary": primary})
    journal.read()
    assert journal.cells["a"]["primary"] == 1
    journal.append({"cell": "a", "state": "done", "primary": 2})
    journal.read()
    assert journal.cells["a"]["primary"] == 2


def hold(path: Path, *, seconds: float = 60) -> "subprocess.Popen[bytes]":
    """Hold a lock in another process until it is killed."""
    code = f"import time; from pathlib import Path; from losslab.runs.locks import CellLock; \
print(CellLock(Path({str(path)!r}), 60).claim(), flush=True); time.sleep({seconds})"
    source = str(Path(locks.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    return process


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    """R7, R29: a live owner is left alone, a killed one is taken over at once, whatever its number means now."""
    process = hold(tmp_path / "lock")
    lock = CellLock(tmp_path / "lock", 60)
    assert not lock.is_free()
    assert not lock.claim()
    assert lock.owner is not None
    assert lock.owner.pid == process.pid
    process.kill()
    process.communicate()
    text = json.loads((tmp_path / "lock").read_text())
    (tmp_path / "lock").write_text(json.dumps({**text, "pid": os.getpid()}))  # its number lives on in another process
    assert lock.is_free()
    assert lock.claim()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_locks_of_other_machines_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: another machine's lock is free when its heartbeat has stood still for long enough, on our clock."""
    path, beat = tmp_path / "lock", 0

    def write(number: int) -> None:
        path.write_text(json.dumps({"host": "far", "boot": "other", "pid": 1, "beat": f"{number:012}"}))

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lock = CellLock(path, stale_seconds=60)
    for beat in range(3):
        write(beat)
        assert not lock.is_free()
        now += 59
        assert not lock.claim()
    now += 2
    assert lock.is_free()
    assert CellLock(path, 60).claim(lock.owner)  # as in the process of a cell, which has not watched itself


@pytest.mark.parametrize("text", ["", "garbage", "[1]", '{"host": "a"}'])
def test_garbage_in_a_lock_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """R29: a lock file that is none of ours is named, with what to do; the other cells run."""
    plan = make_plan(request_of(tmp_path, "seed=0"))
    path = tmp_path / ".locks" / plan.cell.id
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(LockError, match="is no lock of losslab's; remove the file if"):
        CellLock(path, 60).claim()
    sweep_here(tmp_path, "seed=0", "seed=1")
    assert "1 done, 1 failed of 2 cells" in capsys.readouterr().out


def test_heartbeat_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living owner shows that it lives, and stops to when it gives the lock back."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    lock = CellLock(tmp_path / "lock", 60)
    assert lock.claim()
    time.sleep(0.3)
    assert int(json.loads((tmp_path / "lock").read_text())["beat"]) > 2
    lock.release()
    time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_share_the_work(tmp_path: Path) -> None:
    """R26: two equal sweeps at once compute each cell once, and both print the full table and exit with 0."""
    words = ["-m", "seed=0,1,2,3", "task.step_seconds=0.03"]
    two = [subprocess.Popen(asked(tmp_path, *words), env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL) for _ in range(2)]  # fmt: skip
    shown = [process.communicate(timeout=120) for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    for out, _ in shown:
        assert "4 done of 4 cells" in out.decode()
        assert out.decode().count("│ done  │") == 4
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "cell" in line]) == len(scores(tmp_path)) == 4
    for path in tmp_path.glob("standin/*/provenance.json"):
        assert len(json.loads(path.read_text())["attempts"]) == 1


def test_one_waits_for_the_other(tmp_path: Path, warm: Warm) -> None:
    """A single run whose cell is being computed waits for it, says so, and shows its result."""
    first = subprocess.Popen(asked(tmp_path, "task.step_seconds=0.25"), env=surroundings(), stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)  # fmt: skip
    while not list(tmp_path.glob("standin/*/status.json")):
        time.sleep(0.02)
    # five seconds of training are soon over, where imports have to wait for another process
    second = warm.run(asked(tmp_path, "task.step_seconds=0.25"), ROOT, surroundings(), timeout=300)
    first.communicate(timeout=60)
    assert second.returncode == 0, second.stderr
    assert f"which process {first.pid} on" in second.stdout
    assert "done before" in second.stdout


def test_report_while_a_sweep_writes(tmp_path: Path) -> None:
    """R28: readers see whole lines only, and the planned cells that are to come."""
    plan = {"sweep": "s", "began": "", "cells": [{"cell": f"{w}-{n}", "axes": {}} for w in (0, 1) for n in range(100)]}
    Journal(tmp_path / "journal.jsonl").append(plan)
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=_append_cells, args=(tmp_path / "journal.jsonl", writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        table = read_results(tmp_path)
        assert table.attrs["complaint"] is None
        assert len(table) == 200
        seen.append(int((table.state == "done").sum()))
    assert seen == sorted(seen)
    assert (read_results(tmp_path).state == "done").sum() == 200


def _append_cells(path: Path, writer: int) -> None:
    for number in range(100):
        Journal(path).append(
            {"cell": f"{writer}-{number}", "state": "done", "axes": {"loss": "l2"}, "rows": [{"psnr": 1.0}]}
        )


def test_clock_that_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: order comes from the journal, not from clocks: no cell is lost, the last result counts."""
    day = [dt.datetime(2026, 1, 2, tzinfo=dt.UTC)]

    def now(tz: Any) -> dt.datetime:
        day[0] -= dt.timedelta(hours=1)
        return day[0]

    monkeypatch.setattr(states, "datetime", SimpleNamespace(now=now))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    sweep_here(tmp_path, "seed=0", "seed=1")
    before = scores(tmp_path)
    sweep_here(tmp_path, "seed=0 force=true", "seed=1")
    assert scores(tmp_path) == before
    assert len(before) == 2
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    finished = [line["finished"] for line in lines if "finished" in line]
    assert len(finished) == 3
    assert finished == sorted(finished, reverse=True), "the clock did not jump: the test tests nothing"


def test_lock_survives_an_inherited_handle(tmp_path: Path) -> None:
    """A program that a cell starts does not keep its lock alive."""
    lock = CellLock(tmp_path / "lock", 60)
    lock.claim()
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    lock.release()
    again = (tmp_path / "lock").open("w")
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    again.close()
    child.kill()
    child.wait()
