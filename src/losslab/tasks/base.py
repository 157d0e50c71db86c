"""What a run asks of a task: the one protocol by which results reach the journal."""

from typing import Any, Protocol

from losslab.types import Bytes


class Task(Protocol):
    """A LightningModule that also tells what it found.

    Attributes:
        stages: the trainer's methods to call in turn, "fit" and "test".
        primary: the score in `rows` that a sweeper maximises, with a minus in front if less is better.
    """

    stages: tuple[str, ...]
    primary: str

    def rows(self) -> list[dict[str, Any]]:
        """Give the results, one flat dict of numbers and words a row, after the last stage."""
        ...

    def pictures(self, step: int) -> dict[str, Bytes]:
        """Give what there is to see after `step` steps, (3, H, W) by file name."""
        ...

    def final_pictures(self) -> dict[str, Bytes]:
        """Give what there is to see at the end, (3, H, W) by file name."""
        ...
