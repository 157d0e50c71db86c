"""What tasks that judge losses have in common: distances of all pairs, whatever the number of devices and of draws."""

import io
import re
from abc import ABC, abstractmethod
from itertools import product
from typing import Any

import numpy as np
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
from losslab.metrics.scoring import score_pairs, score_triplets
from losslab.metrics.subsets import RESERVED
from losslab.seeds import generator
from losslab.types import Bytes

SHARED = 0.75
"""Pictures over uses of pictures, below which encodings are worth keeping."""

LEAST_SAMPLES = 20
"""Of the bootstrap: an interval of 95 % leaves one of them out."""

PICTURED, COLUMNS = 4, 8
"""Losses of a panel, the best ones, whose worst disagreements are shown, and how many of these side by side."""

TOLD = ("reference", "p0", "p1", "judge", "same")
"""What the file of distances has of each judgement, beside its subset."""


class Judging(pl.LightningModule, ABC):
    """Measures and scores the distances of all pairs of a data set, for one or several draws of what is random.

    Args:
        loss: one, or a panel; None where `judged` makes it when the test begins.
        draws: of random weights and features; each pair of pictures is measured under all of them.
        save_distances: whether all distances go into a file of the cell.
        samples: of the bootstrap.
        seed: of the bootstrap.
    """

    PICTURES = 2 * COLUMNS

    stages: tuple[str, ...] = ("test",)
    primary = "score"

    def __init__(
        self,
        loss: Loss[Any] | Panel | None,
        draws: int = 1,
        samples: int = 2000,
        seed: int = 0,
        *,
        save_distances: bool = True,
    ) -> None:
        """Check the numbers; a loss becomes a panel of one."""
        super().__init__()
        self.diverged: DivergedError | None = None
        if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
            raise ValueError(f"draws is a whole number from 1, got {draws!r}")
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < LEAST_SAMPLES:
            raise ValueError(f"task.samples is a number of resamples from {LEAST_SAMPLES}, got {samples!r}")
        self.panel = Panel({loss.name: loss}) if isinstance(loss, Loss) else loss
        self.draws, self.samples, self.seed, self.save_distances = draws, samples, seed, save_distances

    def setup(self, stage: str) -> None:
        """Find out how many pictures' encodings can be held, and which losses another draw changes.

        Raises:
            ValueError: data, panel or draws that don't fit, before anything is measured.
        """
        data = self.data
        places(data.test.subset, data.test.subsets, RESERVED)
        self.table = PairDistances(self.judged(), data.test.pictures)
        self.table.panel.draw(0)
        self.capacity = self.table.capacity(self.device)
        if self.draws > 1:
            self._find_random()
        uses = data.where.numel() * (len(data.where) + 1) / len(data.where)
        if len(data.test.pictures) < SHARED * uses:
            data.block = self.table.block(self.capacity)
        self.distances = torch.zeros(self.draws, len(self.names), len(data.distances))
        self.times = torch.zeros(len(data.distances))

    def judged(self) -> Panel:
        """Give the losses that are judged."""
        assert self.panel is not None
        return self.panel

    @property
    def names(self) -> list[str]:
        """The names of the losses."""
        return self.table.panel.names

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

    def on_test_start(self) -> None:
        """Bring the losses to this device."""
        self.table.panel.to(self.device)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure this device's share of a tile of pairs under all draws."""
        pairs = self.data.distances[batch]
        rows = pairs[:, 0].unique_consecutive(return_inverse=True)[1]
        mine = rows % self.trainer.world_size == self.trainer.global_rank
        if not bool(mine.any()):
            return
        self.times[batch[mine]] += 1
        self.table.panel.draw(0)
        self.distances[:, :, batch[mine]] = self.table.of(pairs[mine], self.device, self.capacity)
        for draw in range(1, self.draws):
            self.redrawn.panel.draw(draw)
            found = self.redrawn.of(pairs[mine], self.device, self.capacity)
            self.distances[draw, self.random[:, None], batch[mine]] = found

    def on_test_epoch_end(self) -> None:
        """Bring the shares of all devices together, and score the losses whose distances are numbers.

        Raises:
            DivergedError: none has such; where some have, `diverged` is set.
            ValueError: a pair was not measured, or twice.
        """
        self.distances, times = (self._summed(one) for one in (self.distances, self.times))
        if not bool((times == 1).all()):
            raise ValueError(
                f"{int((times != 1).sum())} of {len(times)} pairs were not measured once: this task takes all batches, "
                "and its share of each itself (of the trainer: limit_test_batches=1.0, use_distributed_sampler=False)"
            )
        finite = self.distances.isfinite().all(-1).all(0).tolist()
        if bad := [name for name, whole in zip(self.names, finite, strict=True) if not whole]:
            give = "gives" if len(bad) == 1 else "give"
            self.diverged = DivergedError(f"{', '.join(bad)} {give} distances that are no numbers", term=bad[0])
            if not any(finite):
                raise self.diverged
        self._score(self.distances[..., self.data.where])

    def _summed(self, mine: Tensor) -> Tensor:
        """Add up over devices."""
        return torch.as_tensor(self.trainer.strategy.reduce(mine.to(self.device), reduce_op="sum")).cpu()

    def _score(self, distances: Tensor) -> None:
        """Score the distances (draws, losses, sides, T) of what was judged."""
        held, each = self.data.test, [*distances.double().numpy().swapaxes(0, 1)]
        score, said = (score_triplets, held.judge) if isinstance(held, Triplets) else (score_pairs, held.same)
        self.scored = score(self.names, each, said, held.subset, held.subsets, held.shown(), self.samples, self.seed)
        self.found_rows = self.scored.rows()
        scores = {f"score/{row['measure']}": row["score"] for row in self.found_rows if "score" in row}
        self.log_dict(scores, rank_zero_only=True)

    @abstractmethod
    def worst(self, loss: int) -> list[Tensor]:
        """Give the pictures where a loss contradicts people most, (N,) a line that is shown, N up to `PICTURES`."""

    def pictures(self, step: int, *, final: bool = False) -> dict[str, Bytes]:
        """Show where the best losses contradict people most, at the end."""
        if not final:
            return {}
        scored = [row for row in self.found_rows if "score" in row]
        names = [row["measure"] for row in sorted(scored, key=lambda row: -row["score"])[:PICTURED]]
        lines = {re.sub(r"[^A-Za-z0-9.+-]+", "_", one): self.worst(self.names.index(one)) for one in names}
        return {
            f"worst_{name}": images.grid([self.shown(one) for one in some], COLUMNS)
            for name, some in lines.items()
            if len(some[0])
        }

    def mean_distances(self, loss: int) -> Tensor:
        """Give the distances of a loss, means over draws, (sides, T)."""
        return self.distances[:, loss][..., self.data.where].double().mean(0)

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each loss; one without a score has the reason."""
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
        held, found = self.data.test, self.distances[..., self.data.where]
        told = {name: one.numpy() for name, one in vars(held).items() if name in TOLD}
        columns = {"subset": np.array(held.subsets)[held.subset.numpy()], **told}
        sides = ("d0", "d1") if found.shape[2] == 2 else ("d",)
        for (loss, name), draw, (k, side) in product(enumerate(self.names), range(self.draws), enumerate(sides)):
            which = f"{side} of {name}, draw {draw}" if self.draws > 1 else f"{side} of {name}"
            columns[which] = found[draw, loss, k].numpy()
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
            self.table.panel.draw(draw)
            (found,) = self.table.panel.measure(noise[:1], noise[1:])
            made.append(torch.cat([*found.values()]).cpu())
        self.random = (made[0] != made[1]).nonzero()[:, 0]
        if not len(self.random):
            raise ValueError(f"draws={self.draws}, but nothing is random in {', '.join(self.names)}")
        losses = self.table.panel.losses
        names = [self.names[k] for k in self.random.tolist()]
        self.redrawn = PairDistances(Panel({name: losses[name] for name in names}), self.data.test.pictures)
