"""Weighted sums of comparisons."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import nn

from losslab.checks import check_weights
from losslab.comparisons.base import Arranged, Comparison, Map
from losslab.types import Distance


class Sum(Comparison[dict[str, Any]]):
    """A weighted sum of comparisons of the same features.

    Formula: Σ_k w_k compare_k(x, y)

    Args:
        comparisons: by any names.
        weights: a number each, under the same names.

    Raises:
        ValueError: there are none, or the names differ.

    Source: `spatial+mean` and `spatial+sort` of Pihlgren et al., arXiv 2302.04032, weights 1 and 1; metric `l1+gram`
        of VGGPerceptualLoss in ariel415el/PerceptualLossExperiments, weights 1 and 0.5.

    Example:
        >>> import torch
        >>> from losslab.comparisons.mean import Mean
        >>> sum_of_two = Sum({"a": Mean(normalize=False), "b": Mean(normalize=False)}, {"a": 1.0, "b": 0.5})
        >>> sum_of_two.compare(*(sum_of_two.encode(torch.full((1, 4, 8, 8), value)) for value in (0.0, 1.0)))
        tensor([6.])
    """

    def __init__(self, comparisons: Mapping[str, Comparison[Any]], weights: Mapping[str, float]) -> None:
        """Hold the comparisons as submodules."""
        super().__init__()
        if not (isinstance(comparisons, Mapping) and isinstance(weights, Mapping)):
            raise ValueError("comparisons and weights map names to comparisons and numbers")  # noqa: TRY004 - of a config
        if not comparisons or comparisons.keys() != weights.keys():
            raise ValueError(
                f"each comparison needs one weight: comparisons {sorted(comparisons)}, weights {sorted(weights)}"
            )
        check_weights("weights", weights)
        self.weights = dict(weights)
        self.comparisons = nn.ModuleList(comparisons[name] for name in weights)

    def settle(self, arranged: Arranged) -> dict[str, Any]:
        """Encode for each comparison, by name."""
        return {name: one.encode(arranged) for name, one in self._named()}

    def compare(self, a: dict[str, Any], b: dict[str, Any]) -> Distance:
        """Give the weighted sum of each pair, (*,)."""
        return torch.stack([self.weights[name] * one.compare(a[name], b[name]) for name, one in self._named()]).sum(0)

    def maps(self, a: dict[str, Any], b: dict[str, Any]) -> Map:
        """Give the weighted sum at each place, (*, 1, h, w), where every comparison has maps."""
        first, *others = (self.weights[name] * one.maps(a[name], b[name]) for name, one in self._named())
        return sum(others, first)

    def draw(self, step: int) -> str:
        """Draw for every comparison."""
        draws = [one.draw(step) for _, one in self._named()]
        return "fixed" if set(draws) == {"fixed"} else ", ".join(draws)

    def summands(self) -> list[tuple[float, Comparison[Any]]]:
        """Give the weighted comparisons, those of inner sums included."""
        return [(self.weights[name] * weight, inner) for name, one in self._named() for weight, inner in one.summands()]

    def recipe(self) -> Hashable:
        """Describe the sum by its summands."""
        return Sum, tuple((weight, one.recipe()) for weight, one in self.summands())

    def _named(self) -> list[tuple[str, Comparison[Any]]]:
        return list(zip(self.weights, self.comparisons, strict=True))  # type: ignore[arg-type]
