"""LPIPS: differences of unit vectors of features, weighed by heads that people's judgements taught."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.comparisons.base import Map
from losslab.comparisons.spatial import Spatial
from losslab.losses.base import Loss
from losslab.losses.deep import Deep
from losslab.networks.base import LossNetwork
from losslab.networks.graph import fed
from losslab.networks.heads import INPUT, PUBLISHED, VERSIONS, heads_of, published_heads
from losslab.networks.weights import INPUTS
from losslab.types import Distance, Drawn, Image

UNWEIGHTED, FILE = "none", "file"


class LPIPS(Loss[Drawn[dict[str, Any]]]):
    """Learned Perceptual Image Patch Similarity.

    Formula: Σ_l (1/P_l) Σ_p Σ_c w_lc (x̂_lcp - ŷ_lcp)², x̂_lp = x_lp / (‖x_lp‖₂ + 1e-10), x_l the features of layer l.

    Args:
        network: makes the loss network when it is called with `select`, the layers.
        layers: of the network; published heads belong to five or seven of them, `lpips_layers` in `conf/network`.
        heads: w: "v0.1", "v0.0", "none" (all are 1, the source's baseline), or "file".
        net: whose published heads are meant: "alexnet", "squeezenet1_1" or "vgg16".
        heads_path: of the file, with the keys of `lpips/weights`, where `heads` is "file".
        sha256: of that file; None takes any.

    Raises:
        ValueError: heads that don't belong to the network, its layers or the range of images that it is fed.
        OSError: a file that can't be read.

    Paper and code: equation 1 of the paper squares the weights; its code and its published heads are linear in them, as
        here. Version 0.0 of the code does not scale its input, so its heads want images in [-1, 1], those of 0.1
        ImageNet's mean and deviation. `weights.input=own` gives them what they want, and
        what 0.1 wants without published heads; another range is refused for these. The code's
        documentation has layers averaged without heads; they are added up. Its option without dropout leaves the heads
        random; here a file is read whole or refused. Its norm has the gradient NaN where all features of a place are
        zero, ours zero. The copy in torchmetrics adds 1e-8 inside the root instead of 1e-10 behind it.

    Source: Zhang et al., CVPR 2018, section 3; class LPIPS of richzhang/PerceptualSimilarity.
    """

    def __init__(
        self,
        network: Callable[..., LossNetwork],
        layers: Any,
        heads: str = "v0.1",
        net: str = "alexnet",
        heads_path: str | None = None,
        sha256: str | None = None,
    ) -> None:
        """Read the heads and build the network up to the deepest of the layers."""
        super().__init__()
        if (heads_path is not None) != (heads == FILE):
            raise ValueError(f"heads_path is that of heads=file, got {heads_path!r} for heads={heads!r}")
        read = _read(heads, net, heads_path, sha256)
        made = network(select=layers)
        if getattr(getattr(made, "weights", None), "input", None) == "own":
            wanted = INPUTS[INPUT.get(heads, INPUT["v0.1"])]
            made.feed(wanted)  # type: ignore[operator]
            network = partial(fed, network, wanted)
        if heads in VERSIONS:
            _check_published(made, heads, net)
        elif read is not None:
            _check_channels(made, read)
        compare = Spatial("l2", "sum") if read is None else [Spatial("l2", "sum", weights) for weights in read]
        self.deep = Deep(lambda **_: made, layers, compare, over_layers="sum")
        self.deep.make_network = network
        self.min_side = self.deep.min_side

    def draw(self, step: int) -> None:
        """Draw the network's random weights for `step`, where it has any."""
        self.deep.draw(step)

    def embed(self, images: Image) -> Drawn[dict[str, Any]]:
        """Give the weighted unit vectors of each layer."""
        return self.deep.embed(images)

    def terms(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Distance]:
        """Give each layer's distance, by the layer's name."""
        return self.deep.terms(a, b)

    def places(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> Map:
        """Give every layer's map, scaled up bilinearly and added up, (*, 1, H, W)."""
        return self.deep.places(a, b)


def _read(heads: str, net: str, path: str | None, sha256: str | None) -> list[Tensor] | None:
    if path is not None:
        return heads_of(Path(path), sha256)
    if heads in VERSIONS:
        return published_heads(heads, net)
    if heads != UNWEIGHTED:
        raise ValueError(f"heads is one of {', '.join((*VERSIONS, UNWEIGHTED, FILE))}, got {heads!r}")
    return None


def _check_published(network: LossNetwork, version: str, net: str) -> None:
    """Refuse a network that published heads give numbers on which mean nothing."""
    nodes = tuple(getattr(network, "nodes", {}).values())
    if nodes != PUBLISHED[net].nodes:
        wanted, found = (", ".join(names) for names in (PUBLISHED[net].nodes, nodes or network.layers))
        raise ValueError(f"heads {version} of {net} belong to the layers {wanted}, not to {found}")
    fed = [getattr(network, name).flatten() for name in ("mean", "std")]
    meant = [torch.tensor(numbers) for numbers in INPUTS[INPUT[version]]]
    if not all(torch.allclose(*both) for both in zip(fed, meant, strict=True)):
        raise ValueError(
            f"heads {version} were trained on a network that is fed otherwise: give weights.input={INPUT[version]} "
            f"(mean and std here: {', '.join(str(one.tolist()) for one in fed)})"
        )


@torch.no_grad()
def _check_channels(network: LossNetwork, heads: list[Tensor]) -> None:
    """Refuse heads of a file that are of another network."""
    found = network.read(torch.zeros(1, 3, network.min_side, network.min_side))
    if len(heads) != len(found):
        raise ValueError(f"there are {len(heads)} heads for {len(found)} layers: {', '.join(found)}")
    for (layer, features), weights in zip(found.items(), heads, strict=True):
        if features.shape[-3] != len(weights):
            raise ValueError(f"heads have {len(weights)} weights for layer {layer}, of {features.shape[-3]} channels")
