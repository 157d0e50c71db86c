"""What tasks that judge losses have in common: distances of all pairs, whatever the number of devices and of draws."""

import io
import re
from abc import ABC, abstractmethod
from itertools import product
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor

from losslab import images
from losslab.data.judged import JudgedData, Pairs, Triplets
from losslab.divergence import DivergedError
from losslab.losses.base import Loss
from losslab.losses.pairs import PairDistances
from losslab.losses.panel import Panel
from losslab.metrics.arrays import places
from losslab.metrics.subsets import RESERVED
from losslab.metrics.table import ScoreTable
from losslab.seeds import generator
from losslab.types import Bytes

SHARED = 0.75
"""Pictures over uses of pictures, below which encodings are worth keeping."""

LEAST_SAMPLES = 20
"""Of the bootstrap: an interval of 95 % leaves one of them out."""

PICTURED, COLUMNS = 4, 8
"""Losses of a panel, the best ones, whose worst disagreements are shown, and how many of these side by side."""


class Judging(pl.LightningModule, ABC):
    """Measures the distances of all pairs of a data set under each loss, for one or several draws of what is random.

    Args:
        loss: one, or a panel.
        draws: of random weights and features; each pair of pictures is measured under all of them.
        save_distances: whether all distances go into a file of the cell.
        samples: of the bootstrap.
        seed: of the bootstrap.
    """

    PICTURES = 2 * COLUMNS

    stages = ("test",)
    primary = "score"

    def __init__(
        self,
        loss: Loss[Any] | Panel,
        draws: int = 1,
        samples: int = 2000,
        seed: int = 0,
        *,
        save_distances: bool = True,
    ) -> None:
        """Check the numbers; a loss becomes a panel of one."""
        super().__init__()
        if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
            raise ValueError(f"draws is a whole number from 1, got {draws!r}")
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < LEAST_SAMPLES:
            raise ValueError(f"task.samples is a number of resamples from {LEAST_SAMPLES}, got {samples!r}")
        self.panel = loss if isinstance(loss, Panel) else Panel({loss.name: loss})
        self.draws, self.samples, self.seed, self.save_distances = draws, samples, seed, save_distances

    def setup(self, stage: str) -> None:
        """Find out how many pictures' encodings can be held, and which losses another draw changes.

        Raises:
            ValueError: data, panel or draws that don't fit, before anything is measured.
        """
        data = self.data
        places(data.test.subset, data.test.subsets, RESERVED)
        self.table = PairDistances(self.panel, data.test.pictures)
        self.panel.draw(0)
        self.capacity = self.table.capacity(self.device)
        if self.draws > 1:
            self._find_random()
        uses = data.where.numel() * (len(data.where) + 1) / len(data.where)
        if len(data.test.pictures) < SHARED * uses:
            data.block = self.table.block(self.capacity)
        self.distances = torch.zeros(self.draws, len(self.panel.names), len(data.distances))
        self.times = torch.zeros(len(data.distances))

    @property
    def data(self) -> JudgedData:
        """The data set of the trainer."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(found, JudgedData) or not isinstance(found.test, self.kind):
            raise ValueError(  # noqa: TRY004 - the data come from a config
                f"this task judges by {self.kind.__name__.lower()}, and data of {type(found).__name__} have none"
            )
        return found

    @property
    @abstractmethod
    def kind(self) -> type[Triplets | Pairs]:
        """What the task judges by."""

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure this device's share of a tile of pairs under all draws."""
        pairs = self.data.distances[batch]
        rows = pairs[:, 0].unique_consecutive(return_inverse=True)[1]
        mine = rows % self.trainer.world_size == self.trainer.global_rank
        if not bool(mine.any()):
            return
        self.times[batch[mine]] += 1
        self.panel.draw(0)
        self.distances[:, :, batch[mine]] = self.table.of(pairs[mine], self.device, self.capacity)
        for draw in range(1, self.draws):
            self.redrawn.panel.draw(draw)
            found = self.redrawn.of(pairs[mine], self.device, self.capacity)
            self.distances[draw, self.random[:, None], batch[mine]] = found

    def on_test_epoch_end(self) -> None:
        """Bring the shares of all devices together, and score.

        Raises:
            DivergedError: a loss gives what is no number.
            ValueError: a pair was not measured, or twice.
        """
        self.distances, times = (self._summed(one) for one in (self.distances, self.times))
        if not bool((times == 1).all()):
            raise ValueError(
                f"{int((times != 1).sum())} of {len(times)} pairs were not measured once: this task takes all batches, "
                "and its share of each itself (of the trainer: limit_test_batches=1.0, use_distributed_sampler=False)"
            )
        bad = ~self.distances.isfinite().all(-1).all(0)
        if bool(bad.any()):
            name = self.panel.names[int(bad.nonzero()[0])]
            raise DivergedError(f"{name} gives distances that are no numbers", term=name)
        self.score(self.distances[..., self.data.where])

    def _summed(self, mine: Tensor) -> Tensor:
        """Add up over devices."""
        return torch.as_tensor(self.trainer.strategy.reduce(mine.to(self.device), reduce_op="sum")).cpu()

    @abstractmethod
    def score(self, distances: Tensor) -> None:
        """Score the distances (draws, losses, sides, T) of what was judged, and call `note`."""

    @abstractmethod
    def columns(self) -> dict[str, Any]:
        """Give what stands beside the distances in the file: pictures and judgements."""

    def note(self, table: ScoreTable) -> None:
        """Keep the results."""
        self.scored, self.found_rows = table, table.rows()
        self.log_dict({f"score/{row['measure']}": row["score"] for row in self.found_rows}, rank_zero_only=True)

    @abstractmethod
    def worst(self, loss: int) -> list[Tensor]:
        """Give the pictures where a loss contradicts people most, (N,) a line that is shown, N up to `PICTURES`."""

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Bytes]:
        """Show where the best losses contradict people most."""
        order = sorted(range(len(self.panel.names)), key=lambda k: -self.found_rows[k]["score"])[:PICTURED]
        lines = {re.sub(r"[^A-Za-z0-9.+-]+", "_", self.panel.names[k]): self.worst(k) for k in order}
        return {
            f"worst_{name}": images.grid([self.shown(one) for one in some], COLUMNS)
            for name, some in lines.items()
            if len(some[0])
        }

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each loss."""
        return self.found_rows

    def files(self) -> dict[str, bytes]:
        """Give the differences between the losses of a panel, and all distances, as files by their names."""
        found = {}
        if differences := self.scored.differences():
            found["differences.csv"] = pd.DataFrame(differences).to_csv(index=False).encode()
        if self.save_distances:
            found["distances.parquet"] = self._parquet()
        return found

    def _parquet(self) -> bytes:
        columns = self.columns()
        held = self.distances[..., self.data.where]
        sides = ("d0", "d1") if held.shape[2] == 2 else ("d",)
        for (loss, name), draw, (k, side) in product(enumerate(self.panel.names), range(self.draws), enumerate(sides)):
            which = f"{side} of {name}, draw {draw}" if self.draws > 1 else f"{side} of {name}"
            columns[which] = held[draw, loss, k].numpy()
        table = pd.DataFrame(columns)
        table.attrs.update(content=self.data.fingerprint(), **self.data.facts())
        file = io.BytesIO()
        table.to_parquet(file, index=False)
        return file.getvalue()

    def shown(self, numbers: Tensor) -> Tensor:
        """Give pictures of the table as images in [0, 1]."""
        return images.to_float(self.data.test.pictures[numbers])

    @torch.no_grad()
    def _find_random(self) -> None:
        """Find the losses that another draw changes, so that the others are measured once.

        Raises:
            ValueError: there are none.
        """
        noise = torch.rand(2, *self.data.test.pictures.shape[1:], generator=generator(0)).to(self.device)
        made = []
        for draw in (0, 1):
            self.panel.draw(draw)
            (found,) = self.panel.measure(noise[:1], noise[1:])
            made.append(torch.cat([*found.values()]).cpu())
        self.random = (made[0] != made[1]).nonzero()[:, 0]
        if not len(self.random):
            raise ValueError(f"draws={self.draws}, but nothing is random in {', '.join(self.panel.names)}")
        names = [self.panel.names[k] for k in self.random.tolist()]
        self.redrawn = PairDistances(Panel({name: self.panel.losses[name] for name in names}), self.data.test.pictures)
