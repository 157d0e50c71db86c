"""Just noticeable differences (JND): does a loss rank pairs that people took for the same before all others?"""

from torch import Tensor

from losslab.data.judged import Pairs
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

    def worst(self, loss: int) -> list[Tensor]:
        """Give the pairs of the least distance in which most people saw a difference: pictures (N,) of each side."""
        data = self.data.test
        assert isinstance(data, Pairs)  # `data` has refused others
        seen = (data.same < 0.5).nonzero()[:, 0]
        order = seen[self.mean_distances(loss)[0, seen].argsort(stable=True)][: self.PICTURES]
        return [data.p0[order], data.p1[order]]
