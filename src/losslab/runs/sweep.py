"""A sweep: every cell once, whatever becomes of the others, and at the end a table that names them all."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from losslab.runs.crews import Crew
from losslab.runs.interrupts import Interrupted
from losslab.runs.journal import Journal
from losslab.runs.locks import LockError
from losslab.runs.plan import Plan
from losslab.runs.sentences import sentence
from losslab.runs.states import Outcome, entry_of, standing

POLL_SECONDS = 0.5
"""Between two looks at cells that other processes compute."""

RETRIED = ("failed", "interrupted")
"""States after which another try may help; a cell that diverged would do so again."""


@dataclass(frozen=True)
class Rules:
    """What to do when a cell does not end well.

    Args:
        on_error: "continue", or "stop" to begin no further cell.
        retries: how often to try a cell again that failed or whose process was killed.
        on_drift: "refuse", "continue" or "restart" an unfinished cell whose code or libraries have changed.

    Raises:
        ValueError: another word, or a negative number.
    """

    on_error: str = "continue"
    retries: int = 0
    on_drift: str = "refuse"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.on_error not in ("continue", "stop"):
            raise ValueError(f"on_error is continue or stop, got {self.on_error!r}")
        if self.on_drift not in ("refuse", "continue", "restart"):
            raise ValueError(f"on_drift is refuse, continue or restart, got {self.on_drift!r}")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"retries is a whole number from 0, got {self.retries!r}")


class Sweep:
    """Brings every plan to an outcome.

    Args:
        plans: what to compute, each cell once.
        crew: who computes.
        journal: where results are looked up.
        rules: what to do when a cell does not end well.
        tell: is called with each outcome that was computed, and with how many are settled.
        waiting: is called once with the cells that are only waited for.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        crew: Crew,
        journal: Journal,
        rules: Rules,
        tell: Callable[[Outcome, int], None],
        waiting: Callable[[Sequence[Plan]], None],
    ) -> None:
        """Queue all cells."""
        self.plans, self.crew, self.journal, self.rules = plans, crew, journal, rules
        self.tell, self.waiting, self.waits = tell, waiting, False
        self.todo, self.elsewhere = deque(plans), list[Plan]()
        self.settled: dict[str, Outcome] = {}
        self.tries: Counter[str] = Counter()
        self.waited: dict[str, int] = {}
        """Lines that the journal had when the wait for a cell began."""
        self.stopped_by: str | None = None
        """Why no further cell began, if so."""

    def run(self) -> list[Outcome]:
        """Compute what is not done, wait for what others compute, and give an outcome a plan, in their order.

        Raises:
            Interrupted: somebody asked to stop; `outcomes` tells how far it came.
        """
        try:
            while self.todo or self.crew.busy or self.elsewhere:
                self._start()
                self._take_ended()
                self._look_elsewhere()
        except Interrupted as stop:
            if stop.outcome is not None:
                self.settled[stop.outcome.plan.cell.id] = stop.outcome
            for plan, outcome in self.crew.stop():
                if outcome is not None:
                    self.settled[plan.cell.id] = outcome
            raise
        except BaseException:
            self.crew.stop()
            raise
        return self.outcomes()

    def outcomes(self) -> list[Outcome]:
        """Give an outcome a plan, in their order; of what did not end here, the journal and the locks tell."""
        self.journal.read()
        return [self.settled.get(plan.cell.id) or self._unsettled(plan) for plan in self.plans]

    def _unsettled(self, plan: Plan) -> Outcome:
        if (entry := self.journal.cells.get(plan.cell.id)) is not None:
            return Outcome(plan, entry, again=True)
        with contextlib.suppress(OSError, LockError):
            if not plan.lock.is_free():
                return Outcome(plan, entry_of(plan, "running", reason=f"by {plan.lock.owner}"))
        return Outcome(plan, entry_of(plan, "planned"))

    def _start(self) -> None:
        while self.todo and self.crew.free:
            plan = self.todo.popleft()
            self.journal.read()
            known = standing(plan, self.journal) or self._failed_elsewhere(plan)
            if known is not None:
                self.settled[plan.cell.id] = known
                continue
            try:
                free = plan.lock.is_free()
            except (OSError, LockError) as error:
                failed = entry_of(plan, "failed", reason=sentence(error))
                self.settled[plan.cell.id] = Outcome(plan, failed, error=error)
                continue
            if not free:
                self._wait_for(plan)
            else:
                self.tries[plan.cell.id] += 1
                self.crew.start(plan, plan.lock.owner)

    def _failed_elsewhere(self, plan: Plan) -> Outcome | None:
        """Take the failure of the process that was waited for: it need not be computed once more."""
        entry = self.journal.cells.get(plan.cell.id)
        new = self.journal.line_of.get(plan.cell.id, 0) > self.waited.get(plan.cell.id, self.journal.lines)
        return Outcome(plan, entry) if entry is not None and new and entry["state"] == "failed" else None

    def _take_ended(self) -> None:
        for plan, outcome in self.crew.ended():
            self._settle(plan, outcome)

    def _settle(self, plan: Plan, outcome: Outcome | None) -> None:
        if outcome is None:
            self._wait_for(plan)
            return
        hopeless = outcome.entry.get("refused") or outcome.entry.get("full")
        if outcome.state in RETRIED and not hopeless and self.tries[plan.cell.id] <= self.rules.retries:
            self.todo.append(plan)
            return
        if len(self.plans) > 1:
            outcome = replace(outcome, error=None)  # its traceback would keep the failed cell's model in memory
        self.settled[plan.cell.id] = outcome
        self.tell(outcome, len(self.settled))
        if outcome.entry.get("full"):
            self.stop(str(outcome.entry["reason"]))
        elif outcome.state != "done" and self.rules.on_error == "stop":
            self.stop(f"on_error=stop, and {plan.folder.name} {outcome.state}")

    def stop(self, why: str) -> None:
        """Begin no further cell."""
        self.stopped_by = why
        self.todo.clear()
        self.elsewhere.clear()

    def _wait_for(self, plan: Plan) -> None:
        if self.stopped_by is None:
            self.elsewhere.append(plan)
            self.waited.setdefault(plan.cell.id, self.journal.lines)

    def _look_elsewhere(self) -> None:
        """When there is nothing else to do, look whether the cells of other processes have come free or are done."""
        if self.elsewhere and not self.todo and not self.crew.busy:
            if not self.waits:
                self.waiting(self.elsewhere)
            self.waits = True
            time.sleep(POLL_SECONDS)
            self.todo.extend(self.elsewhere)
            self.elsewhere.clear()
