"""A loader that can go on in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler


class ResumableLoader(DataLoader[Any]):
    """Batches in an order that is a function of seed and epoch; its state is the epoch and the batches served in it.

    Lightning keeps the state in its checkpoints and gives it back, without which it would train on the first batches
    of the epoch again.

    Args:
        images: the data set, which gives whole batches by `__getitems__`.
        batch_size: images a batch on this device; an incomplete last one is left out, as batch norm wants it.
        sampler: gives the order; Lightning tells it the epoch.
    """

    def __init__(self, images: Dataset[Any], batch_size: int, sampler: DistributedSampler[Any]) -> None:
        """Begin at the first batch."""
        self.order = _Batches(sampler, batch_size)
        self.served = 0
        own = torch.Generator().manual_seed(0)  # an iterator takes a number of it: not of the one that models use
        super().__init__(images, batch_sampler=self.order, collate_fn=whole, num_workers=0, generator=own)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Give the batches of the epoch, from where the state says."""
        self.served = self.order.first()
        for batch in super().__iter__():
            self.served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Tell where the training stands."""
        return {"epoch": self.order.epochs.epoch, "served": self.served}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there, if the epoch is not over."""
        self.order.resume = (state_dict["epoch"], state_dict["served"])


class _Batches(BatchSampler):
    """The batches of an epoch, less those that were served before a resume."""

    def __init__(self, sampler: DistributedSampler[Any], batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=True)
        self.epochs = sampler
        self.resume = (-1, 0)

    def first(self) -> int:
        """Tell the number of the epoch's first batch to serve."""
        epoch, served = self.resume
        return served if epoch == self.epochs.epoch else 0

    def __iter__(self) -> Iterator[list[int]]:
        yield from islice(super().__iter__(), self.first(), None)


def whole(batch: Any) -> Any:
    """Collate nothing: `__getitems__` gives whole batches."""
    return batch
