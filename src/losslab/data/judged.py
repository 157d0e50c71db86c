"""What people said of pictures: indices into a table of pictures, and the data sets that hold them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from losslab.data.loader import ResumableLoader, whole
from losslab.data.tiles import tiles
from losslab.images import to_float
from losslab.types import Bytes, Image


@dataclass(frozen=True)
class Triplets:
    """Which of two pictures people found nearer to a reference.

    Args:
        pictures: (P, 3, H, W), each distinct picture once, in the order of their first use; may be a file mapped into
            memory.
        reference: indices into `pictures`, (T,).
        p0: the same of the first candidate.
        p1: of the second one.
        judge: share of the judgements that found p1 nearer, (T,), from 0 to 1.
        subset: index into `subsets`, (T,).
        subsets: names, none twice.
        votes: number of judgements, (T,); None where it is not known.
    """

    pictures: Bytes
    reference: Int[Tensor, " triplets"]
    p0: Int[Tensor, " triplets"]
    p1: Int[Tensor, " triplets"]
    judge: Float[Tensor, " triplets"]
    subset: Int[Tensor, " triplets"]
    subsets: tuple[str, ...]
    votes: Int[Tensor, " triplets"] | None = None

    def __len__(self) -> int:
        """Count the triplets."""
        return len(self.judge)

    def shown(self) -> Int[Tensor, "triplets 3"]:
        """Give the pictures of each: reference, p0 and p1."""
        return torch.stack([self.reference, self.p0, self.p1], 1)

    def pairs(self) -> Int[Tensor, "both 2"]:
        """Give the pictures of all distances that are needed: those of reference and p0, then of reference and p1."""
        return torch.cat([torch.stack([self.reference, p], 1) for p in (self.p0, self.p1)])


@dataclass(frozen=True)
class Pairs:
    """How many people took two pictures for the same one.

    Args:
        pictures: as `Triplets` has them.
        p0: indices into `pictures`, (T,).
        p1: the same of the other picture.
        same: share of the judgements that found no difference, (T,), from 0 to 1.
        subset: as `Triplets` has it.
        subsets: as `Triplets` has them.
    """

    pictures: Bytes
    p0: Int[Tensor, " pairs"]
    p1: Int[Tensor, " pairs"]
    same: Float[Tensor, " pairs"]
    subset: Int[Tensor, " pairs"]
    subsets: tuple[str, ...]

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.same)

    def shown(self) -> Int[Tensor, "pairs 2"]:
        """Give the pictures of each: p0 and p1."""
        return torch.stack([self.p0, self.p1], 1)

    pairs = shown
    """The pictures of all distances that are needed."""


class TripletBatch(NamedTuple):
    """Triplets to train on: images (N, 3, H, W) in [0, 1], and the share of judgements for p1, (N,)."""

    reference: Image
    p0: Image
    p1: Image
    judge: Float[Tensor, " batch"]


class TripletImages(Dataset[TripletBatch]):
    """Triplets with their pictures, fetched a batch at a time.

    Args:
        triplets: what to serve.
    """

    def __init__(self, triplets: Triplets) -> None:
        """Keep the triplets."""
        self.triplets = triplets

    def __len__(self) -> int:
        """Count the triplets."""
        return len(self.triplets)

    def __getitems__(self, indices: Sequence[int]) -> TripletBatch:
        """Give the triplets of `indices`."""
        held, where = self.triplets, torch.tensor(indices)
        reference, p0, p1 = (to_float(held.pictures[one[where]]) for one in (held.reference, held.p0, held.p1))
        return TripletBatch(reference, p0, p1, held.judge[where])


class JudgedData(pl.LightningDataModule, ABC):
    """Pictures with people's judgements, of one kind: triplets, or pairs that were taken for the same or not.

    Its test loader serves numbers of *distinct pairs* (`distances`), so that nothing is computed twice.

    Args:
        batch_size: triplets a training step, over all devices, and triplets measured at a time.
        seed: of the order in which triplets are trained on.
    """

    test: Triplets | Pairs

    def __init__(self, batch_size: int, seed: int) -> None:
        """Keep the sizes; `setup` reads."""
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"data.batch_size is a number of triplets, got {batch_size!r}")
        self.batch_size, self.seed, self.block = batch_size, seed, 3 * batch_size

    @abstractmethod
    def load(self) -> Triplets | Pairs:
        """Read what losses are judged on."""

    def load_train(self) -> Triplets | None:
        """Read what metrics are trained on, if there is any."""
        return None

    @cached_property
    def train(self) -> Triplets | None:
        """What metrics are trained on; read when it is first asked for, since most tasks only judge."""
        return self.load_train()

    def setup(self, stage: str | None = None) -> None:
        """Read what losses are judged on, once."""
        if not hasattr(self, "test"):
            self.test = self.load()
            self.distances, where = self.test.pairs().unique(dim=0, return_inverse=True)
            self.where = where.reshape(-1, len(self.test))  # of d0, and of d1 where there are triplets

    def fingerprint(self) -> str:
        """Name the content by a hash: the same pictures and judgements are the same data, wherever they lie."""
        self.setup()
        digest = hashlib.sha256()
        # What is made and not read from files is a function of the config, which counts by itself.
        for one in (self.test, self.train if self.files() else None):
            if one is None:
                continue
            digest.update(repr(one.subsets).encode())
            for name, held in vars(one).items():
                if isinstance(held, Tensor):
                    digest.update(f"{name}{tuple(held.shape)}".encode())
                    digest.update(held.contiguous().numpy().data)
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """List the files outside the installation that the data come from: while they stay, so does the content."""
        return []

    def facts(self) -> dict[str, int | str]:
        """Tell what a result row should tell of the data."""
        self.setup()
        return {"judged": len(self.test), "pictures": len(self.test.pictures), "size": self.test.pictures.shape[-1]}

    def train_dataloader(self) -> DataLoader[TripletBatch]:
        """Give the training triplets in an order that is a function of seed and epoch alone, shared out over devices.

        Raises:
            ValueError: there are none, fewer than a batch has, or a batch can't be shared out.
        """
        world, rank = self._place()
        if self.train is None or len(self.train) < self.batch_size:
            found = 0 if self.train is None else len(self.train)
            raise ValueError(f"{found} triplets to train on are fewer than data.batch_size={self.batch_size}")
        if self.batch_size % world:
            raise ValueError(f"data.batch_size={self.batch_size} can't be shared out over {world} devices")
        held = TripletImages(self.train)
        sampler: DistributedSampler[TripletBatch] = DistributedSampler(
            held, world, rank, shuffle=True, seed=self.seed, drop_last=world > 1
        )
        return ResumableLoader(held, self.batch_size // world, sampler)

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Give the numbers of the pairs in `distances`, tile by tile, to every device: a task takes its share of each.

        So all devices have something to do, however few the tiles are.
        """
        served: Any = tiles(self.distances, self.block)
        return DataLoader(served, batch_size=None, collate_fn=whole, num_workers=0)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
