"""Features compared by their best matches, near places before far ones."""

import torch
from torch import Tensor

from losslab.checks import check_number
from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.contextual import (
    check_channels,
    check_places,
    checked,
    distances,
    halved,
    sides,
    similarities,
)
from losslab.comparisons.pairs import Table, column_maxima
from losslab.types import Distance

FORMS = ("similarities", "distances")


class CoBi(Comparison[Tensor]):
    """The contextual bilateral loss: the contextual loss, told where places are.

    Formula: form="similarities": -log(mean_j max_i [(1 - w) CX_ij + w CX'_ij] + floor), CX as in `Contextual`, and CX'
        the same of squared distances between places on the grid; form="distances": mean_i min_j (d_ij + w D_ij), with
        D_ij the distance between places on the grid, and no bandwidth.

    i runs over the places of a, the image that is being made, j over those of b, its target: neither form is
    symmetric. Equal images have 1e-5 less than zero, or more if some places are alike, under the first form, and 0
    under the second. Tables of all pairs are made a tile at a time.

    Args:
        spatial_weight: w, from 0. In the first form less than 1, where nothing but places would count.
        form: how places enter: "similarities" or "distances".
        bandwidth: h of both CX, more than 0.
        distance: of features, as `Contextual` has it.
        max_places: as `Contextual` has it.
        eps: as `Contextual` has it.
        floor: added under the logarithm, from 0 to 1.
        grid: places have coordinates grid · row / rows and grid · column / columns.

    Raises:
        ValueError: an unknown form or distance, or a number out of its range; features at one place only, which match
            whatever they are, unless they are compared by distances that are no cosines; or the cosine of features of
            one channel, which is their sign.

    Paper and code: "distances" is equation 2 of the paper, which leaves the unit of coordinates open; "similarities" is
        its code and the default here, w .1 and h .5 included. The code's other numbers come from eps 2e-3 (1e-3, on
        half of the cosine distance), floor 0 and grid 255; it keeps 63² places by chance where there are more. Its grid
        is transposed, which square maps don't feel. Other defaults are those of S-aiueo32's port, on unit coordinates.
        Under either, up to 128² places, CX' is the identity to 1e-4: a place is sure of its own place and of no other.
        That port takes the best j for each i, unlike its contextual loss, and its module hands h over as w.

    Source: Zhang et al., "Zoom to Learn, Learn to Zoom", CVPR 2019, equation 2; CX_loss of
        ceciliavision/zoom-learn-zoom; contextual_bilateral_loss of S-aiueo32/contextual_loss_pytorch.

    Example:
        >>> x = torch.rand(2, 4, 8, 8, requires_grad=True)
        >>> cobi = CoBi()
        >>> cobi.compare(cobi.encode(x), cobi.encode(torch.rand(1, 4, 8, 8))).sum().backward()
    """

    def __init__(
        self,
        spatial_weight: float = 0.1,
        form: str = "similarities",
        bandwidth: float = 0.5,
        distance: str = "cosine",
        max_places: int | None = 16383,
        eps: float = 1e-5,
        floor: float = 1e-5,
        grid: float = 1.0,
    ) -> None:
        """Check the numbers."""
        super().__init__()
        self.distance = checked(distance, bandwidth, max_places, eps, floor)
        if form not in FORMS:
            raise ValueError(f"form is one of {', '.join(FORMS)}, got {form!r}")
        check_number("spatial_weight", spatial_weight, least=0, below=1 if form == "similarities" else None)
        check_number("grid", grid, above=0)
        self.spatial_weight, self.form, self.bandwidth = spatial_weight, form, bandwidth
        self.max_places, self.eps, self.floor, self.grid = max_places, eps, floor, grid

    def settle(self, arranged: Arranged) -> Arranged:
        """Give the features at no more than `max_places` places."""
        check_channels(arranged, self.distance)
        kept = halved(arranged, self.max_places)
        if self.form == "similarities" or self.distance == "cosine":
            check_places("cobi", arranged, kept)
        return kept

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the loss of making a into b, for each pair, (*,).

        Raises:
            ValueError: the maps differ in size.
        """
        if a.shape[-2:] != b.shape[-2:]:
            found = f"{tuple(a.shape[-2:])} and {tuple(b.shape[-2:])}"
            raise ValueError(f"cobi compares maps of one size, place by place, got {found}")
        left, right = sides(a, b, self.distance)
        rows, columns = ((self.grid / side) * torch.arange(side).to(a) for side in a.shape[-2:])
        if self.form == "similarities":
            best = column_maxima(self._blend(rows, columns), left, right)
            return -(best.mean(-1) + self.floor).log()
        return -column_maxima(self._nearness(rows, columns), right, left).mean(-1)

    def _blend(self, rows: Tensor, columns: Tensor) -> Table:
        """Make tables of similarities; that of places is a product of one for rows and one for columns."""
        down, across = (
            similarities((side[:, None] - side).square(), self.bandwidth, self.eps) for side in (rows, columns)
        )

        def table(left: Tensor, right: Tensor, numbers: Tensor) -> Tensor:
            row, column = numbers // len(columns), numbers % len(columns)
            places = (down[row][:, :, None] * across[column][:, None, :]).flatten(1)
            features = similarities(distances(left, right, self.distance), self.bandwidth, self.eps)
            return torch.lerp(features, places, self.spatial_weight)

        return table

    def _nearness(self, rows: Tensor, columns: Tensor) -> Table:
        """Make tables of negative distances, whose rows are places of b and whose columns are those of a."""

        def table(left: Tensor, right: Tensor, numbers: Tensor) -> Tensor:
            row, column = rows[numbers // len(columns)], columns[numbers % len(columns)]
            down, across = row[:, None] - rows, column[:, None] - columns
            places = torch.hypot(down[:, :, None], across[:, None, :]).flatten(1)
            return -(distances(left, right, self.distance) + self.spatial_weight * places)

        return table
