"""LPIPS whose channel weights are parameters: the metric while it is being trained, and what is left of it then."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from losslab.comparisons.spatial import Spatial
from losslab.losses.base import Loss, same_draw
from losslab.losses.deep import Deep
from losslab.losses.lpips import LPIPS
from losslab.networks.base import LossNetwork
from losslab.networks.heads import heads_file
from losslab.networks.trunk import trunk_file
from losslab.networks.weights import RandomWeights
from losslab.seeds import generator
from losslab.types import Distance, Drawn, Features, Image

STARTS = ("uniform", "ones")

BEGIN = {"baseline": None, "lin": None, "tune": False, "scratch": True}
"""Whether the network that a variant trains begins at random; None where it stays as it is."""

FAR = 2**40
"""A step behind all trainings: what is redrawn at all is another one then."""


class Learned(Loss[Drawn[dict[str, Any]]]):
    """LPIPS with a parameter for each channel, and dropout before them while it is in training mode.

    Formula: Σ_l (1/P_l) Σ_p Σ_c w_lc drop((x̂_lcp - ŷ_lcp)²), w ≥ 0, x̂ as in `LPIPS`.

    An optimiser may take weights below zero; whoever steps calls `clip` behind it.

    Args:
        base: LPIPS without heads; its network is trained too where it is `trainable`.
        start: of w: "ones", the metric without heads, or "uniform", U(0, 1/√C) for one half of the channels by chance
            and 0 for the other.
        dropout: share of the squared differences that are set to zero, each by itself, and the others scaled up to make
            up for it; from 0 to below 1.
        seed: of the start.

    Raises:
        ValueError: a start or a dropout that is none, heads in the base, or a network that is redrawn.

    Paper and code: the code's heads are 1 × 1 convolutions with torch's start, U(-1/√C, 1/√C), clipped behind the first
        step for the first time; the first step of the study's even trains with negative weights twice, as it clips
        between forward and backward pass. Ours are clipped before the first step, so that no distance is ever negative.

    Source: NetLinLayer and Trainer.clamp_weights of richzhang/PerceptualSimilarity; DistanceMetric and Learner of
        LTU-Machine-Learning/Analysis-of-Deep-Perceptual-Loss-Networks.
    """

    def __init__(self, base: LPIPS, start: str = "uniform", dropout: float = 0.5, seed: int = 0) -> None:
        """Give each layer its weights."""
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"task.start is one of {', '.join(STARTS)}, got {start!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"task.dropout is a share from 0 to below 1, got {dropout!r}")
        _check_base(base.deep)
        self.base, self.min_side = base, base.min_side
        self.before = _frozen(base.deep.network)
        random = generator(seed)
        self.heads = nn.ParameterList(_start(start, count, random) for count in _channels(base.deep.network))
        self.dropout = nn.Dropout(dropout)

    @property
    def network(self) -> LossNetwork:
        """The network that the metric reads."""
        return self.base.deep.network

    def embed(self, images: Image) -> Drawn[dict[str, Any]]:
        """Give the unit vectors of each layer."""
        return self.base.embed(images)

    def terms(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Distance]:
        """Give each layer's distance, by the layer's name."""
        p, q = (one["layers"] for one in same_draw(a, b))
        return {
            layer: self._distance(p[layer], q[layer], head)
            for layer, head in zip(self.network.layers, self.heads, strict=True)
        }

    def _distance(self, a: Features, b: Features, head: Tensor) -> Distance:
        return self.dropout((a - b).square()).mean((-2, -1)) @ head

    @torch.no_grad()
    def clip(self) -> None:
        """Set weights below zero to zero."""
        for head in self.heads:
            head.clamp_(min=0)

    def zeros(self) -> dict[str, float]:
        """Give the share of weights that are zero, by the layer's name."""
        shares = [float((head == 0).float().mean()) for head in self.heads]
        return dict(zip(self.network.layers, shares, strict=True))

    def fixed(self) -> Deep:
        """Give the metric as it is now, for good: a loss like any other."""
        return _deep(_frozen(self.network), [head.detach() for head in self.heads])

    def untrained(self) -> Deep:
        """Give what the metric was before: the network as it came, and heads that are all one."""
        return _deep(self.before, [None] * len(self.heads))

    def files(self) -> dict[str, bytes]:
        """Give the files that `loss.heads=file` and `weights=file` read the metric from, by name."""
        heads = {"heads.pth": heads_file([*self.heads])}
        return heads | ({"trunk.pth": trunk_file(self.network)} if self.network.trainable else {})  # type: ignore[arg-type]


def check_variant(variant: str, loss: Any) -> None:
    """Refuse a loss that can't be trained, or whose network is not what a variant begins with.

    Raises:
        ValueError: it is no LPIPS; its network is to be trained where the variant leaves it alone, or the other way
            round; or it begins with trained weights for "scratch", or random ones for "tune".
    """
    if variant not in BEGIN:
        raise ValueError(f"task.variant is one of {', '.join(BEGIN)}, got {variant!r}")
    if not isinstance(loss, LPIPS):
        name = loss.name if isinstance(loss, Loss) else "a panel of several losses"
        raise ValueError(  # noqa: TRY004 - the loss comes from a config
            "metric_training trains the heads of one LPIPS: give loss=lpips, with any network=, weights= and "
            f"loss.layers=, not {name}"
        )
    network, begins = loss.deep.network, BEGIN[variant]
    if network.trainable != (begins is not None):
        raise ValueError(
            f"task.variant={variant} {'leaves the network as it is' if begins is None else 'trains the network too'}: "
            f"give network.trainable={str(not network.trainable).lower()}"
        )
    if begins is not None and begins != isinstance(getattr(network, "weights", None), RandomWeights):
        raise ValueError(
            "task.variant=scratch begins with random weights, and these are trained ones: give weights=random, or "
            "task.variant=tune"
            if begins
            else "task.variant=tune begins with trained weights, and these are random ones: give weights=pretrained or "
            "file, or task.variant=scratch"
        )


def _check_base(deep: Deep) -> None:
    if any(getattr(one, "weights", None) is not None for one in deep.per_layer.values()):
        raise ValueError("metric_training gives the metric heads of its own: give loss.heads=none")
    deep.draw(0)
    before = deep.draw_name
    deep.draw(FAR)
    again = deep.draw_name
    deep.draw(0)
    if again != before:
        raise ValueError("a metric is trained on one network, and this one's random weights change: redraw_every=0")


@torch.no_grad()
def _channels(network: LossNetwork) -> list[int]:
    found = network.read(torch.zeros(1, 3, network.min_side, network.min_side))
    return [found[layer].shape[-3] for layer in network.layers]


def _start(start: str, count: int, random: torch.Generator) -> nn.Parameter:
    if start == "ones":
        return nn.Parameter(torch.ones(count))
    bound = count**-0.5  # torch.nn.Conv2d.reset_parameters, for 1 × 1 kernels
    return nn.Parameter(nn.init.uniform_(torch.empty(count), -bound, bound, generator=random).clamp(min=0))


def _frozen(network: LossNetwork) -> LossNetwork:
    """Give the network as it is, and as it stays: a copy, if it is being trained."""
    if network.trainable:
        network = deepcopy(network)
        network.trainable = False
        network.freeze()
    return network


def _deep(network: LossNetwork, heads: Sequence[Tensor | None]) -> Deep:
    part = network.part(network.layers)  # a panel knows by it that losses have one network
    compare = [Spatial("l2", "sum", head) for head in heads]
    return Deep(lambda **_: part, part.layers, compare, over_layers="sum")
