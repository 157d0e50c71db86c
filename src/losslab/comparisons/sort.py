"""Features compared by rank instead of place."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.spatial import Spatial
from losslab.types import Distance, Features


class Sort(Comparison[Tensor]):
    """`Spatial` of each channel's values in ascending order: where a value lies plays no part.

    Formula: Spatial(s(x), s(y)), s(x)_cr = the r-th smallest of x_c; normalised after sorting, across the values of
        one rank. Without that and with l2, each channel has the squared Wasserstein-2 distance of its values.

    Args:
        norm: as in `Spatial`.
        channels: as in `Spatial`.
        weights: as in `Spatial`.
        normalize: as in `Spatial`.

    Paper and code: the study's README sorts in descending order, its code in ascending order; the distance is the same.

    Source: `sort` of Pihlgren et al., arXiv 2302.04032, and Sjögren et al., arXiv 2207.02512.

    Example:
        >>> sort, x = Sort(), torch.rand(1, 4, 8, 8)
        >>> sort.compare(sort.encode(x), sort.encode(x.flip(-1)))
        tensor([0.])
    """

    arrangement = "sorted"

    def __init__(
        self,
        norm: str = "l2",
        channels: str = "sum",
        weights: Float[Tensor, " channels"] | None = None,
        *,
        normalize: bool = True,
    ) -> None:
        """Make the inner comparison."""
        super().__init__()
        self.spatial = Spatial(norm, channels, weights, normalize=normalize)

    def arrange(self, features: Features) -> Arranged:
        """Give the values of each channel in ascending order, (*, C, h, w), row by row."""
        return ascending(features.flatten(-2)).reshape(features.shape)

    def settle(self, arranged: Arranged) -> Tensor:
        """Do `Spatial`'s half."""
        return self.spatial.settle(arranged)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the difference of each pair, (*,)."""
        return self.spatial.compare(a, b)


def ascending(values: Float[Tensor, "*#batch count"]) -> Float[Tensor, "*#batch count"]:
    """Sort along the last axis.

    Without a gradient and on the CPU by numpy, whose sort is vectorised: 7 to 15 times as fast as torch's.
    """
    tracked = torch.is_grad_enabled() and values.requires_grad
    if tracked or values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.detach().contiguous().numpy(), axis=-1))
