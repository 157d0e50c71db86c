"""From the distances of several losses to the table of their scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Numbers, numbers
from losslab.metrics.bootstrap import Bootstrap, bootstrap_means, bootstrap_precision
from losslab.metrics.jnd import precision_by_subset
from losslab.metrics.subsets import by_subset
from losslab.metrics.table import MEAN, POOLED, ScoreTable, score_table
from losslab.metrics.two_afc import accuracy, human_ceiling, oracle, two_afc_scores


def score_triplets(
    names: Sequence[str],
    distances: Sequence[ArrayLike],
    judge: ArrayLike,
    subset: ArrayLike,
    subsets: Sequence[str],
    pictures: ArrayLike,
    samples: int = 2000,
    seed: int = 0,
) -> ScoreTable:
    """Score losses by two-alternative forced choice; a triplet's score is its mean over draws.

    Args:
        names: of the losses.
        distances: of each loss, (draws, 2, T): of p0 and of p1 to the reference.
        judge: share of the judgements that found p1 nearer, (T,).
        subset: index into `subsets`, (T,).
        subsets: names.
        pictures: indices of each triplet's pictures, (T, 3).
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The table, with the further columns `accuracy`, the share of triplets with a majority on which a loss chooses
        as it does (left out where there are none); `human`, what a person scores; and `oracle`, the highest possible
        score; each a mean over subsets, and by subset (`human/<subset>`) where there are several. Losses with a
        distance that is NaN or infinite have no score, and change no other's.

    Raises:
        ValueError: as `two_afc_scores` and `by_subset`; no loss has a score.

    Example:
        >>> d = [[[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.4, 0.3]]]
        >>> apart = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        >>> table = score_triplets(["l1"], [d], [0, 1, 0.2, 0], [0, 0, 0, 0], ["faces"], apart)
        >>> round(table.rows()[0]["score"], 3)
        0.7
    """
    names, held, no_score = _measured(names, distances)
    scores = [two_afc_scores(one[:, 0], one[:, 1], judge) for one in held]
    means = np.stack([one.mean(0) for one in scores])
    columns = {
        **_columns("human", human_ceiling(judge), subset, subsets),
        **_columns("oracle", oracle(judge), subset, subsets),
    }
    counted = np.asarray(judge) != 0.5
    if counted.any():
        hard = np.stack([accuracy(one[:, 0], one[:, 1], judge).scores.mean(0) for one in held])
        present = sorted({*np.asarray(subset)[counted].tolist()})  # the other subsets have no majority at all
        where = np.searchsorted(present, np.asarray(subset)[counted])
        columns = {**_columns("accuracy", hard, where, [subsets[k] for k in present]), **columns}

    def resample(shared: ArrayLike | None) -> dict[str, Bootstrap]:
        return bootstrap_means(means, subset, subsets, samples, seed, shared)

    by_draw = [by_subset(one, subset, subsets)[MEAN] for one in scores]
    return score_table(names, by_subset(means, subset, subsets), resample, pictures, columns, by_draw, no_score)


def _measured(
    names: Sequence[str], distances: Sequence[ArrayLike]
) -> tuple[list[str], list[Numbers], list[tuple[str, str]]]:
    """Give the losses whose distances are numbers, with these, and the others with the reason.

    Raises:
        ValueError: there are none of the former.
    """
    found = [(name, np.asarray(one, np.float64)) for name, one in zip(names, distances, strict=True)]
    good = [(name, one) for name, one in found if np.isfinite(one).all()] or found
    bad = [(name, one) for name, one in found if not np.isfinite(one).all()]
    no_score = [(name, f"{(~np.isfinite(one)).sum()} of {one.size} distances are NaN or infinite") for name, one in bad]
    return [name for name, _ in good], [numbers(one, name) for name, one in good], no_score


def _columns(name: str, values: ArrayLike, subset: ArrayLike, subsets: Sequence[str]) -> dict[str, Numbers | float]:
    """Give the mean of values over subsets, and where there are several, that of each and those of groups."""
    found = by_subset(values, subset, subsets)
    each = {f"{name}/{key}": one for key, one in found.items() if key != MEAN} if len(subsets) > 1 else {}
    return {name: found[MEAN], **each}


def score_pairs(
    names: Sequence[str],
    distances: Sequence[ArrayLike],
    same: ArrayLike,
    subset: ArrayLike,
    subsets: Sequence[str],
    pictures: ArrayLike,
    samples: int = 2000,
    seed: int = 0,
) -> ScoreTable:
    """Score losses by just noticeable differences; a score is the mean of the average precisions of all draws.

    Args:
        names: of the losses.
        distances: of each loss, (draws, 1, T).
        same: share of the judgements that took both pictures for the same, (T,).
        subset: index into `subsets`, (T,).
        subsets: names.
        pictures: indices of each pair's pictures, (T, 2).
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The table, with the further columns `score/pooled`, the average precision of all pairs in one order, and
        `chance`. Losses with a distance that is NaN or infinite have no score, and change no other's.

    Raises:
        ValueError: as `precision_by_subset`; no loss has a score.

    Example:
        >>> d = [[[0.1, 0.2, 0.3, 0.4]]]
        >>> apart = [[0, 1], [2, 3], [4, 5], [6, 7]]
        >>> round(score_pairs(["l1"], [d], [1, 0, 1, 0], [0, 0, 0, 0], ["faces"], apart).rows()[0]["score"], 3)
        0.833
    """
    names, measured, no_score = _measured(names, distances)
    held = [one[:, 0] for one in measured]
    found = [precision_by_subset(one, same, subset, subsets) for one in held]
    estimates = {name: np.stack([one[name].mean(-1) for one in found]) for name in found[0]}
    chance = float(by_subset(same, subset, subsets)[MEAN])

    def resample(shared: ArrayLike | None) -> dict[str, Bootstrap]:
        each = [bootstrap_precision(one, same, subset, subsets, samples, seed, shared) for one in held]
        return {name: _over_draws([one[name] for one in each]) for name in estimates}

    columns: dict[str, Numbers | float] = {f"score/{POOLED}": estimates[POOLED], "chance": chance}
    return score_table(names, estimates, resample, pictures, columns, [one[MEAN] for one in found], no_score)


def _over_draws(each: Sequence[Bootstrap]) -> Bootstrap:
    """Average the statistic of each loss over its draws."""
    estimate = np.array([one.estimate.mean() for one in each])
    return Bootstrap(estimate, np.stack([one.samples.mean(-1) for one in each], -1))
