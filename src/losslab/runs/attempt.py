"""One attempt at a cell: claimed, logged, and ended in a state that says what happened, whatever happens."""

import errno
import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from losslab.divergence import DivergedError
from losslab.files import read_json, remove_parts, write_json, write_text
from losslab.runs.checkpoint import CheckpointFile, newest_whole, previous
from losslab.runs.interrupts import Interrupted, interrupts
from losslab.runs.journal import Journal
from losslab.runs.locks import LockError, Owner
from losslab.runs.logs import logged
from losslab.runs.plan import Plan
from losslab.runs.processes import is_first_process
from losslab.runs.provenance import provenance
from losslab.runs.secrets import masked
from losslab.runs.sentences import inner, sentence
from losslab.runs.states import Outcome, drift, entry_of, read_status, standing, write_status
from losslab.runs.training import Training, checkpoint_path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DriftError(ValueError):
    """An interrupted cell whose code or libraries have changed."""


def attempt(plan: Plan, stale: Owner | None = None) -> Outcome | None:
    """Compute a cell, go on with an interrupted one, or show the result that another process has brought meanwhile.

    Args:
        plan: the cell.
        stale: an owner of its lock, on another machine, that was found dead.

    Returns:
        How it ended, also where it failed; None if a live process is computing it.

    Raises:
        Interrupted: somebody asked to stop; the cell's state is written down.
    """
    if not is_first_process():
        return _follow(plan)
    try:
        if not plan.lock.claim(stale):
            return None
    except (OSError, LockError) as error:
        return Outcome(plan, _with_space(entry_of(plan, "failed", reason=sentence(error)), plan, error), error=error)
    try:
        journal = Journal(plan.cell.outputs / "journal.jsonl")
        journal.read()
        return standing(plan, journal) or _attempted(plan, journal)
    finally:
        plan.lock.release()
        gc.collect()


def _follow(plan: Plan) -> Outcome:
    """Do the work of a further device; the first process writes everything down."""
    journal = Journal(plan.cell.outputs / "journal.jsonl")
    journal.read()
    if (known := standing(plan, journal)) is not None:
        return known
    folder = plan.folder
    training = Training(plan, folder, newest_whole(checkpoint_path(folder)))
    rows = training.rows()
    return Outcome(plan, entry_of(plan, "done", rows=rows, primary=training.primary))


def _attempted(plan: Plan, journal: Journal) -> Outcome:
    folder, before = plan.folder, dict[str, Any]()
    training: Training | None = None
    error: BaseException | None = None
    threads = torch.get_num_threads()
    try:
        before = read_status(folder)
        resume = _resume(plan, folder, before)
        threads = before.get("threads", threads) if resume else threads
        training = Training(plan, folder, resume)
        entry = _logged_attempt(training, threads)
    except DriftError as drifted:  # nothing has happened, so there is nothing to write down
        return Outcome(plan, entry_of(plan, "interrupted", reason=str(drifted), refused=True), error=drifted)
    except BaseException as caught:  # noqa: BLE001 - judged and recorded below, and asked stops are raised again
        error = caught
        entry = _ending(plan, caught, training)
    begun = training is not None and training.begun
    made = {"threads": threads, "forced": plan.settings["force"]} if begun else _made(before)
    with interrupts.held():
        return _record(plan, folder, journal, entry, error, **made)


def _logged_attempt(training: Training, threads: int) -> dict[str, Any]:
    with logged(training.folder / "log.txt"), _threads(threads):
        try:
            _begin(training, threads)
            rows = training.rows()
        except BaseException:
            logging.getLogger(__name__).exception("the cell stopped")
            raise
    found = {"seconds": training.seconds, "threads": threads, "primary": training.primary, "rows": rows}
    return entry_of(training.plan, "done", **found)


def _begin(training: Training, threads: int) -> None:
    """Say in the folder what is about to run."""
    folder, settings = training.folder, training.plan.settings
    attempts = read_json(folder / "provenance.json").get("attempts", [])
    remove_parts(folder)
    write_status(folder, "running", threads=threads, forced=settings["force"])
    training.begun = True
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(masked(settings))))
    made = {**provenance(), "threads": threads, "resumed": training.resume is not None}
    write_json(folder / "provenance.json", {"seed": settings["seed"], "attempts": [*attempts, made]})
    how = f"goes on from {training.resume.name}" if training.resume else "starts"
    logging.getLogger(__name__).info("attempt %d %s: process %d, threads %d", len(attempts) + 1, how, os.getpid(),
                                     threads)  # fmt: skip


