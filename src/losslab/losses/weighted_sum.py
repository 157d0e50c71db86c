"""A sum of losses that keeps the name of each term."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from losslab.losses.base import Loss, total
from losslab.types import Distance, Image


class WeightedSum(Loss[dict[str, Any]]):
    """Σ weight · loss over named terms; `parts` gives each weighted term.

    Args:
        losses: the terms by name.
        weights: the weight of each, under the same names.

    Raises:
        ValueError: the names of losses and weights differ.

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
        if losses.keys() != weights.keys():
            raise ValueError(f"each term needs one weight: terms {sorted(losses)}, weights {sorted(weights)}")
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)
        self.min_side = max(loss.min_side for loss in losses.values())
        self.own_axes = min(loss.own_axes for loss in losses.values())

    def embed(self, images: Image) -> dict[str, Any]:
        """Embed under each term, by name."""
        return {name: self._term(name).embed(images) for name in self.weights}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give each weighted term by name."""
        return {name: weight * total(self._term(name).terms(a[name], b[name])) for name, weight in self.weights.items()}

    def draw(self, step: int) -> None:
        """Draw every term's random state for `step`."""
        for name in self.weights:
            self._term(name).draw(step)

    def _term(self, name: str) -> Loss[Any]:
        term = self.losses[name]
        if not isinstance(term, Loss):
            raise TypeError(f"term {name!r} is no Loss but {type(term).__name__}")
        return term
