"""Just noticeable differences (JND): how well small distances find pairs that people took for the same picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Flags, Numbers, numbers, places, same_length, shares
from losslab.metrics.subsets import RESERVED, named

BLOCK = 2**15
"""Weights that are worked on at a time, so that they stay in the cache."""


def average_precision(distances: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> Numbers:
    """Give the area below the curve of precision against recall, with pairs of small distance found first.

    Formula: Σ_g (R_g - R_{g-1}) max_{f ≥ g} P_f over the distinct distances g in ascending order, where P_g is the
    mean of `same` over the pairs that are as near as g or nearer, and R_g their share of Σ `same`.

    Pairs of one distance are found all at once, so that the order of the pairs changes nothing, and a distance that
    is the same for all pairs has the mean of `same`, as chance has.

    Args:
        distances: (*losses, T).
        same: share of the judgements that took both pictures for the same, (T,), from 0 to 1.
        weights: how often each pair counts, (*resamples, T), 0 or more; without them, once.

    Returns:
        (*losses, *resamples), from 0 to 1: each loss under each set of weights.

    Raises:
        ValueError: a distance is NaN or infinite, `same` is not from 0 to 1, or is 0 for all pairs that count, a
            weight is negative, or the lengths differ.

    Paper and code: the authors' code sorts along an axis of length 1, so that its score is `same` of the first pair
        whatever the distances; the study's code has the formula, with pairs of equal distance as its sort leaves them.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018, section
        4; score_jnd_dataset and voc_ap of richzhang/PerceptualSimilarity, the latter after PASCAL VOC 2010.

    Example:
        >>> float(average_precision([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0]).round(4))
        0.8333
    """
    near, share = numbers(distances, "distances"), shares(same, "same")
    times = np.ones(share.shape) if weights is None else numbers(weights, "weights")
    length = same_length(distances=near, same=share, weights=times)
    if times.min() < 0:
        raise ValueError(f"weights are 0 or more, got {times.min()}")
    if not (times @ share > 0).all():
        raise ValueError("same is 0 for all pairs that count: there is nothing to find")
    rows = times.reshape(-1, length)
    areas = np.stack([_areas(one, share, rows) for one in near.reshape(-1, length)])
    return areas.reshape(near.shape[:-1] + times.shape[:-1])


def precision_by_subset(
    distances: ArrayLike, same: ArrayLike, subset: ArrayLike, subsets: Sequence[str], weights: ArrayLike | None = None
) -> dict[str, Numbers]:
    """Give the average precision of each subset, its mean over the subsets, and that of all pairs together.

    "mean" is what LPIPS is evaluated by, one set after the other. "pooled" ranks the pairs of all subsets together,
    as Pihlgren et al. do, so that distances have to be comparable across subsets.

    Args:
        distances: (*losses, T).
        same: share of the judgements that took both pictures for the same, (T,), from 0 to 1.
        subset: index into `subsets`, (T,).
        subsets: names.
        weights: as `average_precision` takes them.

    Returns:
        Average precisions by name, each (*losses, *resamples), with the names of `by_subset`.

    Raises:
        ValueError: as `average_precision` and `by_subset`.

    Example:
        >>> found = precision_by_subset([1, 2, 3, 4], [1, 0, 1, 1], [0, 0, 1, 1], ["some", "all"])
        >>> {name: round(float(one), 4) for name, one in found.items()}
        {'some': 1.0, 'all': 1.0, 'mean': 1.0, 'pooled': 0.8333}
    """
    near, share, where = numbers(distances, "distances"), shares(same, "same"), places(subset, subsets, RESERVED)
    times = np.ones(share.shape) if weights is None else numbers(weights, "weights")
    same_length(distances=near, same=share, subset=where, weights=times)
    parts = [where == index for index in range(len(subsets))]
    each = [average_precision(near[..., part], share[part], times[..., part]) for part in parts]
    return named(np.stack(each, -1), average_precision(near, share, times), subsets)


def _areas(near: Numbers, share: Numbers, weights: Numbers) -> Numbers:
    """Give the area for distances (T,) under each row of weights (B, T)."""
    order = np.argsort(near)
    ranked, hits = near[order], share[order]
    last = np.append(ranked[:-1] < ranked[1:], True)
    step = max(1, BLOCK // len(near))
    return np.concatenate([_area(hits, last, weights[at : at + step, order]) for at in range(0, len(weights), step)])


def _area(hits: Numbers, last: Flags, weights: Numbers) -> Numbers:
    """Give the area for pairs in order of distance; `last` marks the last one of each distance."""
    counts = np.maximum(weights.cumsum(-1), np.finfo(np.float64).tiny)
    gains = weights * hits
    found = gains.cumsum(-1)
    precision = found / counts * last
    envelope = np.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
    return np.einsum("bt,bt->b", gains, envelope) / found[:, -1]
