"""What losses score on the same triplets or pairs, as rows: one a loss, and one a pair of losses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Numbers
from losslab.metrics.bootstrap import Bootstrap
from losslab.metrics.differences import Differences, compare
from losslab.metrics.resampling import TooFewError, share_pictures

MEAN, POOLED = "mean", "pooled"

Resample = Callable[[ArrayLike | None], dict[str, Bootstrap]]
"""Resamples triplets or pairs, or pictures if it is given them; statistics of K losses by name."""


@dataclass(frozen=True)
class ScoreTable:
    """What losses score on the same triplets or pairs.

    Args:
        names: of K losses that have a score, at least one.
        estimates: statistics by name, K each.
        by_item: the same with resamples of triplets or pairs; None where these are too few.
        by_picture: the same with resamples of pictures, where triplets or pairs share them; its intervals count then.
        no_interval: why there is none that counts.
        columns: further numbers by name, one for each loss or one for all.
        by_draw: the score of each draw of each loss, (D,).
        no_score: names of further losses, which have none, with the reason.
    """

    names: Sequence[str]
    estimates: Mapping[str, Numbers]
    by_item: Mapping[str, Bootstrap] | None
    by_picture: Mapping[str, Bootstrap] | None
    no_interval: str | None
    columns: Mapping[str, Numbers | float]
    by_draw: Sequence[Numbers]
    no_score: Sequence[tuple[str, str]] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each loss; those without a score come last, and have nothing but the reason (`no_score`).

        Returns:
            `score`, the mean over subsets, from `low` to `high` with 95 %, and, among several losses, `like_best`:
            whether it can't be told from the best one; where triplets share pictures, the narrower interval of
            resampled triplets too (`low_alone`, `high_alone`); where there are several subsets, `score/pooled`,
            each subset's (`score/<subset>`) and the means of groups; the further columns; and where there are several
            draws, their number and the standard deviation of a single one's score.
        """
        without = [{"measure": name, "no_score": reason} for name, reason in self.no_score]
        return [*(self._row(k) for k in range(len(self.names))), *without]

    def differences(self) -> list[dict[str, Any]]:
        """Give a row for each pair of losses, the better one first; none where there are no intervals.

        Returns:
            `difference` of their scores, from `low` to `high` such that the bands of all pairs hold together with
            95 %, `real`: whether the band leaves out 0, and `p`, corrected for the number of pairs.
        """
        if self._counting is None:
            return []
        main, found = self._counting[MEAN], self._pairs
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

    @property
    def _counting(self) -> Mapping[str, Bootstrap] | None:
        return None if self.no_interval else self.by_picture or self.by_item

    @cached_property
    def _pairs(self) -> Differences:
        assert self._counting is not None
        return compare(self._counting[MEAN])

    def _row(self, k: int) -> dict[str, Any]:
        row: dict[str, Any] = {"measure": self.names[k], "score": float(self.estimates[MEAN][k]), **self._interval(k)}
        if len(self.estimates) > 3:  # beside one subset, its mean and all pooled, which are then the same
            row |= {f"score/{name}": float(one[k]) for name, one in self.estimates.items() if name != MEAN}
        row |= {name: float(np.broadcast_to(one, len(self.names))[k]) for name, one in self.columns.items()}
        draws = self.by_draw[k]
        return row | ({"draws": len(draws), "sd_of_draws": float(draws.std(ddof=1))} if len(draws) > 1 else {})

    def _interval(self, k: int) -> dict[str, Any]:
        found: dict[str, Any] = {"low": None, "high": None, "no_interval": self.no_interval}
        if self._counting is not None:
            main = self._counting[MEAN]
            like = {"like_best": str(not bool(self._pairs.real[int(main.estimate.argmax()), k]))}
            found = {**(like if len(self.names) > 1 else {}), **_ends(main, k)}
        if self.by_item is not None and self._counting is not self.by_item:
            found |= {f"{name}_alone": end for name, end in _ends(self.by_item[MEAN], k).items()}
        return found


def _ends(found: Bootstrap, k: int) -> dict[str, float]:
    return {name: float(end[k]) for name, end in zip(("low", "high"), found.interval(), strict=True)}


def score_table(
    names: Sequence[str],
    estimates: Mapping[str, Numbers],
    resample: Resample,
    pictures: ArrayLike,
    columns: Mapping[str, Numbers | float],
    by_draw: Sequence[Numbers],
    no_score: Sequence[tuple[str, str]],
) -> ScoreTable:
    """Resample as the data ask for, and put all into a table.

    Args:
        names: of K losses.
        estimates: statistics by name, K each.
        resample: as its type says.
        pictures: indices of each triplet's or pair's pictures, (T, 3) or (T, 2).
        columns: as `ScoreTable` has them.
        by_draw: as `ScoreTable` has them.
        no_score: as `ScoreTable` has it.
    """
    by_item = by_picture = no_interval = None
    try:
        by_item = resample(None)
        by_picture = resample(pictures) if share_pictures(pictures) else None
    except TooFewError as error:
        no_interval = str(error)
    return ScoreTable(names, estimates, by_item, by_picture, no_interval, columns, by_draw, no_score)