def _ending(plan: Plan, error: BaseException, training: Training | None) -> dict[str, Any]:
    """Tell by what stopped it how a cell ended."""
    reason = masked(sentence(error) or type(error).__name__)
    seconds = 0.0 if training is None else training.seconds
    if _is_stop(error):
        return entry_of(plan, "interrupted", reason=f"stopped by {reason}", seconds=seconds)
    if isinstance(error, DivergedError):
        step = error.step
        if step is None and training is not None and training.step is not None:
            step = training.step
            reason = f"{reason}, at step {step}"
        rows = [] if training is None else training.found
        return entry_of(plan, "diverged", reason=reason, step=step, term=error.term, seconds=seconds, rows=rows)
    if isinstance(error, SystemExit):
        reason = f"it called sys.exit({error.code})"
    elif not isinstance(inner(error), (ValueError, KeyError)):
        reason = f"{type(inner(error)).__name__}: {reason}"
    return entry_of(plan, "failed", reason=reason, seconds=seconds)


def _is_stop(error: BaseException) -> bool:
    """Tell a stop that somebody asked for; Lightning ends on KeyboardInterrupt, and on its own SIGTERM, by sys.exit."""
    lightnings = type(error).__name__ == "SIGTERMException" or isinstance(error.__context__, KeyboardInterrupt)
    asked = isinstance(error, (Interrupted, KeyboardInterrupt))
    return asked or (isinstance(error, SystemExit) and lightnings)


def _record(
    plan: Plan, folder: Path, journal: Journal, entry: dict[str, Any], error: BaseException | None, **more: Any
) -> Outcome:
    """Write the end into the journal and then into the folder."""
    if not plan.lock.is_held():
        reason = f"this process stood still for so long that {plan.lock.owner} took the cell over"
        return Outcome(plan, {**entry, "state": "interrupted", "reason": reason, "rows": [], "refused": True})
    more |= {key: entry[key] for key in ("reason", "step", "term") if key in entry}
    try:
        journal.append(entry)
        write_status(folder, entry["state"], **more)
    except OSError as unwritten:
        reason = f"its end ({entry['state']}) can't be written: {sentence(unwritten)}"
        entry, error = {**entry, "state": "failed", "reason": reason, "rows": []}, unwritten
    outcome = Outcome(plan, _with_space(entry, plan, error), error=error)
    if error is not None and _is_stop(error):
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        stop.outcome = outcome
        raise stop
    return outcome


def _made(status: dict[str, Any]) -> dict[str, Any]:
    """Give what an earlier status says of code, libraries and threads, which stays true of its checkpoint."""
    return {key: status[key] for key in ("code", "libraries", "threads", "forced") if key in status}


def bury(plan: Plan, state: str, reason: str, since: int = 0) -> Outcome | None:
    """Write down the end of a cell whose process could not, unless it died after it had done so.

    Args:
        plan: the cell.
        state: how it ended.
        reason: of what.
        since: bytes that the journal had when the process began.

    Returns:
        The outcome; None if another process has taken the cell over already.
    """
    if not plan.lock.claim():
        return None
    try:
        journal = Journal(plan.cell.outputs / "journal.jsonl", since)
        journal.read()
        made = _made(read_status(plan.folder))
        if (entry := journal.cells.get(plan.cell.id)) is not None:
            write_status(plan.folder, entry["state"], **made)  # it died after its line
            return Outcome(plan, entry)
        return _record(plan, plan.folder, journal, entry_of(plan, state, reason=reason), None, **made)
    finally:
        plan.lock.release()


def _with_space(entry: dict[str, Any], plan: Plan, error: BaseException | None) -> dict[str, Any]:
    """Say that the disk is full, if it is: a sweep need not try its other cells."""
    if not _is_full(error):
        return entry
    return {**entry, "full": True, "reason": f"no space left on the disk of {plan.cell.outputs}"}


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _resume(plan: Plan, folder: Path, before: dict[str, Any]) -> Path | None:
    """Find the checkpoint to go on from; remove those that must not be gone on from.

    Raises:
        DriftError: code or libraries have changed since, and `on_drift` does not say what to do.
        ValueError: there are checkpoints, and none can be read.
    """
    path, force = checkpoint_path(folder), plan.settings["force"]
    changes = drift(before) if before else []
    # A forced attempt that was stopped is gone on with; what stands there without force is recomputed.
    going_on = before.get("forced") and before.get("state") in ("running", "interrupted") and not changes
    anew = before.get("state") == "diverged" or (force and not going_on)
    if changes and not anew and plan.settings["on_drift"] != "continue":
        anew = plan.settings["on_drift"] == "restart"
        if not anew and any(path.parent.glob("*.ckpt")):
            raise DriftError(
                f"it was left unfinished under {', '.join(changes)}: on_drift=continue goes on with it, "
                "on_drift=restart begins anew"
            )
    if anew:
        CheckpointFile().remove_checkpoint(path)
    found = newest_whole(path)
    if found == previous(path) and path.exists():
        path.replace(path.with_suffix(".broken"))  # or the next checkpoint would put it in the whole one's place
    return found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with so many threads: another number adds up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
