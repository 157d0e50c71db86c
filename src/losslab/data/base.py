"""What every image data set shares: decoded once, held as bytes, handed out with indices."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from losslab.data.loader import ResumableLoader, whole
from losslab.images import to_float
from losslab.types import Bytes, Image


class Batch(NamedTuple):
    """Images (N, 3, H, W) in [0, 1], and where each stands in its data set, (N,)."""

    images: Image
    indices: Int[Tensor, " batch"]


class IndexedImages(Dataset[Batch]):
    """Images held as bytes, fetched a batch at a time.

    Args:
        stored: (N, 3, H, W) bytes.
    """

    def __init__(self, stored: Bytes) -> None:
        """Keep the bytes."""
        self.stored = stored

    def __len__(self) -> int:
        """Count the images."""
        return len(self.stored)

    def __getitem__(self, index: int) -> Batch:
        """Give one image and its index, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Give the images of `indices` with them."""
        where = torch.tensor(indices)
        return Batch(to_float(self.stored[where]), where)


class ImageData(pl.LightningDataModule, ABC):
    """A data set of images of one size, split into train and val.

    `batch_size` is the number of images a step over all devices together, so that more devices make no other batches.

    Args:
        batch_size: images a training step, over all devices.
        seed: of the order in which the images are trained on, with the epoch.
    """

    def __init__(self, batch_size: int, seed: int) -> None:
        """Keep the sizes; `setup` reads the images."""
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"data.batch_size is a number of images, got {batch_size!r}")
        self.batch_size, self.seed = batch_size, seed
        self.train: IndexedImages | None = None
        self.val: IndexedImages | None = None

    @abstractmethod
    def load(self) -> tuple[Bytes, Bytes]:
        """Read the train and val images, (N, 3, H, W) bytes."""

    def setup(self, stage: str | None = None) -> None:
        """Read the images, once."""
        if self.train is None:
            self.train, self.val = (IndexedImages(stored) for stored in self.load())

    def fingerprint(self) -> str:
        """Name the content of the images by a hash: the same pictures are the same data, wherever they lie."""
        self.setup()
        digest = hashlib.sha256()
        for split in (self.train, self.val):
            if split is not None:
                digest.update(str(tuple(split.stored.shape)).encode())
                digest.update(split.stored.numpy().tobytes())
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """List the files outside the installation that the images come from: while they stay, so does the content."""
        return []

    def facts(self) -> dict[str, int]:
        """Count what a result row should tell of the data."""
        self.setup()
        return {"train_images": len(_known(self.train)), "val_images": len(_known(self.val))}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give the training images in an order that is a function of seed and epoch alone, shared out over devices."""
        images = _known(self.train)
        world, rank = self._place()
        if self.batch_size % world:
            raise ValueError(f"data.batch_size={self.batch_size} can't be shared out over {world} devices")
        if len(images) < self.batch_size:
            raise ValueError(
                f"{len(images)} training images are fewer than data.batch_size={self.batch_size}: lower it"
            )
        # One process samples in the same way as many do. Incomplete last batches are left out, as batch norm wants it;
        # the order changes with the epoch, so every image has its turn.
        sampler: DistributedSampler[Batch] = DistributedSampler(
            images, world, rank, shuffle=True, seed=self.seed, drop_last=world > 1
        )
        return ResumableLoader(images, self.batch_size // world, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Give the val images in order, each once."""
        return self._in_order(_known(self.val))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Give the training images in order, each once: what a task that fits its training images is judged on."""
        return self._in_order(_known(self.train))

    def _in_order(self, images: IndexedImages) -> DataLoader[Batch]:
        world, rank = self._place()
        mine = range(rank, len(images), world)  # no padding: an image counts once, on however many devices
        return DataLoader(images, self.batch_size, sampler=mine, collate_fn=whole, num_workers=0)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)


def _known(images: IndexedImages | None) -> IndexedImages:
    if images is None:
        raise RuntimeError("the images are read by setup(), which was not called")
    return images
