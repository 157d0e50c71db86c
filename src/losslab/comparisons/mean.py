"""Features compared by their means over places."""

from jaxtyping import Float
from torch import Tensor

from losslab.comparisons.base import Arranged, Comparison, Map
from losslab.comparisons.spatial import Spatial
from losslab.types import Distance, Features


class Mean(Comparison[Tensor]):
    """`Spatial` of one vector an image: the mean of each channel.

    Formula: Spatial(x̄, ȳ), x̄_c = (1/P) Σ_p x_cp; normalised after the means are taken.

    Args:
        norm: as in `Spatial`.
        channels: as in `Spatial`.
        weights: as in `Spatial`.
        normalize: as in `Spatial`.

    Paper and code: the study puts a mean at each of its channel's places and compares place by place, which gives the
        same number; here it is kept once.

    Source: `mean` of Pihlgren et al., arXiv 2302.04032, and Sjögren et al., arXiv 2207.02512.

    Example:
        >>> import torch
        >>> mean = Mean(normalize=False)
        >>> mean.compare(mean.encode(torch.zeros(1, 4, 8, 8)), mean.encode(torch.ones(1, 4, 8, 8)))
        tensor([4.])
    """

    arrangement = "mean"

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
        """Give the mean of each channel, (*, C, 1, 1)."""
        return features.mean(dim=(-2, -1), keepdim=True)

    def settle(self, arranged: Arranged) -> Tensor:
        """Do `Spatial`'s half."""
        return self.spatial.settle(arranged)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the difference of each pair, (*,)."""
        return self.spatial.compare(a, b)

    def maps(self, a: Tensor, b: Tensor) -> Map:
        """Give the difference at the one place that means have, (*, 1, 1, 1)."""
        return self.spatial.maps(a, b)
