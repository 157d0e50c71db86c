"""Sets of crops that differ more and more: how much variation does a loss's mean bear?"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from losslab import images
from losslab.data.choosing import chosen, middle_square
from losslab.data.sets import ImageSets, SetData, gathered
from losslab.seeds import generator
from losslab.types import Bytes


class VariedCrops(SetData):
    """Sets of square crops at random places of each photograph, whose side shrinks from set to set.

    The middle square of each photograph, or what `zoom` leaves of it, is scaled to `whole` pixels. A set's crops are
    smaller than that by its edge, which is thereby their largest distance along an axis, and are scaled to `size`. The
    sets of a photograph have their crops at the same places, relative to the edge: with a larger edge they are the same
    crops further apart, and nearer.

    Args:
        root: a folder with pictures; None: photographs of the scikit-image wheel.
        names: file names in it, or the wheel's without their suffix; None: all, and of the wheel those in colour.
        size: side of the pictures in pixels.
        whole: side of the squares that are cut, in pixels.
        edges: by how much crops are smaller than it, in pixels: each photograph has a set for each.
        count: pictures in a set.
        zoom: share of the photograph's middle square that is used, more than 0 to 1.
        crop_seed: of the places.
        weights: as in `SetData`.

    Raises:
        ValueError: an option that is none, a name that is not there, a photograph smaller than `whole`, or an edge that
            leaves less than `size` of it.

    Paper and code: make_shift_sets cuts a file as it is, so that an edge means more in a small one; here files are
        scaled first, and their sizes, which the source does not tell, make no difference. Its places are drawn anew for
        each set, and stop one pixel before the edge.

    Source: make_shift_sets of ariel415el/PerceptualLossExperiments, in July 2021: edges of 16 to 128 pixels, 32
        pictures, scaled to 64 pixels.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        names: Sequence[str] | None = None,
        size: int = 64,
        whole: int = 256,
        edges: Sequence[int] = (16, 32, 64, 128),
        count: int = 32,
        zoom: float = 1.0,
        crop_seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Check the options."""
        super().__init__(weights)
        if not 0 < zoom <= 1:
            raise ValueError(f"data.zoom is more than 0 and at most 1, got {zoom}")
        if min(size, count) < 1:
            raise ValueError(f"data.size and data.count are from 1, got {size} and {count}")
        if not edges or min(edges) < 0 or max(edges) > whole - size:
            raise ValueError(
                f"data.edges leave data.size={size} of data.whole={whole} pixels: from 0 to {whole - size}, got "
                f"{[*edges]}"
            )
        self.root = None if root is None else Path(str(root)).expanduser()
        self.names, self.size, self.whole, self.edges = names, size, whole, [*edges]
        self.count, self.zoom, self.crop_seed = count, zoom, crop_seed

    def load(self) -> ImageSets:
        """Cut all sets, those of a photograph side by side."""
        random, sets = generator(self.crop_seed), []
        for path in self._paths():
            square = middle_square(path, self.zoom, self.whole, "whole")
            places = torch.rand(self.count, 2, generator=random)
            sets += [(f"{path.stem}, {edge} pixels", self._cut(square, edge, places)) for edge in self.edges]
        return gathered(sets)

    def files(self) -> list[Path]:
        """List the pictures of the folder."""
        return [] if self.root is None else self._paths()

    def _paths(self) -> list[Path]:
        return chosen(self.root, self.names)

    def _cut(self, square: Tensor, edge: int, places: Tensor) -> Bytes:
        side = self.whole - edge
        corners = (places * (edge + 1)).long().clamp(max=edge).tolist()
        crops = torch.stack([square[:, y : y + side, x : x + side] for y, x in corners])
        return images.to_bytes(images.resize(crops, self.size, self.size))
