"""DISTS: means and covariances of features, as texture and structure, weighed by what people's judgements taught."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.checksums import difference
from losslab.losses.base import Loss, same_draw
from losslab.networks.base import LossNetwork
from losslab.networks.state_dicts import read_state_dict
from losslab.types import Distance, Drawn, Features, Image

SHA256 = "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"
"""Of weights.pt in DISTS_pytorch 0.1 of PyPI."""

NODES = ("features.3", "features.8", "features.15", "features.22", "features.29")
"""Of VGG-16, whose weights these are; the image itself comes before them."""

STEADY = 1e-6
"""Keeps both ratios finite where there is nothing: c1 and c2 of dingkeyan93/DISTS."""

Kept = dict[str, tuple[Tensor, Tensor, Tensor]]


class DISTS(Loss[Drawn[Kept]]):
    """Deep Image Structure and Texture Similarity.

    Formula: 1 - Σ_lc (α_lc T_lc + β_lc S_lc), T = (2 μx μy + c) / (μx² + μy² + c), S = (2 σxy + c) / (σx² + σy² + c),
        μ and σ over the places of channel c in layer l, c = 1e-6; α and β add up to 1; layer 0 is the image.

    Args:
        network: makes the loss network when it is called with `select`, the layers.
        layers: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of a VGG-16.
        pooling: of the network: "l2" is the source's; see `losslab.networks.graph.GraphNetwork`.

    Raises:
        ValueError: another network or other layers, or the file of weights is missing or not the published one.

    Paper and code: the original's `require_grad=False` takes the gradient off both images; here it is there where it is
        asked for. Its covariance is a difference of two means, here a mean of products of what is centred.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2020, equations 4
        to 6; class DISTS of dingkeyan93/DISTS. Its network is a VGG-16 with ImageNet's weights.
    """

    weights: Tensor

    def __init__(self, network: Callable[..., LossNetwork], layers: Any, pooling: str = "l2") -> None:
        """Read the weights and build the network."""
        super().__init__()
        self.network = network(select=layers, pooling=pooling)
        nodes = tuple(getattr(self.network, "nodes", {}).values())
        if nodes != NODES:
            raise ValueError(f"DISTS has weights for {', '.join(NODES)} of vgg16, not for {', '.join(nodes) or layers}")
        self.min_side = self.network.min_side
        self.register_buffer("weights", published(), persistent=False)
        self.draw(0)

    def draw(self, step: int) -> None:
        """Draw the network's random weights for `step`, where it has any."""
        self._draw_name = self.network.draw(step)

    def embed(self, images: Image) -> Drawn[Kept]:
        """Give mean, deviations from it and variance of each channel of each layer."""
        features = {"image": images, **self.network.read(images)}
        return Drawn({layer: _moments(one) for layer, one in features.items()}, self._draw_name)

    def terms(self, a: Drawn[Kept], b: Drawn[Kept]) -> dict[str, Distance]:
        """Give each layer's share, by the layer's name."""
        p, q = same_draw(a, b)
        channels = [one[0].shape[-3] for one in p.values()]
        weights = self.weights.split(channels, dim=1)
        return {layer: _share(p[layer], q[layer], *w) for layer, w in zip(p, weights, strict=True)}


def published() -> Tensor:
    """Give α and β of all channels, (2, 1475), which add up to 1.

    Raises:
        ValueError: the package that has them is not installed, or holds something else.
    """
    try:
        found = [Path(str(one.locate())) for one in files("DISTS_pytorch") or [] if one.name == "weights.pt"]
    except PackageNotFoundError as error:
        raise ValueError("loss=dists needs the weights in an extra: pip install 'losslab[dists]'") from error
    path = next((one for one in found if one.is_file()), Path("weights.pt"))
    if differs := difference(path, SHA256):
        raise ValueError(f"{path} is not the file of weights of DISTS 0.1: {differs}")
    state = read_state_dict(path)
    weights = torch.stack([state["alpha"].flatten(), state["beta"].flatten()]).detach().float()
    return weights / weights.sum()


def _moments(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    mean = features.mean(dim=(-2, -1), keepdim=True)
    centred = features - mean
    return mean, centred, centred.square().mean(dim=(-2, -1), keepdim=True)


def _share(a: tuple[Tensor, ...], b: tuple[Tensor, ...], alpha: Tensor, beta: Tensor) -> Distance:
    """Weigh what each channel lacks in texture and structure."""
    (mean_a, centred_a, variance_a), (mean_b, centred_b, variance_b) = a, b
    covariance = (centred_a * centred_b).mean(dim=(-2, -1), keepdim=True)
    # 1 - T and 1 - S, without the cancellation where they are near 1
    texture = (mean_a - mean_b).square() / (mean_a.square() + mean_b.square() + STEADY)
    structure = (variance_a + variance_b - 2 * covariance) / (variance_a + variance_b + STEADY)
    return ((alpha[:, None, None] * texture) + (beta[:, None, None] * structure)).sum(dim=(-3, -2, -1))
