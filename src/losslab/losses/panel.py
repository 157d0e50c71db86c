"""Several losses at once: each network reads an image once, however many layers and comparisons are asked for."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from losslab.comparisons.base import Comparison
from losslab.losses.base import Loss, same_draw
from losslab.losses.deep import Deep, naming, size_of
from losslab.losses.sharing import share
from losslab.networks.base import LossNetwork
from losslab.networks.layers import is_panel
from losslab.types import Distance, Drawn, Features, Image, map_encoding

NUMBERS_AT_ONCE = 2**22
"""In the largest map of a network for the images that `measure` encodes at a time: 16 images of 64 × 64 for VGG-16.

With more, the C library maps and clears new pages for each tensor, which costs VGG-16 a third of its speed; with fewer,
oneDNN brings the weights into its own order too often, which costs AlexNet as much."""

Term = tuple[int, str, Comparison[Any]]
"""What several losses may ask for alike: index of a network, canonical name of a layer, and a comparison."""


class Panel(nn.Module):
    """A named set of losses, which computes once per image what some of them have in common.

    Losses over equal networks share one, which reads each image once up to the deepest layer that any of them wants;
    equal comparisons of a layer, also inside of sums, are made once; and so is what comparisons begin with alike, such
    as sorting.

    Args:
        losses: by name. They still work alone, drawn by the panel; what they share is one in memory.

    Raises:
        ValueError: there are none.

    Example:
        >>> from losslab.losses.pixel import L1, L2
        >>> panel, x, y = Panel({"l1": L1(), "l2": L2()}), torch.zeros(2, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
        >>> {name: each.tolist() for name, each in panel.parts(panel.encode(x), panel.encode(y)).items()}
        {'l1': [0.5, 0.5], 'l2': [0.25, 0.25]}
    """

    def __init__(self, losses: Mapping[str, Loss[Any]]) -> None:
        """Find out what the losses share."""
        super().__init__()
        if not losses:
            raise ValueError("a panel needs a loss at least")
        self.names = [*losses]
        self._losses = nn.ModuleList(losses.values())
        self._deeps: dict[str, Deep] = {
            name: deep for name, one in losses.items() if isinstance(deep := getattr(one, "deep", None), Deep)
        }
        shared = share([*self._deeps.values()])
        self.networks = nn.ModuleList([*dict.fromkeys(shared.values())])
        numbers = {one: [*self.networks].index(network) for one, network in shared.items()}
        self._terms: dict[str, Term] = {}
        self._sums = {name: self._unfold(deep, numbers[deep]) for name, deep in self._deeps.items()}
        self.min_side = max(one.min_side for one in losses.values())
        self.draw(0)

    @property
    def losses(self) -> dict[str, Loss[Any]]:
        """The losses by name."""
        return dict(zip(self.names, self._losses, strict=True))  # type: ignore[arg-type]

    def draw(self, step: int) -> None:
        """Set the random state of all losses to that of `step`."""
        for one in (*self.losses.values(), *self.networks):
            one.draw(step)
        self._draw_name = "; ".join(sorted({one.draw_name for one in self._deeps.values()})) or "fixed"

    def encode(self, images: Tensor) -> Drawn[dict[str, Any]]:
        """Do the work that needs one image only, for all losses.

        Args:
            images: (*, C, H, W) in [0, 1], large enough for every loss.

        Raises:
            ValueError: as `Loss.encode`.
        """
        alone = {name: one.encode(images) for name, one in self.losses.items() if name not in self._sums}
        kept: dict[str, Any] = {"alone": alone}
        if self._sums:
            images = max((self.losses[name] for name in self._sums), key=lambda one: one.min_side).prepare(images)
            with torch.autocast(images.device.type, enabled=False):
                kept |= {"terms": self._keep(images), "size": size_of(images)}
        return Drawn(kept, self._draw_name)

    def parts(self, a: Drawn[dict[str, Any]], b: Drawn[dict[str, Any]]) -> dict[str, Distance]:
        """Give the distance of each pair under each loss, (*,), by the loss's name; leading axes broadcast.

        Raises:
            ValueError: the encodings are of different draws, sizes or panels.
        """
        p, q = (self._own(one) for one in same_draw(a, b))
        losses, found = self.losses, {}
        if self._sums:
            shared = [{key: one[key] for key in ("terms", "size")} for one in (p, q)]
            next(iter(self._deeps.values())).check_alike(*shared)
            with torch.autocast(p["size"].device.type, enabled=False):
                for key, (_, _, comparison) in self._terms.items():
                    found[key] = comparison.compare(p["terms"][key], q["terms"][key])
        return {
            name: torch.stack([weight * found[key] for key, weight in self._sums[name].items()]).sum(0)
            if name in self._sums
            else losses[name].compare(p["alone"][name], q["alone"][name])
            for name in self.names
        }

    def at_once(self, pixels: int) -> int:
        """Count the images of so many pixels that `measure` encodes at a time, one at least."""
        widest = max((deep.network.widest for deep in self._deeps.values()), default=LossNetwork.widest)
        return max(1, int(NUMBERS_AT_ONCE / (pixels * widest)))

    @torch.no_grad()
    def measure(self, reference: Image, *others: Image) -> list[dict[str, Distance]]:
        """Give the distances of some images to references, some images at a time, whatever their number.

        Args:
            reference: (N, C, H, W) in [0, 1]; each is encoded once.
            *others: (N, C, H, W) each.

        Returns:
            For each of `others`, what `parts` gives for it and `reference`, (N,) each.

        Raises:
            ValueError: the images differ in their shapes, or `encode` refuses them.
        """
        if any(one.shape != reference.shape for one in others):
            shapes = ", ".join(str(tuple(one.shape)) for one in (reference, *others))
            raise ValueError(f"a panel measures images of one shape, got {shapes}")
        at_once = self.at_once(reference.shape[-2:].numel() * (1 + len(others)))
        batches = zip(*(one.split(at_once) for one in (reference, *others)), strict=True)
        found = [self._measure(torch.stack(some)) for some in batches]
        return [{name: torch.cat([one[name][k] for one in found]) for name in self.names} for k in range(len(others))]

    def _measure(self, images: Image) -> dict[str, Tensor]:
        """Give the distances of images (1 + K, n, C, H, W) to the first of each, (K, n) by the loss's name."""
        encoding = self.encode(images)
        first, others = map_encoding(lambda one: one[:1], encoding), map_encoding(lambda one: one[1:], encoding)
        return self.parts(first, others)  # type: ignore[arg-type]

    def compare(self, *_: Any) -> Distance:
        """Refuse: a panel has as many distances as losses.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"a panel has {len(self.names)} distances, not one: train with one of {', '.join(self.names)}")

    forward = compare

    def _own(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Refuse what another panel, or a loss alone, has encoded."""
        asked = [name for name in self.names if name not in self._sums] + [*self._terms]
        if [*kept.get("alone", ()), *kept.get("terms", ())] != asked:
            raise ValueError(f"these encodings are not of the panel of {', '.join(self.names)}")
        return kept

    def _unfold(self, deep: Deep, number: int) -> dict[str, float]:
        """Give a deep loss as a weighted sum of terms, of which equal ones are kept once."""
        found: dict[str, float] = {}
        known = {(number, layer, one.recipe()): key for key, (number, layer, one) in self._terms.items()}
        for layer, comparison in deep.per_layer.items():
            for weight, one in comparison.summands():
                asked = number, layer, one.recipe()
                key = known.setdefault(asked, str(len(known)))
                self._terms.setdefault(key, (number, layer, one))
                found[key] = found.get(key, 0.0) + deep.factors[layer] * weight
        return found

    def _keep(self, images: Image) -> dict[str, Any]:
        """Encode images for each term."""
        features = [network(images) for network in self.networks]
        arranged: dict[tuple[int, str, str], Features] = {}
        kept = {}
        for key, (number, layer, comparison) in self._terms.items():
            start = number, layer, comparison.arrangement
            if start not in arranged:
                arranged[start] = comparison.arrange(features[number][layer])
            with naming(layer):
                kept[key] = comparison.settle(arranged[start])
        return kept


def each(
    network: Callable[..., LossNetwork],
    layers: Sequence[str] | Sequence[Sequence[str]],
    compare: Comparison[Any] | Mapping[str, Comparison[Any]],
    over_layers: str = "mean",
    layer_weights: None = None,
) -> Panel:
    """Give the panel of all pairs of layers and comparisons of one network, from one pass over an image.

    Args:
        network: makes the loss network when it is called with `select`, the layers.
        layers: of each loss: canonical names; a loss of several has their mean or sum. A plain list is for one loss.
        compare: comparisons by name, or one.
        over_layers: as in `Deep`.
        layer_weights: None; they are for one loss.

    Raises:
        ValueError: two of the losses would be the same, or there are weights of layers.
    """
    if layer_weights is not None:
        raise ValueError(
            "loss.layer_weights is for one loss over several layers, not for a panel (layer=each): leave it null"
        )
    rows = [[one] if isinstance(one, str) else one for one in layers] if is_panel(layers) else [[*layers]]
    named = {"": compare} if isinstance(compare, Comparison) else compare
    whole = network(select=[*dict.fromkeys(layer for some in rows for layer in some)])

    def part(select: Sequence[str]) -> LossNetwork:
        return whole.part(select)

    names = ["+".join(some) for some in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"layers of a panel are named twice: {', '.join(names)}")
    return Panel(
        {
            ", ".join(filter(None, (row, name))): Deep(part, some, one, over_layers, layer_weights)
            for (row, some), (name, one) in product(zip(names, rows, strict=True), named.items())
        }
    )


def several(losses: Mapping[str, Loss[Any] | Panel]) -> Panel:
    """Give one panel of losses and panels; what is in a panel has that one's name before its own.

    Args:
        losses: by name.

    Raises:
        ValueError: there are none.

    Example:
        >>> from losslab.losses.pixel import L1, L2
        >>> several({"l1": L1(), "both": Panel({"l1": L1(), "l2": L2()})}).names
        ['l1', 'both: l1', 'both: l2']
    """
    groups = {name: one.losses if isinstance(one, Panel) else {"": one} for name, one in losses.items()}
    return Panel({f"{name}: {own}" if own else name: one for name, some in groups.items() for own, one in some.items()})
