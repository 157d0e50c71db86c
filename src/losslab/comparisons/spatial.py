"""Features compared at the same place."""

import torch
from jaxtyping import Float
from torch import Tensor

from losslab.checks import check_switch
from losslab.comparisons.base import Arranged, Comparison, Map
from losslab.differences import NORMS, differences
from losslab.types import Distance

CHANNELS = ("sum", "mean")

EPSILON = 1e-10
"""What is added to a norm before it divides: normalize_tensor of richzhang/PerceptualSimilarity."""


class Spatial(Comparison[Tensor]):
    """Mean over places of the difference between two vectors of features, absolute or squared.

    Formula: (1/P) Σ_p Σ_c w_c |x̂_cp - ŷ_cp|^k, k = 1 or 2, x̂_p = x_p / (‖x_p‖₂ + 1e-10) where normalised.

    A place whose features are all zero has the unit vector zero, and takes no gradient.

    Args:
        norm: "l1" or "l2", the latter without a root.
        channels: "sum" or "mean" of the channels' differences.
        weights: one number a channel, (C,), at least 0; None weighs all alike.
        normalize: divide the features of a place by their norm.

    Raises:
        ValueError: a norm or channels that are none, weights that are no vector of numbers from 0, or features of one
            channel where they are normalised.

    Paper and code: equation 1 of Zhang et al. scales the difference by the weights before it is squared; their code
        scales the square, its published weights are meant so, and so it is here. The study adds nothing to the norm but
        bounds it from below, by 1e-12, which no feature feels.

    Source: Zhang et al., CVPR 2018, section 3; `spatial` of Pihlgren et al., arXiv 2302.04032 (l2, sum, normalised);
        metrics `l1` and `l2` of VGGPerceptualLoss in ariel415el/PerceptualLossExperiments (mean, not normalised).

    Example:
        >>> spatial = Spatial("l2", "mean", normalize=False)
        >>> spatial.compare(torch.zeros(2, 4, 8, 8), torch.full((1, 4, 8, 8), 2.0))
        tensor([4., 4.])
    """

    weights: Tensor | None

    def __init__(
        self,
        norm: str = "l2",
        channels: str = "sum",
        weights: Float[Tensor, " channels"] | None = None,
        *,
        normalize: bool = True,
    ) -> None:
        """Check the words and keep the weights, as a buffer."""
        super().__init__()
        if norm not in NORMS or channels not in CHANNELS:
            raise ValueError(
                f"norm is one of {', '.join(NORMS)} and channels one of {', '.join(CHANNELS)}, "
                f"got {norm!r} and {channels!r}"
            )
        if weights is not None and (weights.ndim != 1 or not bool((weights.isfinite() & (weights >= 0)).all())):
            found = f"{tuple(weights.shape)} from {weights.min()} to {weights.max()}"
            raise ValueError(f"weights are a vector of numbers from 0, got {found}")
        check_switch("normalize", normalize)
        self.norm, self.channels, self.normalize = norm, channels, normalize
        self.register_buffer("weights", None if weights is None else weights.clone(), persistent=False)

    def settle(self, arranged: Arranged) -> Tensor:
        """Normalise and weigh the features, (*, C, h, w).

        Raises:
            ValueError: there are more or fewer channels than weights, or one alone is to be normalised.
        """
        if self.normalize and arranged.shape[-3] == 1:
            raise ValueError(
                "normalised features of one channel are their signs: take another layer, or a comparison that does not "
                "normalise, such as compare=l1 or one with normalize=false"
            )
        vectors = unit(arranged) if self.normalize else arranged
        if self.weights is None:
            return vectors
        if len(self.weights) != arranged.shape[-3]:
            raise ValueError(f"there are {len(self.weights)} weights for {arranged.shape[-3]} channels")
        # Inside of the power, so that `compare` is the same with weights and without.
        inside = self.weights if self.norm == "l1" else self.weights.sqrt()
        return vectors * inside[:, None, None]

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean difference of each pair, (*,)."""
        powers = differences(a, b, self.norm)
        # Not torch's own mean: its gradient fills a tensor of that size, that of a sum is a number.
        count = powers.shape[-3:] if self.channels == "mean" else powers.shape[-2:]
        return powers.sum(dim=(-3, -2, -1)) / count.numel()

    def maps(self, a: Tensor, b: Tensor) -> Map:
        """Give the difference at each place, (*, 1, h, w)."""
        powers = differences(a, b, self.norm)
        return powers.mean(-3, keepdim=True) if self.channels == "mean" else powers.sum(-3, keepdim=True)


def unit(vectors: Float[Tensor, "*#batch"], dim: int | tuple[int, ...] = -3) -> Float[Tensor, "*#batch"]:
    """Divide by the norm over `dim`, to which `EPSILON` is added; a zero vector stays, and takes no gradient."""
    # Not torch's own norm: across planes it takes 8 to 20 times as long as this sum, and has three times its error.
    squares = vectors.square().sum(dim, keepdim=True)
    none = squares == 0
    return vectors / torch.where(none, torch.inf, squares.masked_fill(none, 1).sqrt() + EPSILON)
