"""Who computes the cells of a sweep: this process, one after the other, or a process a cell, so many at a time."""

import contextlib
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from losslab.runs.interrupts import Interrupted, interrupts
from losslab.runs.journal import Journal
from losslab.runs.locks import Owner
from losslab.runs.plan import Plan
from losslab.runs.states import Outcome

Ended = tuple[Plan, Outcome | None]
"""A plan, and how it ended; None where another process is computing it."""

GRACE_SECONDS = 60.0
"""How long the cells of a stopped sweep have for the end of their step before they are killed."""


DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What Linux, WSL and ROCm show where there is a GPU."""


class Crew(Protocol):
    """Takes plans and gives outcomes."""

    @property
    def free(self) -> bool:
        """Tell whether there is room for one more cell."""
        ...

    @property
    def busy(self) -> bool:
        """Tell whether there are outcomes to come."""
        ...

    def start(self, plan: Plan, stale: Owner | None) -> None:
        """Begin a cell."""
        ...

    def ended(self) -> list[Ended]:
        """Wait a while for cells to end."""
        ...

    def stop(self) -> list[Ended]:
        """Ask the cells that run to stop, and wait for them."""
        ...


class OneByOne:
    """The cells run in this process; what they leave in it is cleared after each."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._ended: list[Ended] = []
        self._frozen = False

    @property
    def free(self) -> bool:
        """Tell whether the last outcome was fetched."""
        return not self._ended

    busy = property(lambda self: bool(self._ended))

    def start(self, plan: Plan, stale: Owner | None) -> None:
        """Compute the cell."""
        from losslab.runs.attempt import attempt  # here, since a refused sweep must not wait for torch

        if not self._frozen:
            gc.freeze()  # what is there now stays; the collection after each cell need not look at it again
            self._frozen = True
        self._ended.append((plan, attempt(plan, stale)))

    def ended(self) -> list[Ended]:
        """Give the outcome."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> list[Ended]:
        """Do nothing: what was asked to stop has stopped, or this would not be called."""
        return self.ended()


class Processes:
    """A process a cell: one that is killed, runs out of memory or exits harms only itself.

    The processes are forked from a server that has imported the libraries and done nothing else: a cell starts in a
    tenth of a second instead of five, shares the libraries' memory with the others, and inherits nothing of them.

    Args:
        jobs: processes at a time; None is one a GPU, or two where there is none.
        modules: what the server imports before the first cell.
    """

    def __init__(self, jobs: int | None, modules: Sequence[str]) -> None:
        """Start the server."""
        self.devices = _devices()
        self.jobs = jobs or len(self.devices) or 2
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["losslab.runs.server", "losslab.runs.attempt", *modules])
        with _environment(OMP_NUM_THREADS=str(threads_each(self.jobs)), OMP_WAIT_POLICY="passive"):
            multiprocessing.forkserver.ensure_running()
        self._slots: dict[int, tuple[Plan, BaseProcess, Connection]] = {}
        self._told: dict[int, list[Any]] = {}
        self._since: dict[int, int] = {}

    @property
    def free(self) -> bool:
        """Tell whether fewer cells run than may."""
        return len(self._slots) < self.jobs

    @property
    def busy(self) -> bool:
        """Tell whether cells run."""
        return bool(self._slots)

    def start(self, plan: Plan, stale: Owner | None) -> None:
        """Start a process for the cell, with a device of its own where there are some."""
        slot = next(number for number in range(self.jobs) if number not in self._slots)
        device = self.devices[slot % len(self.devices)] if self.devices else None
        with interrupts.held():  # a process that is not in the list could not be stopped
            self._begin(slot, plan, stale, device)

    def _begin(self, slot: int, plan: Plan, stale: Owner | None, device: str | None) -> None:
        since = Journal(plan.cell.outputs / "journal.jsonl").size
        mine, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(
            # A copy, since a plan that has looked at its lock can't be sent.
            target=_cell_process,
            args=(replace(plan), stale, device, threads_each(self.jobs), theirs),
            name=plan.cell.id,
        )
        process.start()
        theirs.close()
        self._slots[slot] = (plan, process, mine)
        self._since[slot] = since

    def ended(self, seconds: float = 0.5) -> list[Ended]:
        """Wait for the next end, and say of a process that was killed what the killed can't."""
        slots = self._slots
        pipes = [pipe for number, (_, _, pipe) in slots.items() if number not in self._told]
        wait([*(process.sentinel for _, process, _ in slots.values()), *pipes], timeout=seconds)
        for number, (_, _, pipe) in slots.items():  # at once, since a pipe holds 64 kB and its writer waits
            if number not in self._told and pipe.poll():
                self._told[number] = _received(pipe)
        gone = [number for number, (_, process, _) in slots.items() if not process.is_alive()]
        return [self._fetch(*slots.pop(number), self._told.pop(number, []), self._since[number]) for number in gone]

    def stop(self) -> list[Ended]:
        """Ask all processes to stop at the end of their step; kill those that don't."""
        for _, process, _ in self._slots.values():
            process.terminate()
        wait_for = threading.Timer(GRACE_SECONDS, self._kill)
        wait_for.start()
        ended: list[Ended] = []
        while self._slots:
            ended += self.ended()
        wait_for.cancel()
        return ended

    def _kill(self) -> None:
        for _, process, _ in list(self._slots.values()):
            process.kill()

    def _fetch(self, plan: Plan, process: BaseProcess, pipe: Connection, told: list[Any], since: int) -> Ended:
        process.join()
        told = told or _received(pipe)  # it may have spoken since
        pipe.close()
        if told:
            return plan, None if told[0] is None else Outcome(plan, told[0]["entry"], again=told[0]["again"])
        from losslab.runs.attempt import bury

        return plan, bury(plan, *_how_it_died(process.exitcode), since)


def _received(pipe: Connection) -> list[Any]:
    """Give what a cell's process tells; nothing if it was killed before its last word."""
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
        if pipe.poll():
            return [pipe.recv()]
    return []


def threads_each(jobs: int) -> int:
    """Share the cores of this process out over so many cells."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _cell_process(plan: Plan, stale: Owner | None, device: str | None, threads: int, results: Connection) -> None:
    """Compute one cell in a process of its own."""
    for number in (signal.SIGINT, signal.SIGHUP):  # these reach the sweep too, which asks by SIGTERM
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interrupts.install(once=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # CUDA reads it when it starts, which it has not
    import torch

    from losslab.runs.attempt import attempt

    torch.set_num_threads(threads)
    _speak_into(plan.folder / "log.txt")
    try:
        outcome = attempt(plan, stale)
    except Interrupted as stop:
        if stop.outcome is None:
            sys.exit(128 + stop.number)
        outcome = stop.outcome
    results.send(None if outcome is None else {"entry": outcome.entry, "again": outcome.again})


def _speak_into(log: Path) -> None:
    """Send what is printed, also by a library's C code, to the cell's log: screens are for one speaker."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _end_with_parent() -> None:
    """Stop at the end of the step when the sweep's process is no more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _how_it_died(code: int | None) -> tuple[str, str]:
    """Give the state and the reason of a cell whose process could not tell them."""
    if code is not None and code < 0:
        hint = "; it may have run out of memory" if -code == signal.SIGKILL else ""
        return "interrupted", f"its process was killed by {signal.Signals(-code).name}{hint}"
    if code == 128 + signal.SIGTERM:
        return "interrupted", "stopped by SIGTERM"
    return "failed", f"its process ended with exit code {code}"


def _devices() -> list[str]:
    """Name the GPUs that this process may use; empty where there are none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []  # said without torch, which takes seconds to import
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
