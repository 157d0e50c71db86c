"""Features compared at the same place."""

from torch import Tensor

from losslab.comparisons.base import Comparison
from losslab.types import Distance, Features


class Spatial(Comparison[Tensor]):
    """Mean over features and places of the absolute or squared difference.

    Args:
        norm: "l1" or "l2", the latter without a root.

    Example:
        >>> import torch
        >>> Spatial("l2").compare(torch.zeros(2, 4, 8, 8), torch.full((1, 4, 8, 8), 2.0))
        tensor([4., 4.])
    """

    def __init__(self, norm: str = "l1") -> None:
        """Check the norm."""
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm is 'l1' or 'l2', got {norm!r}")
        self.norm = norm

    def encode(self, features: Features) -> Features:
        """Keep the features as they are."""
        return features

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean difference of each pair, (*,)."""
        difference = a - b
        return (difference.abs() if self.norm == "l1" else difference.square()).mean(dim=(-3, -2, -1))
