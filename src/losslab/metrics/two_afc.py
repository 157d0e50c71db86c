"""Two-alternative forced choice (2AFC): which of two pictures is nearer to a reference, for people and for a distance.

`judge` is the share of the judgements that found p1 nearer; d0 and d1 are the distances of p0 and p1 to the reference.
Every function gives one number a triplet, which `by_subset` averages and `bootstrap_means` gives intervals.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from losslab.metrics.arrays import Flags, Numbers, indices, numbers, same_length, shares

CONVENTIONS = ("majority", "pihlgren")


class Accuracy(NamedTuple):
    """Agreement with the majority.

    Args:
        scores: of the triplets that count, (*, N), 0, ½ or 1.
        counted: which triplets those are, (T,).
    """

    scores: Numbers
    counted: Flags


def decisions(d0: ArrayLike, d1: ArrayLike) -> Numbers:
    """Say which candidate a distance finds nearer.

    Formula: [d1 < d0] + ½ [d0 = d1].

    Args:
        d0: distances of p0 to the reference, (*, T).
        d1: those of p1, (*, T).

    Returns:
        1 for p1, 0 for p0 and ½ for a tie, (*, T).

    Raises:
        ValueError: a distance is NaN or infinite, or the lengths differ.

    Example:
        >>> decisions([1, 2, 3], [2, 2, 2]).tolist()
        [0.0, 0.5, 1.0]
    """
    first, second = numbers(d0, "d0"), numbers(d1, "d1")
    same_length(d0=first, d1=second)
    return (second < first) + 0.5 * (first == second)


def two_afc_scores(d0: ArrayLike, d1: ArrayLike, judge: ArrayLike) -> Numbers:
    """Give the share of people that a distance agrees with, on each triplet.

    Formula: (1 - h) [d0 < d1] + h [d1 < d0] + ½ [d0 = d1], with h the judgement.

    Leading axes broadcast, so that (K, T) distances of K losses go with (T,) judgements.

    Args:
        d0: distances of p0 to the reference, (*, T).
        d1: those of p1, (*, T).
        judge: share of the judgements that found p1 nearer, (T,), from 0 to 1.

    Returns:
        (*, T), from 0 to 1.

    Raises:
        ValueError: a distance is NaN or infinite, a judgement is not from 0 to 1, or the lengths differ.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018, section
        4; score_2afc_dataset of richzhang/PerceptualSimilarity.

    Example:
        >>> two_afc_scores([0.1, 0.5, 0.3], [0.2, 0.1, 0.3], [0.0, 0.6, 1.0]).tolist()
        [1.0, 0.6, 0.5]
    """
    chosen, share = decisions(d0, d1), shares(judge, "judge")
    same_length(d0=chosen, judge=share)
    return chosen * share + (1 - chosen) * (1 - share)


def accuracy(d0: ArrayLike, d1: ArrayLike, judge: ArrayLike, convention: str = "majority") -> Accuracy:
    """Say on which triplets a distance chooses as the majority of people.

    Formula: "majority": [c = [h > ½]] + ½ [d0 = d1] where h ≠ ½; "pihlgren": [[d0 < d1] = [h < ½]]; with the choice c
    and the judgement h.

    Args:
        d0: distances of p0 to the reference, (*, T).
        d1: those of p1, (*, T).
        judge: share of the judgements that found p1 nearer, (T,), from 0 to 1.
        convention: "majority" or "pihlgren".

    Returns:
        Scores of the triplets that count, and which those are: with "majority" all that have one, with "pihlgren" all.

    Raises:
        ValueError: a distance is NaN or infinite, a judgement is not from 0 to 1, the lengths differ, no triplet has
            a majority, or the convention is unknown.

    Paper and code: the code of the study takes equal distances for a vote for p1, and split judgements for a majority
        for p1: a distance that is always 0 is right on all of those ("pihlgren"). The default counts equal
        distances by half, as the 2AFC score does, and leaves out triplets without a majority, on which no choice is
        right.

    Source: Pihlgren, Nikolaidou, Chhipa, Abid, Saini, Sandin and Liwicki, "A systematic performance analysis of deep
        perceptual loss networks", arXiv 2302.04032, and their program.

    Example:
        >>> accuracy([0.1, 0.5, 0.3], [0.2, 0.1, 0.3], [0.0, 0.5, 1.0]).scores.tolist()
        [1.0, 0.5]
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is one of {list(CONVENTIONS)}, got {convention!r}")
    chosen, share = decisions(d0, d1), shares(judge, "judge")
    same_length(d0=chosen, judge=share)
    if share.ndim != 1:
        raise ValueError(f"judge has the shape (T,), got {share.shape}")
    if convention == "pihlgren":
        return Accuracy(((chosen == 0) == (share < 0.5)).astype(np.float64), np.ones(share.shape, np.bool_))
    counted = share != 0.5
    if not counted.any():
        raise ValueError(f"none of {share.size} triplets has a majority: all judgements are 0.5")
    return Accuracy(1 - np.abs(chosen - (share > 0.5))[..., counted], counted)


def human_ceiling(judge: ArrayLike, votes: ArrayLike | None = None) -> Numbers:
    """Give the score that a person would have on each triplet.

    Formula: p² + (1 - p)²; with n votes (n (p² + (1 - p)²) - 1) / (n - 1).

    Args:
        judge: share p of the judgements that found p1 nearer, (T,), from 0 to 1.
        votes: number n of judgements, (T,), at least 2. With it, one of those asked is judged by the *others* alone.

    Returns:
        (T,), whose mean is the ceiling; with votes that of a subset counts, not that of one triplet, which may be 0.

    Raises:
        ValueError: a judgement is not from 0 to 1, the lengths differ, or a triplet has fewer than 2 votes.

    Paper and code: the papers have no `votes`: a person agrees with themselves then, and the ceiling is too high by
        2p(1 - p)/(n - 1) on average, where few were asked. It is the default, so that tables agree with theirs.

    Source: Zhang et al., CVPR 2018, section 4 and Table 5 ("Human").

    Example:
        >>> human_ceiling([1.0, 0.5, 0.8]).round(2).tolist(), human_ceiling([0.8], votes=[5]).round(2).tolist()
        ([1.0, 0.5, 0.68], [0.6])
    """
    share = shares(judge, "judge")
    agreement: Numbers = share**2 + (1 - share) ** 2
    if votes is None:
        return agreement
    asked = indices(votes, "votes")
    same_length(judge=share, votes=asked)
    if asked.min() < 2:
        raise ValueError(f"a person is judged by others: {int((asked < 2).sum())} triplets have fewer than 2 votes")
    return (asked * agreement - 1) / (asked - 1)


def oracle(judge: ArrayLike) -> Numbers:
    """Give the highest score that any choice has on each triplet.

    Formula: max(p, 1 - p).

    Args:
        judge: share p of the judgements that found p1 nearer, (T,), from 0 to 1.

    Returns:
        (T,), from ½ to 1. It knows the votes, so that where few were asked even a perfect distance stays below it.

    Raises:
        ValueError: a judgement is not from 0 to 1.

    Source: Zhang et al., CVPR 2018, section 4.

    Example:
        >>> oracle([1.0, 0.5, 0.2]).tolist()
        [1.0, 0.5, 0.8]
    """
    share = shares(judge, "judge")
    return np.maximum(share, 1 - share)
