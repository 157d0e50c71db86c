"""Deep perceptual loss: the features of a network's layers, compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from losslab.checks import check_weights
from losslab.comparisons.base import Comparison, Map
from losslab.losses.base import Loss, same_draw
from losslab.networks.base import LossNetwork
from losslab.types import Distance, Drawn, Features, Image, leaves

OVER_LAYERS = ("mean", "sum")


class Deep(Loss[Drawn[dict[str, Any]]]):
    """The mean or sum over layers of comparisons of their features.

    Formula: s Σ_l λ_l compare_l(features_l(x), features_l(y)), s = 1/L for the mean and 1 for the sum over L layers.

    Args:
        network: makes the loss network when it is called with `select`, the layers.
        layers: anything that `losslab.networks.layers.canonical_layers` takes.
        compare: the comparison of one layer's features; one for all layers, a list in the network's order, or a mapping
            from all canonical names.
        over_layers: "mean" or "sum"; the mean divides by the number of layers, whatever their weights.
        layer_weights: λ from 0, given as a list or mapping like comparisons; None is 1 for all.

    Raises:
        ValueError: lists or mappings that don't fit the layers, a word that is none, or weights that are no numbers
            from 0, or all 0.

    Paper and code: VGGPerceptualLoss divides by the number of layers (the default here), the study of loss networks and
        LPIPS add layers up (`over_layers=sum`).

    Source: with a random VGG-16 and its default layers, VGGPerceptualLoss of ariel415el/PerceptualLossExperiments
        (pixels and conv1_2 to conv5_3 *before* their ReLUs, L1, divided by the number of layers); with
        `compare=spatial`, `mean`, `sort` and sums of these, the study of Pihlgren et al., arXiv 2302.04032.
    """

    def __init__(
        self,
        network: Callable[..., LossNetwork],
        layers: Any,
        compare: Comparison[Any] | Sequence[Comparison[Any]] | Mapping[str, Comparison[Any]],
        over_layers: str = "mean",
        layer_weights: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        """Build the network up to the deepest of the layers."""
        super().__init__()
        if over_layers not in OVER_LAYERS:
            raise ValueError(f"over_layers is one of {', '.join(OVER_LAYERS)}, got {over_layers!r}")
        self.make_network = network
        self.network = network(select=layers)
        names = self.network.layers
        self.comparisons = nn.ModuleList(by_layer("compare", compare, names).values())
        share = 1 / len(names) if over_layers == "mean" else 1.0
        weights = by_layer("layer_weights", 1.0 if layer_weights is None else layer_weights, names)
        check_weights("layer_weights", weights)
        self.factors = {layer: share * weight for layer, weight in weights.items()}
        self.min_side = self.network.min_side
        self.draw(0)

    @property
    def deep(self) -> "Deep":
        """The deep loss itself, by the name under which a loss around one has it."""
        return self

    @property
    def per_layer(self) -> dict[str, Comparison[Any]]:
        """The comparison of each layer."""
        return dict(zip(self.network.layers, self.comparisons, strict=True))  # type: ignore[arg-type]

    def draw(self, step: int) -> None:
        """Draw the random weights of the network, and what is random in the comparisons, for `step`."""
        draws = [self.network.draw(step), *(one.draw(step) for one in self.per_layer.values())]
        self.draw_name = "; ".join(name for name in dict.fromkeys(draws) if name != "fixed") or "fixed"

    def embed(self, images: Image) -> Drawn[dict[str, Any]]:
        """Encode the features of each layer for its comparison."""
        return self.keep(self.network.read(images), size_of(images))

    def keep(self, features: Mapping[str, Features], size: Tensor) -> Drawn[dict[str, Any]]:
        """Do the part of `embed` that follows the network.

        Args:
            features: of the loss's layers, by name; others are left alone.
            size: of the images, from `size_of`.
        """
        layers = {}
        for layer, one in self.per_layer.items():
            with naming(layer):
                layers[layer] = one.encode(features[layer])
        return Drawn({"layers": layers, "size": size}, self.draw_name)

    def terms(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Distance]:
        """Give each layer's weighted share, by the layer's name."""
        p, q = (one["layers"] for one in same_draw(a, b))
        return {layer: self.factors[layer] * one.compare(p[layer], q[layer]) for layer, one in self.per_layer.items()}

    def places(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> Map:
        """Give every layer's map, scaled up bilinearly and added up, (*, 1, H, W).

        Raises:
            ValueError: a comparison does not go place by place.
        """
        return torch.stack(list(self.layer_maps(a, b).values())).sum(0)

    def layer_maps(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Map]:
        """Give what makes up `maps`, by the layer's name.

        Raises:
            ValueError: the encodings don't fit, or a comparison does not go place by place.
        """
        self.check_alike(a, b)
        p, q = same_draw(a, b)
        with torch.autocast(leaves(a)[0].device.type, enabled=False):
            return {
                layer: self.factors[layer] * _spread(one.maps(p["layers"][layer], q["layers"][layer]), p["size"])
                for layer, one in self.per_layer.items()
            }


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the name of a layer before what a comparison says of its features.

    Raises:
        ValueError: the comparison refuses them.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {layer}: {error}") from error


def size_of(images: Image) -> Tensor:
    """Keep the size of images, (*, 1, H, W), in no memory: features that are means don't tell sizes apart."""
    return images.new_zeros(()).expand(*images.shape[:-3], 1, *images.shape[-2:])


def by_layer(name: str, given: Any, layers: Sequence[str]) -> dict[str, Any]:
    """Turn one value for all layers, a list, or a mapping into a mapping in the network's order.

    Args:
        name: of the argument; named in errors.
        given: a value, or one for each layer.
        layers: canonical names.

    Raises:
        ValueError: a list of another length, or a mapping of other layers.

    Example:
        >>> by_layer("layer_weights", {"b": 2.0, "a": 1.0}, ["a", "b"])
        {'a': 1.0, 'b': 2.0}
    """
    if isinstance(given, Mapping):
        if given.keys() != set(layers):
            raise ValueError(f"{name} is for the layers {', '.join(given)}, but the loss has {', '.join(layers)}")
        return {layer: given[layer] for layer in layers}
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(layers):
            raise ValueError(f"{name} has {len(given)} entries for {len(layers)} layers: {', '.join(layers)}")
        return dict(zip(layers, given, strict=True))
    return dict.fromkeys(layers, given)


def _spread(found: Map, size: Tensor) -> Map:
    """Scale maps up to the images' size, pixels seen as squares."""
    flat = found.reshape(-1, *found.shape[-3:])
    large = functional.interpolate(flat, size.shape[-2:], mode="bilinear", align_corners=False)
    return large.reshape(*found.shape[:-2], *size.shape[-2:])
