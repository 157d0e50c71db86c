"""From coarse to fine: how large images are, and how fast they move, before they have their full size."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coarse:
    """The levels of an optimisation before the full size.

    Args:
        levels: how many; 0: the full size only.
        factor: of the sides from one level to the next coarser one.
        steps: of each level.
        lr: learning rate of the coarsest level.
        lr_decay: factor of the learning rate from one level to the next finer one.

    Raises:
        ValueError: a number out of its range.

    Source: the multi-scale optimisation of perceptual_mean_optimization in ariel415el/PerceptualLossExperiments.

    Example:
        >>> coarse = Coarse(levels=2, factor=0.5, steps=10)
        >>> [coarse.level(step) for step in (0, 10, 20)], coarse.size(2, (64, 48))
        ([2, 1, 0], (16, 12))
    """

    levels: int = 0
    factor: float = 0.69
    steps: int = 1000
    lr: float = 0.005
    lr_decay: float = 0.9

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.levels < 0 or self.steps < 1 or not 0 < self.factor < 1:
            raise ValueError(
                "task.coarse has levels from 0, steps from 1 and a factor between 0 and 1, got "
                f"{self.levels}, {self.steps} and {self.factor}"
            )
        if not (self.lr > 0 and self.lr_decay > 0):
            raise ValueError(f"task.coarse.lr and lr_decay are more than 0, got {self.lr} and {self.lr_decay}")

    @property
    def before(self) -> int:
        """Count the steps before the full size."""
        return self.levels * self.steps

    def level(self, step: int) -> int:
        """Give the level of a step; 0 is the full size."""
        return max(0, self.levels - step // self.steps)

    def size(self, level: int, full: tuple[int, int]) -> tuple[int, int]:
        """Give height and width of a level."""
        height, width = (max(1, round(side * self.factor**level)) for side in full)
        return height, width

    def rate(self, level: int) -> float:
        """Give the learning rate of a level before the full size."""
        return self.lr * self.lr_decay ** (self.levels - level)
