"""Which differences between losses are real, for all pairs of losses together."""

from dataclasses import dataclass

import numpy as np

from losslab.metrics.arrays import Flags, Numbers, Whole
from losslab.metrics.bootstrap import Bootstrap, checked

ROUNDING = 1e-12
"""Share of the largest value below which differences are rounding: equal losses differ by less."""


@dataclass(frozen=True)
class Differences:
    """Differences of all pairs of losses; entry (i, j) tells of loss i minus loss j.

    Args:
        estimate: (K, K).
        low: lower ends of the bands, (K, K).
        high: upper ends, (K, K).
        real: whether the band leaves out 0, (K, K).
        p: p-values, corrected for the number of pairs by the largest |t| of each resample, (K, K).
        p_alone: p-values of each pair by itself, (K, K).
        p_holm: the same, corrected by Holm's method, (K, K).
        critical: half-width of the bands in standard errors.
    """

    estimate: Numbers
    low: Numbers
    high: Numbers
    real: Flags
    p: Numbers
    p_alone: Numbers
    p_holm: Numbers
    critical: float


def compare(found: Bootstrap, level: float = 0.95) -> Differences:
    """Compare all pairs of losses, so that all bands hold together with probability `level`, however many there are.

    Formula: d_ij ± c s_ij, with s_ij the standard deviation of the resampled difference d*_ij, and c the `level`
    quantile of max_{ij} |d*_ij - d_ij| / s_ij over the resamples.

    With B resamples no p-value is below 1/(B + 1), so that Holm's method finds nothing in more than level · B pairs.
    The largest |t| has no such limit. Losses that never differ have the band [0, 0]; ones that differ by the same on
    every triplet have no width either, and the difference counts as real.

    Args:
        found: a statistic of K losses, resampled.
        level: probability that all bands hold together, between 0 and 1.

    Returns:
        All pairs.

    Raises:
        ValueError: `found` is not of K losses, has too few resamples for the level, or the level is no probability.

    Source: Westfall and Young, "Resampling-based multiple testing", 1993, section 2 (the single-step method); Romano
        and Wolf, "Exact and approximate stepdown methods for multiple hypothesis testing", JASA 100 (2005), for
        studentised differences by the bootstrap; Holm, "A simple sequentially rejective multiple test procedure",
        Scandinavian Journal of Statistics 6 (1979).

    Example:
        >>> from losslab.metrics.bootstrap import bootstrap_means
        >>> scores = np.random.default_rng(0).random((3, 500)) + np.array([[0.5], [0.0], [0.0]])
        >>> compare(bootstrap_means(scores, [0] * 500, ["faces"])["mean"]).real.tolist()
        [[False, True, True], [True, False, False], [True, False, False]]
    """
    samples, losses = found.samples.shape[0], found.estimate.shape[0] if found.estimate.ndim == 1 else 0
    if not losses:
        raise ValueError(f"statistics of K losses are compared, got the shape {found.estimate.shape}")
    rank = int(np.ceil((samples + 1) * checked(level)))
    if rank > samples:
        raise ValueError(f"a level of {level} needs {int(np.ceil(level / (1 - level)))} resamples, got {samples}")
    estimate = found.estimate[:, None] - found.estimate
    estimate[np.abs(estimate) < ROUNDING * np.abs(found.samples).max()] = 0
    errors, largest, alone = _studentised(found)
    critical = float(np.sort(largest)[rank - 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.where(estimate == 0, 0.0, np.abs(estimate) / errors)
    reached = samples - np.searchsorted(np.sort(largest), sizes, "left")
    return Differences(
        estimate,
        estimate - critical * errors,
        estimate + critical * errors,
        sizes > critical,
        _p(reached, samples),
        _p(alone, samples),
        _holm(_p(alone, samples)),
        critical,
    )


def like_best(found: Bootstrap, level: float = 0.95) -> Flags:
    """Find the losses that are not distinguishable from the best one, (K,), the best one among them.

    Formula: those whose band of `compare` with the highest estimate holds 0.

    Args:
        found: a statistic of K losses of which more is better, resampled.
        level: as `compare` takes it.

    Raises:
        ValueError: as `compare`.

    Example:
        >>> from losslab.metrics.bootstrap import bootstrap_means
        >>> scores = np.random.default_rng(0).random((3, 500)) + np.array([[0.5], [0.0], [0.5]])
        >>> like_best(bootstrap_means(scores, [0] * 500, ["faces"])["mean"]).tolist()
        [True, False, True]
    """
    return ~compare(found, level).real[int(found.estimate.argmax())]


def _studentised(found: Bootstrap) -> tuple[Numbers, Numbers, Whole]:
    """Give standard errors (K, K), the largest |t| of each resample (B,), and how many of each pair's reach its own."""
    samples, estimate = found.samples, found.estimate
    rounding = ROUNDING * np.abs(samples).max()
    errors, largest = np.zeros((len(estimate), len(estimate))), np.zeros(len(samples))
    reached = np.full(errors.shape, len(samples))
    for i in range(len(estimate) - 1):  # a row of pairs at a time, or K² B numbers would be in memory
        drawn, seen = samples[:, i, None] - samples[:, i + 1 :], estimate[i] - estimate[i + 1 :]
        error = drawn.std(0, ddof=1)
        error[error < rounding] = 0
        distance = np.abs(drawn - seen)
        ratios = np.divide(distance, error, out=np.zeros_like(distance), where=error > 0)
        np.maximum(largest, ratios.max(-1), out=largest)
        errors[i, i + 1 :] = errors[i + 1 :, i] = error
        reached[i, i + 1 :] = reached[i + 1 :, i] = (distance >= np.abs(seen)).sum(0)
    return errors, largest, reached


def _p(reached: Whole, samples: int) -> Numbers:
    """Give p-values from how many resamples reach what was found; the data count as one of them."""
    return (1 + reached) / (1 + samples)


def _holm(p: Numbers) -> Numbers:
    """Correct the p-values of pairs (K, K) for their number by Holm's method."""
    above = np.triu_indices(len(p), 1)
    alone = p[above]
    order = np.argsort(alone)
    corrected = np.ones_like(p)
    stepped = np.maximum.accumulate(np.minimum(alone[order] * np.arange(len(alone), 0, -1), 1))
    corrected[above[0][order], above[1][order]] = stepped
    return np.minimum(corrected, corrected.T)
