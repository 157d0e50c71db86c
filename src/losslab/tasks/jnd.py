"""Just noticeable differences (JND): does a loss rank pairs that people took for the same before all others?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab.data.judged import Pairs
from losslab.metrics.scoring import score_pairs
from losslab.tasks.judging import Judging


class JND(Judging):
    """Scores losses by the average precision with which small distances find pairs that people took for the same.

    Formula: `score` is the mean over subsets of the area below the curve of precision against recall, pairs of small
        distance first; `score/pooled` is the area of all pairs in one order, `chance` the mean of `same`.

    Args:
        loss: one, or a panel.
        draws: of random weights and features.
        samples: of the bootstrap.
        seed: of the bootstrap.
        save_distances: whether the distances go into `distances.parquet` in the cell's folder.

    Raises:
        ValueError: draws that are none, or all one; data without pairs.

    Paper and code: LPIPS scores one set after the other (`score`), the study of Pihlgren et al. all pairs of both sets
        at once (`score/pooled`).

    Source: Zhang et al., CVPR 2018, section 4; Pihlgren et al., arXiv 2302.04032.
    """

    kind = Pairs

    def score(self, distances: Tensor) -> None:
        """Score the distances (draws, losses, 1, T)."""
        data, each = self.compared, distances.double().numpy().swapaxes(0, 1)
        pictures = torch.stack([data.p0, data.p1], 1)
        self.note(
            score_pairs(
                self.panel.names, [*each], data.same, data.subset, data.subsets, pictures, self.samples, self.seed
            )
        )
        self.ranks = each[:, :, 0].mean(1).argsort(-1).argsort(-1)

    @property
    def compared(self) -> Pairs:
        """The pairs that are judged by."""
        found = self.data.test
        assert isinstance(found, Pairs)  # `data` has refused others
        return found

    def columns(self) -> dict[str, Any]:
        """Give pictures and judgements of the pairs."""
        data = self.compared
        where = {"p0": data.p0, "p1": data.p1, "same": data.same}
        return {
            "subset": np.array(data.subsets)[data.subset.numpy()],
            **{name: one.numpy() for name, one in where.items()},
        }

    def worst(self, loss: int) -> list[Tensor]:
        """Give the pairs of the least distance in which most people saw a difference: pictures (N,) of each side."""
        data = self.compared
        seen = (data.same < 0.5).nonzero()[:, 0]
        order = seen[torch.from_numpy(self.ranks[loss])[seen].argsort()][: self.PICTURES]
        return [data.p0[order], data.p1[order]]
