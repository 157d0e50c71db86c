"""|a - b| and (a - b)², number by number, each in one pass over memory and one of its gradient."""

import torch
from torch import Tensor
from torch.nn import functional

NORMS = ("l1", "l2")
LEAST = torch.finfo(torch.float32).tiny
"""Below this, |a - b| is made smooth."""


def differences(a: Tensor, b: Tensor, norm: str) -> Tensor:
    """Give |a - b| for "l1" and (a - b)² for "l2"; the axes broadcast.

    torch's fused losses keep nothing but a and b for the gradient, and read and write half as much as two operations
    one after the other. At a = b the gradient is 0.

    Example:
        >>> differences(torch.tensor([1.0, 2.0, 4.0]), torch.tensor(2.0), "l1")
        tensor([1., 0., 2.])
    """
    if not a.stride()[-1:] == b.stride()[-1:] == (1,):
        # Fused gradients are always laid out row by row, which costs more than it saves where features are not.
        return (a - b).abs() if norm == "l1" else (a - b).square()
    a, b = torch.broadcast_tensors(a, b)
    if norm == "l1":
        return functional.smooth_l1_loss(a, b, reduction="none", beta=LEAST)
    return functional.mse_loss(a, b, reduction="none")
