"""Features compared as distributions: the maximum mean discrepancy (MMD) between the features of all places."""

from typing import Any

from torch import Tensor

from losslab.checks import check_number
from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.pairs import means, points, squared_distances
from losslab.types import Distance

KERNELS = ("linear", "gaussian")

LEAST_EXPONENT = -80.0
"""Exponents below this one give as good as zero; numbers below 2^-126 take several times as long to compute."""


class MMD(Comparison[dict[str, Any]]):
    """The squared MMD between the features that two maps have at their places.

    Formula: mean k(p, p') + mean k(q, q') - 2 mean k(p, q), with p, p' the features of places of x and q, q' those of
        y, each place with itself among them; k(p, q) = p · q for kernel="linear", which makes it
        |mean p - mean q|²; k(p, q) = exp(-|p - q|² / (2 sigma²)) for "gaussian".

    It sees which features a map has, not where, and the linear kernel their means only. It is 0 or more. The means of
    an image with itself are part of its encoding. Kernels are computed a tile at a time, also on the way back, so that
    memory grows with the places and not with their square; maps of different sizes have a distance.

    Args:
        kernel: "linear" or "gaussian".
        sigma: bandwidth in the units of the features, more than 0; the linear kernel has none.

    Raises:
        ValueError: an unknown kernel, or a sigma that is not more than 0.

    Paper and code: The original takes the means over all places *and images* of a batch, features of all layers in one
        vector, and puts features of one image where those of the other belong; here each pair has its own distance.

    Source: the squared distance of mean features as a loss of generative moment matching,
        ariel415el/PerceptualLossExperiments; Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 5.

    Example:
        >>> import torch
        >>> mmd = MMD()
        >>> mmd.compare(mmd.encode(torch.ones(1, 4, 8, 8)), mmd.encode(torch.zeros(1, 4, 6, 6)))
        tensor([4.])
    """

    def __init__(self, kernel: str = "linear", sigma: float = 1.0) -> None:
        """Check the arguments."""
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel is one of {', '.join(KERNELS)}, got {kernel!r}")
        check_number("sigma", sigma, above=0)
        self.kernel, self.sigma = kernel, sigma

    def settle(self, arranged: Arranged) -> dict[str, Any]:
        """Give the mean features, or the features and the mean kernel of each image with itself."""
        if self.kernel == "linear":
            return {"mean": arranged.mean(dim=(-2, -1), keepdim=True)}
        return {"features": arranged, "within": self._mean(arranged, arranged)[..., None, None, None]}

    def compare(self, a: dict[str, Any], b: dict[str, Any]) -> Distance:
        """Give the squared discrepancy of each pair, (*,)."""
        if self.kernel == "linear":
            difference: Tensor = a["mean"] - b["mean"]
            return difference.square().sum(dim=(-3, -2, -1))
        between = self._mean(a["features"], b["features"])
        within = (a["within"] + b["within"]).flatten(-3).squeeze(-1)
        return (within - 2 * between).clamp_min(0).to(a["features"].dtype)  # rounding may leave less than 0

    def _mean(self, a: Arranged, b: Arranged) -> Distance:
        left, right = squared_distances(points(a), points(b))
        return means(_kernels, left * (-0.5 / self.sigma**2), right)


def _kernels(left: Tensor, right: Tensor, _: Tensor) -> Tensor:
    """Give rows of Gaussian kernels; rounding may leave them above 1 by a digit."""
    return (left @ right.mT).clamp_min(LEAST_EXPONENT).exp()
