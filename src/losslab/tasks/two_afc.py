"""Two-alternative forced choice: does a loss find the same of two pictures nearer to a reference as people do?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab.data.judged import Triplets
from losslab.metrics.scoring import score_triplets
from losslab.tasks.judging import Judging


class TwoAFC(Judging):
    """Scores losses by people's choices, with intervals, and shows where they contradict people most.

    Formula: `score` is the mean over subsets of the means over triplets of (1 - h) [d0 < d1] + h [d1 < d0] +
        ½ [d0 = d1], with h the share of judgements for p1; `accuracy` is the share of triplets with a majority on which
        the loss chooses as it does, `human` what a person scores, and `oracle` the highest possible score.

    Args:
        loss: one, or a panel.
        draws: of random weights and features; each pair of pictures is measured under all of them, and a triplet's
            score is its mean over draws. `sd_of_draws` tells how much the score of a single draw varies.
        samples: of the bootstrap.
        seed: of the bootstrap.
        save_distances: whether the distances go into `distances.parquet` in the cell's folder.

    Raises:
        ValueError: draws that are none, or all one; data without triplets.

    Source: Zhang et al., CVPR 2018, section 4 and Table 5; test_dataset_model.py of richzhang/PerceptualSimilarity.
    """

    kind = Triplets

    def score(self, distances: Tensor) -> None:
        """Score the distances (draws, losses, 2, T)."""
        data, each = self.triplets, distances.double().numpy().swapaxes(0, 1)
        pictures = torch.stack([data.reference, data.p0, data.p1], 1)
        self.note(
            score_triplets(
                self.panel.names, [*each], data.judge, data.subset, data.subsets, pictures, self.samples, self.seed
            )
        )
        d0, d1 = each.mean(1).swapaxes(0, 1)
        self.margins = (d1 - d0) / np.maximum(d0 + d1, np.finfo(np.float64).tiny)

    @property
    def triplets(self) -> Triplets:
        """The triplets that are judged by."""
        found = self.data.test
        assert isinstance(found, Triplets)  # `data` has refused others
        return found

    def columns(self) -> dict[str, Any]:
        """Give pictures and judgements of the triplets."""
        data = self.triplets
        where = {"reference": data.reference, "p0": data.p0, "p1": data.p1, "judge": data.judge}
        return {
            "subset": np.array(data.subsets)[data.subset.numpy()],
            **{name: one.numpy() for name, one in where.items()},
        }

    def worst(self, loss: int) -> list[Tensor]:
        """Give triplets in which a loss is surest of what most people did not choose.

        Returns:
            Pictures (N,) each: people's choice, the reference, the loss's choice.
        """
        data = self.triplets
        wrongness = torch.from_numpy(self.margins[loss]) * (data.judge - 0.5)
        order = wrongness.argsort(descending=True, stable=True)[: self.PICTURES]
        order = order[wrongness[order] > 0]
        for_p1, p0, p1 = data.judge[order] > 0.5, data.p0[order], data.p1[order]
        return [torch.where(for_p1, p1, p0), data.reference[order], torch.where(for_p1, p0, p1)]
