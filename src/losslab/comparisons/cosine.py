"""The angle between features at the same place."""

from torch import Tensor

from losslab.comparisons.base import Arranged, Comparison, Map
from losslab.comparisons.spatial import Spatial
from losslab.types import Distance


class Cosine(Comparison[Tensor]):
    """Mean over places of one minus the cosine between two vectors of features.

    Formula: (1/P) Σ_p (1 - cos(x_p, y_p)) = (1/P) Σ_p ½ ‖x̂_p - ŷ_p‖², x̂_p = x_p / (‖x_p‖₂ + 1e-10).

    Computed in the second form, which loses no digits for features that are nearly equal. Two places of zeros only are
    equal, where a cosine is not defined; one such place and another vector are ½ apart.

    Source: Zhang et al., CVPR 2018, section 3: the squared distance of unit vectors is a cosine distance, here halved.

    Example:
        >>> import torch
        >>> cosine, x = Cosine(), torch.rand(1, 4, 8, 8)
        >>> cosine.compare(cosine.encode(x), cosine.encode(-x)).round()
        tensor([2.])
    """

    def __init__(self) -> None:
        """Make the inner comparison."""
        super().__init__()
        self.spatial = Spatial("l2", "sum", normalize=True)

    def settle(self, arranged: Arranged) -> Tensor:
        """Give the unit vectors, (*, C, h, w)."""
        return self.spatial.settle(arranged)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean of each pair, (*,), from 0 to 2."""
        return self.spatial.compare(a, b) / 2

    def maps(self, a: Tensor, b: Tensor) -> Map:
        """Give one minus the cosine at each place, (*, 1, h, w)."""
        return self.spatial.maps(a, b) / 2
