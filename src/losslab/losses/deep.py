"""Deep perceptual loss: the features of a network's layers, compared."""

from collections.abc import Callable
from typing import Any

from losslab.comparisons.base import Comparison
from losslab.losses.base import Loss, same_draw
from losslab.networks.base import LossNetwork
from losslab.types import Distance, Drawn, Image


class Deep(Loss[Drawn[dict[str, Any]]]):
    """The mean over layers of a comparison of their features.

    Formula: (1/L) Σ_l compare(features_l(x), features_l(y)), with equal weights.

    Args:
        network: makes the loss network when it is called with `select`, the layers.
        layers: anything that `losslab.networks.layers.canonical_layers` takes.
        compare: the comparison of one layer's features.

    Source: with a random VGG-16 and its default layers, VGGPerceptualLoss of ariel415el/PerceptualLossExperiments
        (pixels and conv1_2 to conv5_3 *before* their ReLUs, L1, divided by the number of layers).
    """

    def __init__(self, network: Callable[..., LossNetwork], layers: Any, compare: Comparison[Any]) -> None:
        """Build the network up to the deepest of the layers."""
        super().__init__()
        self.network = network(select=layers)
        self.comparison = compare
        self.min_side = self.network.min_side
        self._draw_name = self.network.draw(0)

    def draw(self, step: int) -> None:
        """Draw the network's random weights for `step`, where it has any."""
        self._draw_name = self.network.draw(step)

    def embed(self, images: Image) -> Drawn[dict[str, Any]]:
        """Encode the features of each layer for the comparison."""
        features = self.network.read(images)
        layers = {layer: self.comparison.encode(found) for layer, found in features.items()}
        # Of the images' size and no memory: features that are means over an image don't tell sizes apart.
        size = images.new_zeros(()).expand(*images.shape[:-3], 1, *images.shape[-2:])
        return Drawn({"layers": layers, "size": size}, self._draw_name)

    def terms(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Distance]:
        """Give each layer's share of the mean, by the layer's name."""
        p, q = (one["layers"] for one in same_draw(a, b))
        return {layer: self.comparison.compare(p[layer], q[layer]) / len(p) for layer in p}
