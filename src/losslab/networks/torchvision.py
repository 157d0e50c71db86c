"""torchvision's architectures as loss networks: any graph node, computed up to the deepest one asked for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from losslab.networks.base import LossNetwork
from losslab.networks.layers import PIXELS, canonical_layers
from losslab.networks.weights import RandomWeights
from losslab.types import Features, Image


class TorchvisionNetwork(LossNetwork):
    """A torchvision architecture, cut after the deepest layer asked for.

    Args:
        name: of the architecture, as `torchvision.models.get_model` knows it.
        layers: canonical name to graph node, from the image upwards; `conf/network` has the tables.
        min_sides: smallest image side in pixels that reaches a layer, for the layers that need more than one pixel.
        slots: canonical names of the four study layers.
        weights: where the weights come from.
        select: the layers to read: anything that `canonical_layers` takes.

    Raises:
        KeyError: an unknown layer.

    Source: torchvision's `create_feature_extractor`, which prunes what lies behind the deepest node.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        layers: Mapping[str, str],
        min_sides: Mapping[str, int],
        slots: Sequence[str],
        weights: RandomWeights,
        select: str | int | Sequence[str | int],
    ) -> None:
        """Build the architecture up to the deepest layer and fill it with the first draw of weights."""
        super().__init__()
        self.name, self.weights = name, weights
        self.layers = canonical_layers({"name": name, "layers": layers, "slots": slots}, select)
        self.min_side = max(min_sides.get(layer, 1) for layer in self.layers)
        self.register_buffer("mean", torch.tensor(weights.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(weights.std)[:, None, None], persistent=False)
        nodes = {layers[layer]: layer for layer in self.layers if layer != PIXELS}
        self.extractor = _cut(name, nodes) if nodes else None
        self._draw_index = -1
        self.draw(0)
        self.freeze()

    def draw(self, step: int) -> str:
        """Fill in the weights of `step`, where new ones are due, and name the draw."""
        if self.extractor is not None and self.weights.draw_index(step) != self._draw_index:
            self.draw_name = f"{self.name}, {self.weights.fill(self.extractor, step)}"
            self._draw_index = self.weights.draw_index(step)
        return self.draw_name if self.extractor is not None else "fixed"

    def read(self, images: Image) -> dict[str, Features]:
        """Give the features of each layer, (*, C, h, w), for images (*, 3, H, W) in [0, 1].

        Raises:
            ValueError: the images have another number of channels than 3.
        """
        if images.shape[-3] != 3:
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        normalised = (images - self.mean) / self.std
        found = {PIXELS: normalised} if PIXELS in self.layers else {}
        if self.extractor is not None:
            features = self.extractor(normalised.reshape(-1, *images.shape[-3:]))
            found |= {layer: map_.reshape(*images.shape[:-3], *map_.shape[1:]) for layer, map_ in features.items()}
        return {layer: found[layer] for layer in self.layers}


def _cut(name: str, nodes: dict[str, str]) -> nn.Module:
    """Build an architecture up to the last of `nodes` without paying for what lies behind, weights undefined."""
    with torch.device("meta"):
        model = models.get_model(name, weights=None).eval()
    for layer in model.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # or a ReLU would overwrite the convolution's output that was asked for
    return create_feature_extractor(model, nodes).to_empty(device="cpu")
