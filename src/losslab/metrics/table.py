"""Scores of losses with their intervals, as rows: one a loss, and one a pair of losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from losslab.metrics.bootstrap import Bootstrap
from losslab.metrics.differences import compare

MEAN, POOLED = "mean", "pooled"


@dataclass(frozen=True)
class ScoreTable:
    """What losses score on the same triplets or pairs.

    Args:
        names: of K losses, at least one.
        by_item: statistics by name, K each, from resampled triplets or pairs.
        by_picture: the same from resampled pictures, where triplets or pairs share pictures; its intervals count then.
    """

    names: Sequence[str]
    by_item: dict[str, Bootstrap]
    by_picture: dict[str, Bootstrap] | None = None

    @property
    def counting(self) -> dict[str, Bootstrap]:
        """The statistics whose intervals count."""
        return self.by_picture or self.by_item

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each loss.

        Returns:
            `score`, the mean over subsets, from `low` to `high` with 95 %, and `like_best`: whether it can't be told
            from the best loss; where pictures were resampled, the narrower interval of resampled triplets too; and
            where there are several subsets, `pooled`, each subset's score and the means of groups.
        """
        main = self.counting[MEAN]
        low, high = main.interval()
        like_best = ~compare(main).real[int(main.estimate.argmax())]
        columns = {"score": main.estimate, "low": low, "high": high}
        if self.by_picture is not None:
            columns |= dict(zip(("low_alone", "high_alone"), self.by_item[MEAN].interval(), strict=True))
        if len(self.counting) > 3:  # beside one subset, its mean and all pooled, which are then the same
            columns |= {name: one.estimate for name, one in self.counting.items() if name != MEAN}
        return [
            {"measure": name, "like_best": str(bool(like_best[k])), **{key: float(v[k]) for key, v in columns.items()}}
            for k, name in enumerate(self.names)
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Give a row for each pair of losses, the better one first.

        Returns:
            `difference` of their scores, from `low` to `high` such that the bands of all pairs hold together with
            95 %, `real`: whether the band leaves out 0, and `p`, corrected for the number of pairs.
        """
        main = self.counting[MEAN]
        found = compare(main)
        order = main.estimate.argsort(kind="stable")[::-1].tolist()
        return [
            {
                "better": self.names[i],
                "worse": self.names[j],
                "difference": float(found.estimate[i, j]),
                "low": float(found.low[i, j]),
                "high": float(found.high[i, j]),
                "real": bool(found.real[i, j]),
                "p": float(found.p[i, j]),
            }
            for place, i in enumerate(order)
            for j in order[place + 1 :]
        ]
