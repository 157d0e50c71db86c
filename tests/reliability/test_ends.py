"""However a cell ends, it says so, and harms no other."""

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from runs_here import request_of, results, run_command, states, sweep_here

from losslab.runs.attempt import attempt, bury
from losslab.runs.command import codes
from losslab.runs.plan import make_plan
from losslab.runs.results import read_results

pytestmark = pytest.mark.usefixtures("trusted")


def log_of(outputs: Path, label: str) -> str:
    (folder,) = (outputs / "standin").glob(f"{label}-*")
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("harm", "state", "reason"),
    [
        ("fail", "failed", "ZeroDivisionError: as asked"),
        ("exit", "failed", "it called sys.exit(3)"),
        ("brackets", "failed", "[/__w/pytorch/gloo/pair.cc:561] CUDA error [device] :smile:"),
        ("object_score", "failed", "a row holds numbers and words, but odd is a object"),
        ("nan_loss", "diverged", "l2 got images with NaN or infinite values, at step 8"),
        ("nan_gradient", "diverged", "the gradient of layer.weight became NaN or infinite at step 8"),
        ("nan_image", "diverged", "l2 got images with NaN or infinite values, at step 8"),
        ("nan_score", "diverged", "the score error is nan, at step 20"),
    ],
)
def test_serial_sweep_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str, state: str, reason: str
) -> None:
    """R20, R35: a cell that fails, exits or diverges is named with its reason and its step, and the others finish."""
    sweep_here(tmp_path, "seed=0", f"seed=1 task.harm={harm}", "seed=2")
    label = f"l2-harm{harm}-seed1"
    assert states(tmp_path) == {"l2-seed0": "done", label: state, "l2-seed2": "done"}
    assert codes == [1]
    shown = capsys.readouterr().out
    assert reason in shown
    assert "2 done, 1 " + state in shown
    assert "Traceback" in log_of(tmp_path, label)
    (entry,) = [entry for entry in results(tmp_path).cells.values() if entry["state"] == state]
    if state == "diverged":
        assert entry["step"] == (20 if harm == "nan_score" else 8)
        assert entry["term"] in ("gradient of layer.weight", "images", "error")
    status = json.loads(next((tmp_path / "standin").glob(f"{label}-*/status.json")).read_text())
    assert status["state"] == state
    assert reason in status["reason"]


def test_parallel_sweep_of_five(tmp_path: Path) -> None:
    """R35, R18: fail, diverge, SIGKILL, out of memory, exit: the table names all, and the next command only mends."""
    words = ["-m", "hydra/launcher=parallel", "hydra.launcher.n_jobs=2",
             "task.harm=none,fail,nan_loss,kill,memory,hard_exit,exit,many_rows"]  # fmt: skip
    outputs, once = tmp_path / "outputs", {"LOSSLAB_TEST_ONCE": str(tmp_path)}
    done = run_command(outputs, *words, **once)
    assert done.returncode == 1, done.stderr
    found = states(outputs)
    assert {label.removeprefix("l2-harm").removesuffix("-seed0"): state for label, state in found.items()} == {
        "none": "done", "fail": "failed", "nan_loss": "diverged", "kill": "interrupted", "memory": "failed",
        "hard_exit": "failed", "exit": "failed", "many_rows": "done",
    }  # fmt: skip
    for reason in ("ZeroDivisionError: as asked", "at step 8", "killed by SIGKILL; it may have run out of memory",
                   "ended with exit code 4", "sys.exit(3)"):  # fmt: skip
        assert reason in done.stdout
    assert "2 done, 4 failed, 1 diverged, 1 interrupted of 8 cells" in done.stdout
    for folder in (outputs / "standin").iterdir():
        assert (folder / "log.txt").stat().st_size > 50, folder
    again = run_command(outputs, *words, **once)
    assert again.returncode == 1
    assert "3 done, 4 failed, 1 diverged of 8 cells; 3 of them were there before" in again.stdout
    attempts = {
        folder.name.split("-")[1]: len(json.loads((folder / "provenance.json").read_text())["attempts"])
        for folder in (outputs / "standin").iterdir()
    }
    assert attempts["harmkill"] == attempts["harmfail"] == 2
    assert attempts["harmnone"] == attempts["harmnan_loss"] == 1  # neither was tried again


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (1, "done")])
def test_retries(tmp_path: Path, retries: int, state: str) -> None:
    """A passing trouble costs a retry, not the cell."""
    sweep_here(tmp_path, f"task.harm=fail_once retries={retries}")
    assert list(states(tmp_path).values()) == [state]


def test_on_error_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """on_error=stop begins no further cell, and the table says which did not begin."""
    sweep_here(tmp_path, "seed=0 on_error=stop", "task.harm=fail on_error=stop", "seed=2 on_error=stop")
    assert list(states(tmp_path).values()) == ["done", "failed"]
    shown = capsys.readouterr()
    assert "planned  standin/l2-seed2" in shown.out
    assert "the sweep stopped: on_error=stop" in shown.err
    assert codes == [1, 1]


@pytest.mark.parametrize("place", ["status", "lock"])
def test_unreadable_files_cost_a_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    """P5: a status that is no JSON, or a folder in a lock's place, costs one cell, which names the file."""
    plan = make_plan(request_of(tmp_path, "seed=1"))
    if place == "status":
        plan.folder.mkdir(parents=True)
        (plan.folder / "status.json").write_text("")
    else:
        plan.lock.path.mkdir(parents=True)
    sweep_here(tmp_path, "seed=0", "seed=1", "seed=2")
    shown = capsys.readouterr().out
    assert "2 done, 1 failed of 3 cells" in shown
    assert ("status.json holds no JSON" if place == "status" else f"Is a directory: {plan.lock.path}") in shown


