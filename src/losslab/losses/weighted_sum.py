"""A sum of losses that keeps the name of each term."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from losslab.checks import check_weights
from losslab.comparisons.base import Map
from losslab.losses.base import Loss
from losslab.types import Distance, Image


class WeightedSum(Loss[dict[str, Any]]):
    """Weighted sum of any losses under names of your choice.

    Formula: Σ_n weights[n] · losses[n](x, y).

    `parts` gives each weighted term by its name; a loss of several parts gives `name/part` for each.
    In YAML both arguments are nested keys: `losses: {pixels: {_target_: ...}}` and `weights: {pixels: 0.5}`.

    Args:
        losses: the terms by name; names hold no dot and no slash.
        weights: the weight of each, from 0 and not all 0, under the same names, in that order.

    Raises:
        ValueError: no terms, names of losses and weights that differ, or a name, term or weight that is none.

    Example:
        >>> import torch
        >>> from losslab.losses.pixel import L1, L2
        >>> loss = WeightedSum({"l1": L1(), "l2": L2()}, {"l1": 1.0, "l2": 2.0})
        >>> loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
        tensor([3.])
    """

    def __init__(self, losses: Mapping[str, Loss[Any]], weights: Mapping[str, float]) -> None:
        """Hold the terms as submodules."""
        super().__init__()
        if not (isinstance(losses, Mapping) and isinstance(weights, Mapping)):
            raise ValueError("losses and weights map names to losses and numbers")  # noqa: TRY004 - as for all input
        if not losses or losses.keys() != weights.keys():
            raise ValueError(f"each term needs one weight: terms {sorted(losses)}, weights {sorted(weights)}")
        for name, loss in losses.items():
            if not isinstance(loss, Loss) or "." in name or "/" in name:
                raise ValueError(f"losses maps names without dot and slash to losses, got {name!r}: {type(loss)}")
        check_weights("weights", weights)
        self.losses = nn.ModuleList(losses[name] for name in weights)
        self.weights = dict(weights)
        self.min_side = max(loss.min_side for loss in losses.values())
        self.own_axes = min(loss.own_axes for loss in losses.values())

    def embed(self, images: Image) -> dict[str, Any]:
        """Embed under each term, by name."""
        return {name: loss.embed(images) for name, loss in self._named()}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give each weighted term by name, or by `name/part`."""
        found: dict[str, Distance] = {}
        for name, loss in self._named():
            found |= weighted(name, self.weights[name], loss.terms(a[name], b[name]))
        return found

    def places(self, a: dict[str, Any], b: dict[str, Any]) -> Map:
        """Give the weighted sum of the maps of all terms, (*, 1, H, W).

        Raises:
            ValueError: a term does not go place by place.
        """
        found = [self.weights[name] * loss.places(a[name], b[name]) for name, loss in self._named()]
        return torch.stack(found).sum(0)

    def check_alike(self, a: Any, b: Any) -> None:
        """Let each term refuse what it can't compare.

        Raises:
            ValueError: the encodings are of other sums, or of images of different sizes.
        """
        if a.keys() != b.keys():
            raise ValueError(f"can't compare encodings of two sums: terms {sorted(a)} and {sorted(b)}")
        for name, loss in self._named():
            loss.check_alike(a[name], b[name])

    def draw(self, step: int) -> None:
        """Draw every term's random state for `step`."""
        for _, loss in self._named():
            loss.draw(step)

    def _named(self) -> list[tuple[str, Loss[Any]]]:
        return list(zip(self.weights, self.losses, strict=True))  # type: ignore[arg-type]


def weighted(name: str, weight: float, parts: dict[str, Distance]) -> dict[str, Distance]:
    """Scale the terms of an inner loss and name them `name`, or `name/part` if they are several."""
    if len(parts) == 1:
        return {name: weight * next(iter(parts.values()))}
    return {f"{name}/{inner}": weight * part for inner, part in parts.items()}
