"""The data set that is always there: crops of the colour photographs inside the scikit-image wheel."""

from collections.abc import Sequence
from pathlib import Path

import skimage
import torch
from torch import Tensor

from losslab import images
from losslab.data.base import ImageData
from losslab.seeds import generator
from losslab.types import Bytes

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",  # motorcycle_right is the other half of a stereo pair: nearly the same pixels
    "retina.jpg",
    "rocket.jpg",
)
"""Colour photographs that scikit-image ships as files; the docstrings of `skimage.data` name their sources."""

FLAT = 0.02
"""Standard deviation, of values in [0, 1], below which a crop shows nothing (the black around the retina)."""

PATIENCE = 100
"""Places that are tried before a flat crop is taken after all."""

VAL_SHARE = 0.25
"""Share of each photograph's longer side whose pixels only val sees."""


class Photos(ImageData):
    """Square crops of eight photographs at several scales, no pixel both in train and in val.

    Each photograph is cut in two across its longer side: the first three quarters are train, the rest val. Crops are
    spread evenly over photographs and over those scales that fit the region, at places drawn by `crop_seed`, and scaled
    down to `size`; a place that shows nothing is drawn again.

    Args:
        size: side of the images in pixels.
        scales: sides of the crops in the photographs, in pixels; scales that don't fit a region are not used there.
        train_count: number of training images.
        val_count: number of val images.
        crop_seed: of the places.
        batch_size: images a training step, over all devices.
        seed: of the order in training.

    Raises:
        ValueError: no scale fits a region.
    """

    def __init__(
        self,
        size: int = 64,
        scales: Sequence[int] = (64, 128, 256),
        train_count: int = 256,
        val_count: int = 64,
        crop_seed: int = 0,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        """Keep the sizes."""
        super().__init__(batch_size, seed)
        self.size, self.scales, self.crop_seed = size, sorted(scales), crop_seed
        self.counts = {"train": train_count, "val": val_count}

    def load(self) -> tuple[Bytes, Bytes]:
        """Cut the crops of both splits."""
        folder = Path(skimage.__file__).parent / "data"
        photographs = [images.read(folder / name) for name in PHOTOGRAPHS]
        return self._crops(photographs, "train"), self._crops(photographs, "val")

    def _crops(self, photographs: list[Tensor], split: str) -> Bytes:
        random = generator(self.crop_seed)
        regions = [region(photograph, split) for photograph in photographs]
        crops = [
            self._crop(regions[number % len(regions)], number // len(regions), random)
            for number in range(self.counts[split])
        ]
        return torch.stack(crops) if crops else torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)

    def _crop(self, source: Tensor, turn: int, random: torch.Generator) -> Bytes:
        height, width = source.shape[-2:]
        fitting = [scale for scale in self.scales if scale <= min(height, width)]
        if not fitting:
            raise ValueError(f"no scale of {self.scales} fits a region of {height}×{width} pixels: add a smaller one")
        side = fitting[turn % len(fitting)]
        for _ in range(PATIENCE):
            top = int(torch.randint(height - side + 1, (), generator=random))
            left = int(torch.randint(width - side + 1, (), generator=random))
            crop = images.to_float(source[:, top : top + side, left : left + side])
            if crop.std() > FLAT:
                break
        return images.to_bytes(images.resize(crop, self.size, self.size))


def region(photograph: Bytes, split: str) -> Bytes:
    """Give a split's part of one photograph (3, H, W): the first part along its longer side is train, the rest val."""
    axis = -1 if photograph.shape[-1] >= photograph.shape[-2] else -2
    border = round(photograph.shape[axis] * (1 - VAL_SHARE))
    train, val = photograph.tensor_split([border], dim=axis)
    return train if split == "train" else val