def test_data_that_change_during_a_sweep(tmp_path: Path) -> None:
    """A cell's id says what its data held: other data under the same id are refused."""
    plan = make_plan(request_of(tmp_path, "seed=1"))
    changed = replace(plan, content="other")
    outcome = attempt(changed)
    assert outcome is not None
    assert outcome.state == "failed"
    assert "the data have changed since the command began" in outcome.entry["reason"]


def test_table_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that stops early still shows the cells that were done before, and which one another process computes."""
    sweep_here(tmp_path, "seed=2")
    other = make_plan(request_of(tmp_path, "seed=3"))
    assert other.lock.claim()
    capsys.readouterr()
    sweep_here(tmp_path, "task.harm=fail on_error=stop", "seed=2", "seed=3", "seed=4")
    assert "1 planned, 1 running, 1 done, 1 failed of 4 cells" in capsys.readouterr().out
    other.lock.release()


def test_dead_after_its_line_is_done(tmp_path: Path) -> None:
    """P1: a process that dies between its journal line and its status has done its cell, and the status is mended."""
    sweep_here(tmp_path, "seed=0")
    plan = make_plan(request_of(tmp_path, "seed=0"))
    status = json.loads((plan.folder / "status.json").read_text())
    (plan.folder / "status.json").write_text(json.dumps({**status, "state": "running"}))
    outcome = bury(plan, "interrupted", "its process was killed")
    assert outcome is not None
    assert outcome.state == "done"
    assert json.loads((plan.folder / "status.json").read_text())["state"] == "done"


def test_an_older_result_is_not_taken_for_a_killed_attempt(tmp_path: Path) -> None:
    """A forced attempt that is killed is interrupted, whatever an earlier one has found."""
    sweep_here(tmp_path, "seed=0")
    plan = make_plan(request_of(tmp_path, "seed=0", "force=true"))
    outcome = bury(plan, "interrupted", "its process was killed", (tmp_path / "journal.jsonl").stat().st_size)
    assert outcome is not None
    assert outcome.state == "interrupted"


def test_burying_hides_no_drift(tmp_path: Path) -> None:
    """R36: what wrote the checkpoint stays on record when a later process dies before it has judged it."""
    sweep_here(tmp_path, "task.harm=fail_once task.at=8 checkpoint_seconds=0")
    plan = make_plan(request_of(tmp_path, "task.harm=fail_once", "task.at=8", "checkpoint_seconds=0"))
    status = json.loads((plan.folder / "status.json").read_text())
    (plan.folder / "status.json").write_text(json.dumps({**status, "code": "older"}))
    bury(plan, "interrupted", "its process was killed")
    assert json.loads((plan.folder / "status.json").read_text())["code"] == "older"


def test_failed_cells_are_let_go(tmp_path: Path) -> None:
    """R19: a failed cell's model does not stay in memory until the end of the sweep."""
    sweep_here(tmp_path, *(f"seed={seed} task.harm=fail" for seed in range(4)), "seed=9 task.harm=count")
    assert (states(tmp_path)["l2-harmcount-seed9"], len(states(tmp_path))) == ("done", 5)


def test_cells_that_cannot_be_planned_are_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report on Monday counts them too."""
    sweep_here(tmp_path, "seed=0", "seed=1 data.batch_size=0")
    assert "1 done, 1 failed of 2 cells" in capsys.readouterr().out
    table = read_results(tmp_path)
    assert list(table.state) == ["done", "failed"]
    assert "data.batch_size is a number of images, got 0" in table.reason[1]
    from losslab.reports.page import make_page
    from losslab.reports.terminal import show

    show(results(tmp_path))
    assert "data.batch_size=0: data.batch_size is a number of images, got 0" in capsys.readouterr().out
    assert "data.batch_size is a number of images, got 0" in make_page(tmp_path, results(tmp_path))
    sweep_here(tmp_path, "seed=3 on_error=stop", "seed=1 data.batch_size=0 on_error=stop")
    assert "1 planned, 1 failed of 2 cells" in capsys.readouterr().out


@pytest.mark.parametrize("cells", [20, pytest.param(90, marks=pytest.mark.long)])
def test_serial_cells_leave_nothing_behind(tmp_path: Path, cells: int) -> None:
    """R19: memory, files, threads and log handlers do not grow from cell to cell."""

    def state() -> tuple[int, int, int, list[logging.Handler]]:
        process = psutil.Process()
        return process.memory_info().rss, process.num_fds(), threading.active_count(), logging.getLogger().handlers[:]

    sweep_here(tmp_path, *(f"seed={seed}" for seed in range(10)))
    memory, files, threads, handlers = state()
    sweep_here(tmp_path, *(f"seed={seed}" for seed in range(10, 10 + cells)))
    grown, *rest = state()
    assert rest == [files, threads, handlers]
    assert grown < 1.05 * memory
    assert torch.get_num_threads() >= 1


def test_reason_is_what_the_target_said(tmp_path: Path) -> None:
    """A loss that can't be built is told by its own sentence, not by what Hydra wraps around it."""
    outcome = attempt(make_plan(request_of(tmp_path, "loss=mmd", "loss.features=-1")))
    assert outcome is not None
    assert outcome.entry["reason"] == "features and sigma are more than 0, got -1 and 0.06"
    outcome = attempt(make_plan(request_of(tmp_path, "loss=mmd", "loss.orthogonal=true", "loss.features=2.5")))
    assert outcome is not None
    assert outcome.entry["reason"].startswith("Type")  # of torch, or of the check of types in tests
    assert "Error in call to target" not in outcome.entry["reason"]
