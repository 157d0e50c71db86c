"""Pairs of pictures in an order in which near ones share pictures."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def tiles(pairs: Int[Tensor, "pairs 2"], block: int) -> Sequence[Tensor]:
    """Give the numbers of the pairs of each tile: `block` first and `block` second pictures at most.

    Args:
        pairs: indices of pictures, (M, 2).
        block: pictures in a row or column of a tile.

    Example:
        >>> tiles(torch.tensor([[0, 1], [0, 3], [1, 0], [1, 2]]), 2)
        (tensor([0, 2]), tensor([1, 3]))
    """
    place = pairs // block
    order = (place[:, 0] * (place.max() + 1) + place[:, 1]).sort(stable=True)
    return torch.split(order.indices, order.values.unique_consecutive(return_counts=True)[1].tolist())
