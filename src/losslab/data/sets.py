"""What data of image sets share: pictures of one size, those of a set side by side, each with a weight in its set."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from losslab.types import Bytes


@dataclass(frozen=True)
class ImageSets:
    """Sets of pictures.

    Args:
        pictures: (N, 3, H, W), those of a set side by side.
        sizes: pictures in each set; their sum is N.
        names: of the sets.

    Raises:
        ValueError: a set is empty, or the numbers don't fit.
    """

    pictures: Bytes
    sizes: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the numbers fit."""
        if len(self.sizes) != len(self.names) or sum(self.sizes) != len(self.pictures) or not all(self.sizes):
            told = f"{len(self.pictures)} pictures, sizes {self.sizes} and {len(self.names)} names"
            raise ValueError(f"sets have a picture at least, a size and a name each, got {told}")

    def __len__(self) -> int:
        """Count the sets."""
        return len(self.sizes)


def gathered(sets: Sequence[tuple[str, Bytes]]) -> ImageSets:
    """Put named sets, (K, 3, H, W) each, side by side.

    Raises:
        ValueError: there are none, or their pictures differ in size.
    """
    if not sets:
        raise ValueError("there is no set of pictures")
    shapes = {tuple(pictures.shape[1:]) for _, pictures in sets}
    if len(shapes) > 1:
        found = ", ".join(f"{name} {tuple(pictures.shape[-2:])}" for name, pictures in sets)
        raise ValueError(f"the pictures of all sets have one size, got {found}")
    names, pictures = zip(*sets, strict=True)
    return ImageSets(torch.cat(pictures), tuple(len(one) for one in pictures), names)


class SetData(pl.LightningDataModule, ABC):
    """Sets of pictures, of each of which a task looks for one image.

    Args:
        weights: of the pictures of each set in their mean, in order; None: all alike.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        """Keep the weights; `setup` reads the pictures."""
        super().__init__()
        self.given = None if weights is None else [*weights]

    @abstractmethod
    def load(self) -> ImageSets:
        """Read the sets."""

    def setup(self, stage: str | None = None) -> None:
        """Read the sets, once.

        Raises:
            ValueError: weights that don't fit the sets.
        """
        if not hasattr(self, "sets"):
            self.sets = self.load()
            self.weights = torch.cat([self._shares(size) for size in self.sets.sizes])

    def _shares(self, size: int) -> Float[Tensor, " pictures"]:
        """Give the weights of a set's pictures; their sum is 1."""
        given = self.given or [1.0] * size
        if len(given) != size:
            raise ValueError(f"data.weights has {len(given)} numbers, and a set has {size} pictures")
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in given)
        if not numbers or min(given) < 0 or not 0 < sum(given) < float("inf"):
            raise ValueError(f"data.weights are numbers from 0, of which one at least is more, got {given}")
        return torch.tensor(given) / sum(given)

    def fingerprint(self) -> str:
        """Name the content by a hash: the same sets are the same data, wherever they lie."""
        self.setup()
        digest = hashlib.sha256(repr((self.sets.sizes, tuple(self.sets.pictures.shape))).encode())
        digest.update(self.sets.pictures.contiguous().numpy().data)
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """List the files outside the installation that the pictures come from: while they stay, so does the content."""
        return []

    def facts(self) -> dict[str, int]:
        """Count what a result row should tell of the data."""
        self.setup()
        height, width = self.sets.pictures.shape[-2:]
        return {"sets": len(self.sets), "pictures": len(self.sets.pictures), "height": height, "width": width}

    def train_dataloader(self) -> DataLoader[int]:
        """Give steps without end: each is on all sets."""
        return DataLoader(_Steps(), batch_size=None, num_workers=0)

    def test_dataloader(self) -> DataLoader[int]:
        """Give one batch, which stands for all sets."""
        one: list[int] = [0]
        return DataLoader(one, batch_size=None, num_workers=0)  # type: ignore[arg-type]


class _Steps(IterableDataset[int]):
    """Steps without end."""

    def __iter__(self) -> Iterator[int]:
        return repeat(0)
