"""What a run asks of a task: the one protocol by which results reach the journal."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


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
class GivesFiles(Protocol):
    """What a task has besides, whose results are more than rows and pictures."""

    def files(self) -> dict[str, bytes]:
        """Give the contents of files, by the names that they shall have in the cell's folder."""
        ...
