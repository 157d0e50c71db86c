"""Sets of overlapping crops: each photograph gives a set, whose pictures are the same thing a little elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from losslab import images
from losslab.data.choosing import chosen, middle_square
from losslab.data.sets import ImageSets, SetData, gathered
from losslab.seeds import generator
from losslab.types import Bytes

PLACES = ("corners", "shifts", "jitter")


class Crops(SetData):
    """Sets of crops of photographs that are a few pixels, or more, apart.

    The middle square of each photograph, or what `zoom` leaves of it, is scaled to `size + offset` pixels, and crops of
    `size` pixels are cut out of it.

    Args:
        root: a folder with pictures, a set each; None: photographs of the scikit-image wheel.
        names: file names in it, or the wheel's without their suffix; None: all, and of the wheel those in colour.
        size: side of the pictures in pixels.
        places: where crops are cut: "corners" at (0, 0), (offset, 0), (offset, offset) and (0, offset) pixels from the
            top left, the source's four; "shifts" at `count` places drawn from 0 to `offset` in each direction; "jitter"
            like that, and each crop is turned left to right with a chance of one half.
        offset: largest distance of two crops along an axis, in pixels.
        count: pictures in a set, of "shifts" and "jitter".
        zoom: share of the photograph's middle square that is used, more than 0 to 1.
        crop_seed: of the places.
        weights: as in `SetData`.

    Raises:
        ValueError: an option that is none, a name that is not there, or a photograph smaller than the crops.

    Source: "corners" with an offset of 3: the text "Perceptual Distance and the Generalized Mean Image Problem" by
        defgsus (create_target_images); corners of textures, 7 pixels apart, and shifts: make_shift_sets of
        ariel415el/PerceptualLossExperiments, where a zoom of .2 cuts a fifth off each side, as ours of .6 does. It
        scales without averaging. Turned crops are ours.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        names: Sequence[str] | None = None,
        size: int = 96,
        places: str = "corners",
        offset: int = 3,
        count: int = 6,
        zoom: float = 1.0,
        crop_seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Check the options."""
        super().__init__(weights)
        if places not in PLACES:
            raise ValueError(f"data.places is one of {', '.join(PLACES)}, got {places!r}")
        if not 0 < zoom <= 1:
            raise ValueError(f"data.zoom is more than 0 and at most 1, got {zoom}")
        if min(size, count) < 1 or offset < 0:
            raise ValueError(f"data.size and data.count are from 1, data.offset from 0, got {size}, {count}, {offset}")
        self.root = None if root is None else Path(str(root)).expanduser()
        self.names, self.size, self.places, self.offset = names, size, places, offset
        self.count, self.zoom, self.crop_seed = count, zoom, crop_seed

    def load(self) -> ImageSets:
        """Cut all sets."""
        random, side = generator(self.crop_seed), self.size + self.offset
        wholes = ((path.stem, middle_square(path, self.zoom, side, "size")) for path in self._paths())
        return gathered([(name, self._cut(whole, random)) for name, whole in wholes])

    def files(self) -> list[Path]:
        """List the pictures of the folder."""
        return [] if self.root is None else self._paths()

    def _paths(self) -> list[Path]:
        return chosen(self.root, self.names)

    def _cut(self, whole: Tensor, random: torch.Generator) -> Bytes:
        crops = [whole[:, y : y + self.size, x : x + self.size] for y, x in self._offsets(random)]
        if self.places == "jitter":
            turned = torch.rand(len(crops), generator=random) < 0.5
            crops = [crop.flip(-1) if turn else crop for crop, turn in zip(crops, turned.tolist(), strict=True)]
        return images.to_bytes(torch.stack(crops))

    def _offsets(self, random: torch.Generator) -> list[list[int]]:
        if self.places == "corners":
            return [[0, 0], [self.offset, 0], [self.offset, self.offset], [0, self.offset]]
        found: list[list[int]] = torch.randint(self.offset + 1, (self.count, 2), generator=random).tolist()
        return found
