"""Two-alternative forced choice: does a loss find the same of two pictures nearer to a reference as people do?"""

import torch
from torch import Tensor

from losslab.data.judged import Triplets
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

    def worst(self, loss: int) -> list[Tensor]:
        """Give the triplets in which a loss is surest of what most people did not choose, as `contradicted` does."""
        assert isinstance(self.data.test, Triplets)  # `data` has refused others
        return contradicted(self.data.test, self.mean_distances(loss), self.PICTURES)


def contradicted(held: Triplets, distances: Tensor, count: int) -> list[Tensor]:
    """Give the triplets in which a loss is surest of what most people did not choose.

    Args:
        held: all.
        distances: of p0 and p1, (2, T).
        count: of triplets at most.

    Returns:
        Pictures (N,) each: people's choice, the reference, the loss's choice.
    """
    d0, d1 = distances
    wrongness = (d1 - d0) / (d0 + d1).clamp(min=torch.finfo(d0.dtype).tiny) * (held.judge - 0.5)
    order = wrongness.argsort(descending=True, stable=True)[:count]
    order = order[wrongness[order] > 0]
    for_p1, p0, p1 = held.judge[order] > 0.5, held.p0[order], held.p1[order]
    return [torch.where(for_p1, p1, p0), held.reference[order], torch.where(for_p1, p0, p1)]
