"""The angle between whole maps of features."""

from torch import Tensor

from losslab.checks import check_switch
from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.spatial import unit
from losslab.types import Distance

OWN_AXES = (-3, -2, -1)


class Dot(Comparison[Tensor]):
    """One minus the inner product of all features of a layer.

    Formula: 1 - <x̂, ŷ> = ½ ‖x̂ - ŷ‖², x̂ = x / (‖x‖₂ + 1e-10) over all channels and places; or 1 - <x, y>.

    Two maps of zeros only are equal where maps are normalised, one such map and another are ½ apart.

    Args:
        normalize: divide each map by its norm; otherwise the number is no distance: it has no lower bound, and falls
            with the size of the features.

    Paper and code: the source's metric `dot` is not normalised, which a note there calls unfinished; `normalize=false`
        gives its number. Normalised is the default, because only then equal images are the nearest. The source's result
        has two axes too many, of length one.

    Source: metric `dot` of VGGPerceptualLoss in ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> dot, x = Dot(), torch.rand(1, 4, 8, 8)
        >>> dot.compare(dot.encode(x), dot.encode(3 * x)).abs() < 1e-6
        tensor([True])
    """

    def __init__(self, *, normalize: bool = True) -> None:
        """Keep the switch."""
        super().__init__()
        check_switch("normalize", normalize)
        self.normalize = normalize

    def settle(self, arranged: Arranged) -> Tensor:
        """Divide each map by its norm, (*, C, h, w)."""
        return unit(arranged, OWN_AXES) if self.normalize else arranged

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the number of each pair, (*,), from 0 to 2 where normalised."""
        if self.normalize:
            return (a - b).square().sum(OWN_AXES) / 2
        return 1 - (a * b).sum(OWN_AXES)
