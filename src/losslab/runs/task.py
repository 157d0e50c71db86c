"""What a run asks of a task: the one protocol by which results reach the journal."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from losslab.divergence import DivergedError


class Task(Protocol):
    """A LightningModule that also tells what it found; it knows nothing of runs."""

    stages: tuple[str, ...]
    """The trainer's methods to call in turn, "fit" and "test"."""

    primary: str
    """The score in `rows` that a sweeper maximises, with a minus in front if less is better."""

    def rows(self) -> list[dict[str, Any]]:
        """Give the results after the last stage, one flat dict of numbers and words a row."""
        ...

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Tensor]:
        """Give what there is to see after `step` steps, or at the end: bytes (3, H, W) by file name."""
        ...


@runtime_checkable
class MayDiverge(Protocol):
    """A task some of whose rows may lack the score, while the others stand."""

    diverged: DivergedError | None
    """What is wrong with those rows, if any; the cell ends by it when all results are written."""


@runtime_checkable
class GivesFiles(Protocol):
    """What a task has besides, whose results are more than rows and pictures."""

    def files(self) -> dict[str, bytes]:
        """Give the contents of files, by the names that they shall have in the cell's folder."""
        ...


@runtime_checkable
class Measured(Protocol):
    """What a task's class has besides, whose cells can be measured by further losses when they are done."""

    stored: str
    """The name of the file in the cell's folder that is measured; what it holds must be all that counts."""

    @staticmethod
    def measure(stored: Path, loss: Any) -> dict[str, float]:
        """Give the mean loss over the cell's sets: of what it began with as "start", of its result as "end".

        Args:
            stored: the cell's file of that name.
            loss: built and as `loss=` gives it; gradients are off.
        """
        ...
