"""Resamples of triplets or of pictures, as the number of times that each triplet is in them."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Numbers, Whole, indices

CELLS = 2**22
"""Numbers in a chunk of weights: 32 MiB."""


class TooFewError(ValueError):
    """So few judgements, or pictures, that resamples of them say nothing."""


Draw = Callable[[np.random.Generator, int], Numbers]
"""Draws the weights (n, T) of n resamples."""


def resamples(
    subset: Whole, needed: Numbers, samples: int, seed: int, pictures: ArrayLike | None = None
) -> Iterator[Numbers]:
    """Yield the weights of `samples` resamples in chunks, (n, T) each.

    Without `pictures`, triplets are drawn with replacement inside their subsets. With them, pictures are, and a
    triplet weighs the product of its pictures' multiplicities.

    A resample in which a subset has nothing of what is `needed` has no statistic, and is drawn again.

    Args:
        subset: index of each triplet's subset, (T,), none of them empty.
        needed: what each subset must have some of, (T,), 0 or more.
        samples: how many.
        seed: of them; the same numbers for the same subsets and pictures, whatever is measured.
        pictures: indices of each triplet's or pair's pictures, (T, 3) or (T, 2).

    Raises:
        TooFewError: a subset has one triplet only, or more resamples are useless than useful.
    """
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ValueError(f"samples is a whole number from 1, got {samples!r}")
    if np.bincount(subset).min() < 2:
        raise TooFewError("a subset of one triplet has no interval: every resample of it is the same")
    draw = _of_triplets(subset) if pictures is None else _of_pictures(indices(pictures, "pictures"), len(subset))
    held = needed[:, None] * (subset[:, None] == np.arange(subset.max() + 1))
    generator = np.random.default_rng(seed)
    left, refused = samples, 0
    while left:
        weights = draw(generator, min(left, max(1, CELLS // len(subset))))
        useful = (weights @ held > 0).all(-1)
        left, refused = left - int(useful.sum()), refused + int((~useful).sum())
        if refused > samples:
            raise TooFewError(f"more than {samples} resamples leave a subset with nothing to score: too few judgements")
        if useful.any():
            yield weights if useful.all() else weights[useful]


def share_pictures(pictures: ArrayLike) -> bool:
    """Tell whether a picture is part of several triplets, so that pictures should be resampled.

    Args:
        pictures: indices of each triplet's or pair's pictures, (T, 3) or (T, 2).

    Example:
        >>> share_pictures([[0, 1, 2], [3, 4, 5]]), share_pictures([[0, 1, 2], [0, 3, 4]])
        (False, True)
    """
    found = indices(pictures, "pictures")
    return bool(_uses(found).max() > 1)


def units(pictures: Whole) -> tuple[Whole, int]:
    """Find what is resampled where triplets share pictures.

    A unit is a picture of several triplets, or all pictures of one triplet that no other one has: these stay together
    or go together, and where nothing is shared, triplets are what is resampled.

    Args:
        pictures: indices of each triplet's pictures, (T, 3) or (T, 2).

    Returns:
        Units of each triplet, as `pictures` has them, and the number n of units. A unit that a triplet has already,
        as where a picture stands twice in it, is n.
    """
    triplets = np.arange(len(pictures))[:, None]
    alone = _uses(pictures)[pictures] == 1
    kept = np.sort(np.where(alone, pictures.max() + 1 + triplets, pictures), 1)
    again = np.zeros(kept.shape, np.bool_)
    again[:, 1:] = kept[:, 1:] == kept[:, :-1]
    names, found = np.unique(kept, return_inverse=True)
    return np.where(again, len(names), found.reshape(kept.shape)), len(names)


def _uses(pictures: Whole) -> Whole:
    """Count the triplets that each picture is part of."""
    ordered = np.sort(pictures, 1)
    first = np.ones(ordered.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.bincount(ordered[first], minlength=int(pictures.max()) + 1)


def _of_triplets(subset: Whole) -> Draw:
    """Draw triplets inside their subsets."""
    strata = [np.flatnonzero(subset == index) for index in range(subset.max() + 1)]

    def draw(generator: np.random.Generator, count: int) -> Numbers:
        weights = np.empty((count, len(subset)))
        for stratum in strata:
            weights[:, stratum] = _multiplicities(generator, count, len(stratum))
        return weights

    return draw


def _of_pictures(pictures: Whole, length: int) -> Draw:
    """Draw pictures, and weigh triplets by the product of theirs."""
    if pictures.ndim != 2 or len(pictures) != length:
        raise ValueError(f"pictures has the shape ({length}, 3) or ({length}, 2), got {pictures.shape}")
    return partial(_products, *units(pictures))


def _products(columns: Whole, number: int, generator: np.random.Generator, count: int) -> Numbers:
    drawn = np.concatenate([_multiplicities(generator, count, number), np.ones((count, 1))], 1)
    weights = drawn.take(columns[:, 0], 1)
    for column in columns.T[1:]:
        weights *= drawn.take(column, 1)
    return weights


def _multiplicities(generator: np.random.Generator, count: int, number: int) -> Numbers:
    """Draw `number` of as many things with replacement, `count` times, and count each thing: (count, number).

    Row by row, as the counts of one row stay in the cache: multinomial numbers take ten times as long.
    """
    rows = [np.bincount(generator.integers(number, size=number), minlength=number) for _ in range(count)]
    return np.array(rows, np.float64)
