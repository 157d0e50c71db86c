"""Features compared by how much they go together, wherever they are: Gram matrices, and their diagonals."""

from jaxtyping import Float
from torch import Tensor

from losslab.comparisons.base import Arranged, Comparison
from losslab.differences import NORMS, differences
from losslab.types import Distance

DIVISORS = ("places", "all", "none")


class Gram(Comparison[Tensor]):
    """Mean difference of the Gram matrices of the features.

    Formula: mean over pairs of features (c, d) of (G_cd(x) - G_cd(y))², or of the absolute value, with
        G_cd = Σ_i F_ci F_di / (h w), i the places.

    It sees which features meet at a place, and how strongly, not where; maps of different sizes have a distance.

    Args:
        norm: "l2", without a root, or "l1".
        divisor: what sums over places are divided by: their number ("places"), that times the number of features
            ("all"), or 1 ("none").

    Raises:
        ValueError: an unknown norm or divisor.

    Paper and code: Gatys et al. write (1 / (4 N² M²)) Σ of squares without a divisor, N features and M places: a
        quarter of this distance with "places"; their code has the same without the quarter. Johnson et al. divide by
        "all" and add up the squares: N² times this distance. The default is that of the source.

    Source: gram_loss of ariel415el/PerceptualLossExperiments; Gatys et al., CVPR 2016, section 2.2; Johnson et al.,
        ECCV 2016, section 3.2.

    Example:
        >>> import torch
        >>> gram = Gram()
        >>> gram.compare(gram.encode(torch.ones(1, 4, 8, 8)), gram.encode(torch.zeros(1, 4, 6, 6)))
        tensor([1.])
    """

    def __init__(self, norm: str = "l2", divisor: str = "places") -> None:
        """Check the words."""
        super().__init__()
        self.norm, self.divisor = _known("norm", norm, NORMS), _known("divisor", divisor, DIVISORS)

    def settle(self, arranged: Arranged) -> Float[Tensor, "*#batch 1 features features"]:
        """Give the Gram matrix of each image."""
        vectors = arranged.flatten(-2)
        return (vectors @ vectors.mT / _count(arranged, self.divisor)).unsqueeze(-3)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean difference of the matrices of each pair, (*,)."""
        return _difference(a, b, self.norm)


class GramTrace(Comparison[Tensor]):
    """Mean difference of the diagonals of the Gram matrices: of each feature's mean square.

    Formula: mean over features c of (E_c(x) - E_c(y))², or of the absolute value, with E_c = Σ_i F_ci² / (h w).

    It sees how strong each feature is and neither where nor beside which; the matrices themselves are never computed.

    Args:
        norm: "l2", without a root, or "l1".
        divisor: as `Gram` has it.

    Raises:
        ValueError: an unknown norm or divisor.

    Source: gram_trace_loss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> trace = GramTrace()
        >>> trace.compare(trace.encode(torch.full((1, 4, 8, 8), 2.0)), trace.encode(torch.zeros(1, 4, 6, 6)))
        tensor([16.])
    """

    def __init__(self, norm: str = "l2", divisor: str = "places") -> None:
        """Check the words."""
        super().__init__()
        self.norm, self.divisor = _known("norm", norm, NORMS), _known("divisor", divisor, DIVISORS)

    def settle(self, arranged: Arranged) -> Float[Tensor, "*#batch features 1 1"]:
        """Give the mean square of each feature."""
        return arranged.square().sum(dim=(-2, -1), keepdim=True) / _count(arranged, self.divisor)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean difference of the mean squares of each pair, (*,)."""
        return _difference(a, b, self.norm)


def _known(what: str, word: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise ValueError(f"{what} is one of {', '.join(words)}, got {word!r}")
    return word


def _count(features: Tensor, divisor: str) -> int:
    if divisor == "none":
        return 1
    return features.shape[-2:].numel() * (features.shape[-3] if divisor == "all" else 1)


def _difference(a: Tensor, b: Tensor, norm: str) -> Distance:
    return differences(a, b, norm).mean(dim=(-3, -2, -1))
