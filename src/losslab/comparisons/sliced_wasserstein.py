"""Features compared as sets: the sliced Wasserstein distance (SWD) between the features of all places."""

from collections.abc import Hashable

import torch
from jaxtyping import Float
from torch import Tensor

from losslab.checks import check_whole
from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.sort import ascending
from losslab.differences import NORMS, differences
from losslab.seeds import Draws, generator
from losslab.types import Distance

PROJECTIONS_A_FEATURE = 5
"""Directions where no number is given: features_swd of ariel415el/PerceptualLossExperiments."""


class SlicedWasserstein(Comparison[Tensor]):
    """Sliced Wasserstein distance between the sets of features that two maps have at their places.

    Formula: mean over directions k and ranks r of |sort_r(θ_k · f_i(x)) - sort_r(θ_k · f_i(y))|, f_i the features of
        place i, the places of one map sorted by their projection, |θ_k| = 1; with norm="l2" the mean of the squares
        of these differences, which is W2².

    It sees which features a map has, not where. The directions are uniform on the sphere and a function of the seed,
    the draw and the number of features alone; they are made when such features come for the first time.

    Args:
        projections: number of directions; None is five times the number of features. The error falls as 1/√projections.
        norm: "l1" for W1, "l2" for W2².
        seed: of the directions.
        redraw_every: steps between two draws; 0 keeps the first one.

    Raises:
        ValueError: an unknown norm, or fewer than one projection.

    Paper and code: The source reads the memory of its maps as if features came last, which mixes features with places;
        here a vector is the features of one place. It divides directions by the standard deviation of their entries,
        which leaves a length of √C for C features: multiply W1 by √C, W2² by C, for its scale. It draws new directions
        at each call, so that two distances are measured with different rulers; here one draw is the default.

    Source: features_swd and compute_swd of ariel415el/PerceptualLossExperiments; Heitz et al., "A Sliced Wasserstein
        Loss for Neural Texture Synthesis", CVPR 2021, has W2² on features.

    Example:
        >>> swd = SlicedWasserstein(projections=16)
        >>> x = torch.rand(1, 4, 8, 8)
        >>> swd.compare(swd.encode(x), swd.encode(x.flip(-1)))
        tensor([0.])
    """

    def __init__(self, projections: int | None = None, norm: str = "l1", seed: int = 0, redraw_every: int = 0) -> None:
        """Check the arguments; no direction is drawn before the number of features is known."""
        super().__init__()
        if projections is not None:
            check_whole("projections", projections, 1)
        if norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}, got {norm!r}")
        self.projections, self.norm, self._draws = projections, norm, Draws(seed, redraw_every)
        self.draw(0)

    def draw(self, step: int) -> str:
        """Go to the directions of `step`, and name the draw."""
        if self._draws.due(step) is not None:
            self._buffers.clear()  # a backward pass to come keeps the old ones
        return f"swd directions {self.projections or 'five a feature'}, {self._draws}"

    def settle(self, arranged: Arranged) -> Float[Tensor, "*#batch 1 projections places"]:
        """Give the sorted projections."""
        projected = self._directions(arranged) @ arranged.flatten(-2)
        return ascending(projected).unsqueeze(-3)

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the mean difference of the sorted projections of each pair, (*,).

        Raises:
            ValueError: the maps differ in their number of places.
        """
        if a.shape[-1] != b.shape[-1]:
            raise ValueError(f"swd compares maps of one number of places, got {a.shape[-1]} and {b.shape[-1]}")
        return differences(a, b, self.norm).mean(dim=(-3, -2, -1))

    def recipe(self) -> Hashable:
        """Describe the comparison; its directions follow from its arguments."""
        return type(self), self.projections, self.norm, self._draws.seed, self._draws.redraw_every

    def _directions(self, features: Tensor) -> Tensor:
        """Give the directions, (projections, features); they are buffers, which move with the module."""
        count = features.shape[-3]
        name = f"directions_of_{count}"
        if name not in self._buffers:
            with torch.inference_mode(mode=False):  # a later call may record gradients
                number = self.projections or PROJECTIONS_A_FEATURE * count
                random = generator(self._draws.seed, self._draws.index)
                drawn = torch.randn(number, count, generator=random, dtype=torch.float32)
                unit = drawn / drawn.square().sum(-1, keepdim=True).sqrt()
                self.register_buffer(name, unit.to(features), persistent=False)
        return self.get_buffer(name).to(features)
