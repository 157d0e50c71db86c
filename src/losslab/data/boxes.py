"""Sets of boxes on a plain ground: the images whose mean everybody can imagine."""

from collections.abc import Sequence

import torch

from losslab.data.sets import ImageSets, SetData, gathered
from losslab.seeds import generator
from losslab.types import Bytes


class Boxes(SetData):
    """Sets of images with one box each, at a random place.

    Args:
        size: side of the images in pixels.
        box: side of the boxes in pixels.
        count: images in a set.
        step: places are multiples of this many pixels, from 0 to `size - box`.
        background: grey of the ground, 0 to 255.
        colours: of the boxes, in turn: red, green and blue from 0 to 255.
        sets: number of sets; each has places of its own.
        place_seed: of the places.
        weights: as in `SetData`.

    Raises:
        ValueError: a number that is out of range, or a colour that is none.

    Source: create_shifted_colorfull_box_images of ariel415el/PerceptualLossExperiments: 32 images of 128 pixels, boxes
        of 32 at multiples of 3, a ground of 127, six colours. Its numbers go to OpenCV as blue, green, red; ours are
        what its files show. The code of its other set, `box_dataset`, is not there: white boxes are our choice.
    """

    def __init__(
        self,
        size: int = 128,
        box: int = 32,
        count: int = 32,
        step: int = 3,
        background: int = 127,
        colours: Sequence[Sequence[int]] = ((255, 255, 255),),
        sets: int = 1,
        place_seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Check the options."""
        super().__init__(weights)
        if min(count, step, sets) < 1:
            raise ValueError(f"data.count, data.step and data.sets are from 1, got {count}, {step} and {sets}")
        if not 1 <= box <= size:
            raise ValueError(f"data.box is from 1 to data.size={size} pixels, got {box}")
        if not 0 <= background <= 255:
            raise ValueError(f"data.background is from 0 to 255, got {background}")
        if not colours or any(len(one) != 3 or min(one) < 0 or max(one) > 255 for one in colours):
            raise ValueError(f"data.colours are lists of red, green and blue from 0 to 255, got {colours}")
        self.size, self.box, self.count, self.step = size, box, count, step
        self.background, self.colours = background, [[*one] for one in colours]
        self.number, self.place_seed = sets, place_seed

    def load(self) -> ImageSets:
        """Draw all sets."""
        random = generator(self.place_seed)
        return gathered([(f"boxes {number}", self._drawn(random)) for number in range(self.number)])

    def _drawn(self, random: torch.Generator) -> Bytes:
        drawn = torch.full((self.count, 3, self.size, self.size), self.background, dtype=torch.uint8)
        most = (self.size - self.box) // self.step
        places = self.step * torch.randint(most + 1, (self.count, 2), generator=random)
        for number, (y, x) in enumerate(places.tolist()):
            colour = torch.tensor(self.colours[number % len(self.colours)], dtype=torch.uint8)
            drawn[number, :, y : y + self.box, x : x + self.box] = colour[:, None, None]
        return drawn
