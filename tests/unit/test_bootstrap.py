"""Intervals hold the truth as often as they say, and differences are real only where they are."""

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from losslab.metrics import resampling
from losslab.metrics.bootstrap import Bootstrap, bootstrap_means, bootstrap_precision
from losslab.metrics.differences import compare, like_best
from losslab.metrics.jnd import average_precision
from losslab.metrics.resampling import resamples, share_pictures, units
from losslab.metrics.subsets import by_subset

Floats = NDArray[np.float64]


def covered(found: Bootstrap, truth: float) -> float:
    """Give the share of the losses whose 95 % interval holds the truth."""
    low, high = found.interval()
    return float(((low <= truth) & (truth <= high)).mean())


def test_estimates_are_the_scores() -> None:
    """The bootstrap's estimates are what the plain means are, by the same names, of any leading axes."""
    generator = np.random.default_rng(0)
    scores, subset = generator.random((2, 3, 60)), generator.integers(0, 6, 60)
    names = ["traditional", "cnn", "superres", "deblur", "color", "frameinterp"]
    found, expected = bootstrap_means(scores, subset, names, samples=50), by_subset(scores, subset, names)
    assert list(found) == list(expected)
    for name, one in found.items():
        assert_allclose(one.estimate, expected[name], rtol=1e-12)
        assert one.samples.shape == (50, 2, 3)
    assert bootstrap_means(scores[0, 0], subset, names, samples=50)["mean"].interval()[0].shape == ()


def test_coverage_over_triplets() -> None:
    """A thousand data sets with known means: 95 % intervals hold them, of the mean and of the pooled one."""
    generator = np.random.default_rng(0)
    subset = generator.permutation(np.repeat([0, 1], [40, 160]))
    scores = np.where(subset == 0, generator.binomial(5, 0.8, (1000, 200)), generator.binomial(5, 0.6, (1000, 200))) / 5
    found = bootstrap_means(scores, subset, ["small", "large"], samples=500)
    for name, truth in {"small": 0.8, "large": 0.6, "mean": 0.7, "pooled": 0.64}.items():
        assert 0.92 < covered(found[name], truth) < 0.97, name


@pytest.mark.parametrize("roles", [2, 3])
def test_coverage_over_shared_pictures(roles: int) -> None:
    """Where triplets share pictures, resampled triplets promise far too much, and resampled pictures do not."""
    generator = np.random.default_rng(0)
    pictures = np.array([generator.choice(60, roles, replace=False) for _ in range(600)])
    effects = 0.1 * generator.standard_normal((1000, 60))
    scores = 0.7 + effects[:, pictures].sum(-1) + 0.2 * generator.standard_normal((1000, 600))
    alone = bootstrap_means(scores, [0] * 600, ["all"], samples=400)["mean"]
    shared = bootstrap_means(scores, [0] * 600, ["all"], samples=400, pictures=pictures)["mean"]
    assert covered(alone, 0.7) < 0.8
    assert 0.925 < covered(shared, 0.7) < 0.98


@pytest.mark.parametrize(("roles", "factor"), [(2, 3), (3, 7)])
def test_noise_of_triplets_is_overestimated_by_a_known_factor(roles: int, factor: float) -> None:
    """What the docs say of variance that belongs to no picture: 2² - 1 times as large with pairs, 2³ - 1 with triplets.

    The product of n counts that are nearly Poisson of mean 1 has the variance 2ⁿ - 1.
    """
    generator = np.random.default_rng(0)
    pictures = np.array([generator.choice(60, roles, replace=False) for _ in range(1500)])
    scores = generator.standard_normal((200, 1500))
    alone = bootstrap_means(scores, [0] * 1500, ["all"], samples=300)["mean"].samples.var(0).mean()
    shared = bootstrap_means(scores, [0] * 1500, ["all"], samples=300, pictures=pictures)["mean"].samples.var(0).mean()
    assert 0.75 * factor < shared / alone < 1.1 * factor


def test_pictures_of_one_triplet_are_drawn_together() -> None:
    """Where nothing is shared, pictures and triplets are the same resamples in kind, of equally wide intervals."""
    scores = np.random.default_rng(0).random((300, 100))
    alone = bootstrap_means(scores, [0] * 100, ["all"], samples=500)["mean"].samples.std(0)
    for pictures in (np.arange(300).reshape(100, 3), np.arange(100)[:, None] * [1, 1]):
        shared = bootstrap_means(scores, [0] * 100, ["all"], samples=500, pictures=pictures)["mean"].samples.std(0)
        assert_allclose(shared.mean(), alone.mean(), rtol=0.05)
    assert not share_pictures(np.arange(300).reshape(100, 3))
    assert share_pictures([[0, 1, 2], [3, 4, 5], [6, 7, 0]])
    assert not share_pictures([[0, 0], [1, 1]])


def test_units_by_hand() -> None:
    """Shared pictures are units, the others of a triplet are one, and no unit counts twice in a triplet."""
    found, number = units(np.array([[5, 0, 1], [5, 7, 7], [5, 5, 7], [2, 3, 4]]))
    assert number == 4  # 5, 7, {0, 1}, {2, 3, 4}
    assert [len(set(row.tolist()) - {4}) for row in found] == [2, 2, 2, 1]
    assert len(set(found[:3, 0])) == 1
    assert sorted(found[1].tolist()) == sorted(found[2].tolist())


def test_a_triplet_weighs_the_product_of_its_pictures() -> None:
    """All pairs of four pictures: six weights that four whole multiplicities with the sum 4 explain."""
    pictures = np.array(list(combinations(range(4), 2)))
    drawn = [counts for counts in product(range(5), repeat=4) if sum(counts) == 4]
    allowed = {tuple(counts[i] * counts[j] for i, j in pictures) for counts in drawn}
    weights = np.concatenate(list(resamples(np.zeros(6, np.int64), np.ones(6), 300, 0, pictures)))
    seen = {tuple(int(one) for one in row) for row in weights}
    assert seen <= allowed
    assert len(seen) > len(allowed) / 2


def test_a_picture_that_stands_twice_counts_once() -> None:
    pictures = np.array([[0, 0], [1, 1], [0, 1]])
    for weights in resamples(np.zeros(3, np.int64), np.ones(3), 100, 0, pictures):
        assert np.array_equal(weights[:, 2], weights[:, 0] * weights[:, 1])
        assert (weights[:, 0] + weights[:, 1] == 2).all()


def test_triplets_are_drawn_inside_their_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each subset keeps its size in each resample, and chunks add up to the number that was asked for."""
    monkeypatch.setattr(resampling, "CELLS", 150)
    subset = np.array([0, 1, 1, 0, 1, 1, 1, 1, 0, 2, 2])
    chunks = list(resamples(subset, np.ones(11), 100, 3))
    assert len(chunks) > 5
    weights = np.concatenate(chunks)
    assert weights.shape == (100, 11)
    for index, size in enumerate((3, 6, 2)):
        assert (weights[:, subset == index].sum(1) == size).all()
    assert_allclose(weights.mean(0), 1, atol=0.4)
    assert_allclose(weights[:, subset == 1].var(), 1 - 1 / 6, rtol=0.15)


def test_resamples_without_anything_to_find_are_drawn_again() -> None:
    """A third of the resamples miss the only pair that people took for the same; none of them is used."""
    same = np.zeros(20)
    same[7] = 1
    found = bootstrap_precision(np.arange(20), same, [0] * 20, ["all"], samples=300)["mean"]
    assert found.samples.shape == (300,)
    assert (found.samples > 0).all()


def test_precision_counts_pairs_as_often_as_they_are_drawn() -> None:
    """Each resampled value is the average precision of the pairs written out."""
    generator = np.random.default_rng(0)
    distances, same = generator.random((3, 40)).round(1), generator.integers(0, 4, 40) / 3
    subset, pictures = np.repeat([0, 1], 20), generator.integers(0, 12, (40, 2))
    found = bootstrap_precision(distances, same, subset, ["a", "b"], samples=30, seed=5, pictures=pictures)
    weights = np.concatenate(list(resamples(subset, same, 30, 5, pictures))).astype(int)
    for row, times in enumerate(weights):
        pooled = average_precision(np.repeat(distances, times, 1), np.repeat(same, times))
        assert_allclose(found["pooled"].samples[row], pooled, rtol=1e-12)
    parts = [average_precision(distances[:, subset == s], same[subset == s], weights[:, subset == s]) for s in (0, 1)]
    assert_allclose(found["mean"].samples, np.mean(parts, 0).T, rtol=1e-12)
    assert_allclose(found["mean"].estimate, np.mean([average_precision(distances[:, subset == s], same[subset == s])
                                                     for s in (0, 1)], 0), rtol=1e-12)  # fmt: skip


def test_coverage_of_precision() -> None:
    """Intervals of average precision hold that of the population, which a large sample gives."""
    generator = np.random.default_rng(0)

    def sample(size: int) -> tuple[Floats, Floats]:
        share = generator.random(size)
        return 1 - share + 0.3 * generator.standard_normal(size), generator.binomial(3, share) / 3

    truth = float(average_precision(*sample(100_000)))
    hits = [covered(bootstrap_precision(*sample(150), [0] * 150, ["all"], 80, k)["mean"], truth) for k in range(100)]
    assert 0.88 < np.mean(hits) < 0.99


def test_a_loss_has_the_same_interval_in_any_company() -> None:
    """Resamples depend on the data and the seed alone; the same seed gives the same numbers bit by bit."""
    scores, subset = np.random.default_rng(0).random((9, 100)), np.repeat([0, 1], 50)
    found = bootstrap_means(scores, subset, ["a", "b"], samples=200)["mean"]
    assert np.array_equal(bootstrap_means(scores, subset, ["a", "b"], samples=200)["mean"].samples, found.samples)
    fewer = bootstrap_means(scores[[7, 2]], subset, ["a", "b"], samples=200)["mean"]
    assert_allclose(fewer.samples, found.samples[:, [7, 2]], rtol=1e-12)
    other = bootstrap_means(scores, subset, ["a", "b"], samples=200, seed=1)["mean"]
    assert not np.allclose(other.samples, found.samples)


def groups(found: Bootstrap, size: int) -> list[Bootstrap]:
    """Take the losses apart into families of `size` that were resampled together."""
    cuts = [slice(at, at + size) for at in range(0, len(found.estimate), size)]
    return [Bootstrap(found.estimate[cut], found.samples[:, cut]) for cut in cuts]


def test_no_false_difference_in_95_of_100_families() -> None:
    """400 families of 5 equal losses: one of 10 pairs is found different in 5 % of them, without care in a third."""
    generator = np.random.default_rng(0)
    difficulty = np.repeat(generator.random((400, 100)), 5, 0)
    scores = (difficulty + generator.random((2000, 100)) > 0.8).astype(float)
    found = [compare(one) for one in groups(bootstrap_means(scores, [0] * 100, ["all"], samples=400)["mean"], 5)]
    assert 0.02 < np.mean([one.real.any() for one in found]) < 0.085
    assert np.mean([(one.p_holm <= 0.05).any() for one in found]) < 0.085
    assert np.mean([(one.p_alone <= 0.05).any() for one in found]) > 0.2


def test_bands_hold_all_true_differences_at_once() -> None:
    """Also where losses differ, and with the right sign; what is real has the sign of the truth."""
    generator = np.random.default_rng(1)
    truth = np.array([0.5, 0.52, 0.6, 0.9])
    scores = generator.random((400, 4, 200)) - 0.5 + truth[:, None] + 0.3 * generator.standard_normal((400, 1, 200))
    found = bootstrap_means(scores.reshape(1600, 200), np.repeat([0, 1], 100), ["a", "b"], samples=400)["mean"]
    differences = truth[:, None] - truth
    compared = [compare(one) for one in groups(found, 4)]
    inside = [((one.low <= differences + 1e-12) & (differences <= one.high + 1e-12)).all() for one in compared]
    assert 0.91 < np.mean(inside) < 0.98
    assert np.mean([one.real[3, :3].all() and one.estimate[3, 0] > 0 for one in compared]) > 0.99
    signs = [(np.sign(one.estimate) == np.sign(differences))[one.real].all() for one in compared]
    assert np.mean(signs) > 0.99


def test_differences_are_what_a_loop_finds() -> None:
    """Errors, the largest |t| and all p-values, pair by pair."""
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((999, 5)) + np.array([0, 3, 6, 10, 13.6])
    found = compare(Bootstrap(samples.mean(0) + 0.1 * generator.standard_normal(5), samples), 0.9)
    pairs = list(combinations(range(5), 2))
    seen, spread, ratio = {}, {}, {}
    estimate = found.estimate
    for i, j in pairs:
        drawn = samples[:, i] - samples[:, j]
        seen[i, j], spread[i, j] = estimate[i, j], drawn.std(ddof=1)
        ratio[i, j] = np.abs(drawn - seen[i, j]) / spread[i, j]
    largest = np.max(list(ratio.values()), 0)
    assert_allclose(found.critical, np.sort(largest)[899], rtol=1e-12)
    alone = {}
    for i, j in pairs:
        t = abs(seen[i, j]) / spread[i, j]
        assert_allclose(found.p[i, j], (1 + (largest >= t).sum()) / 1000, rtol=1e-12)
        alone[i, j] = (1 + (ratio[i, j] >= t).sum()) / 1000
        assert_allclose(found.p_alone[j, i], alone[i, j], rtol=1e-12)
        assert_allclose(found.low[i, j], seen[i, j] - found.critical * spread[i, j], rtol=1e-12)
        assert_allclose(found.high[i, j], seen[i, j] + found.critical * spread[i, j], rtol=1e-12)
        assert_allclose(found.high[j, i], -found.low[i, j], rtol=1e-12)
        assert found.real[i, j] == found.real[j, i] == (t > found.critical) == (found.p[i, j] <= 0.1)
    worst, tested = 0.0, sorted(pairs, key=lambda pair: alone[pair])
    for left, pair in enumerate(tested):
        worst = min(1.0, max(worst, (10 - left) * alone[pair]))
        assert_allclose(found.p_holm[pair], worst, rtol=1e-12)
    assert found.real.any()
    assert not found.real[~np.eye(5, dtype=bool)].all()


def test_equal_losses_never_differ() -> None:
    """Rounding in a matrix product is no difference; a constant difference is one."""
    row = np.random.default_rng(0).random(1000)
    scores = np.concatenate([np.repeat(row[None], 7, 0), 1 - row[None], row[None] - 0.25])
    found = compare(bootstrap_means(scores, np.repeat([0, 1], 500), ["a", "b"], samples=100)["mean"])
    assert not found.real[:7, :7].any()
    assert (found.p[:7, :7] == 1).all()
    assert_allclose(found.high[:7, :7], 0, atol=1e-12)
    assert found.real[0, 8]
    assert found.p[0, 8] == 1 / 101
    rounded = (1 + row)[:, None] * np.array([1, 1 + 4e-16, 1 + 8e-16])
    found = compare(Bootstrap(rounded.mean(0) + np.array([0, 0, 1e-15]), rounded))
    assert not found.real.any()
    assert (found.p == 1).all()
    assert not found.high.any()
    alone = compare(Bootstrap(np.ones(1), np.ones((20, 1))))
    assert (alone.real.tolist(), alone.p.tolist(), alone.critical) == ([[False]], [[1.0]], 0)


def test_pairs_are_compared_on_the_same_resamples() -> None:
    """Two losses that agree on nearly all triplets are told apart long before their intervals are."""
    generator = np.random.default_rng(0)
    first = generator.random(500)
    found = bootstrap_means([first, first - 0.02 * generator.random(500)], [0] * 500, ["all"])["mean"]
    low, high = found.interval()
    assert low[0] < high[1]
    assert compare(found).real[0, 1]


def test_losses_like_the_best() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((4, 300)) + np.array([0.2, 0.5, 0.51, 0.0])[:, None]
    assert like_best(bootstrap_means(scores, [0] * 300, ["all"])["mean"]).tolist() == [False, True, True, False]


HUNDRED = np.random.default_rng(0).random((2, 100))
TWICE = [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_means(HUNDRED, [0] * 100, ["all"], samples=0), "whole number from 1, got 0"),
        (lambda: bootstrap_means(HUNDRED, [0] * 99 + [1], ["all", "one"]), "subset of one triplet"),
        (lambda: bootstrap_means(HUNDRED, [0] * 99, ["all"]), "different lengths"),
        (lambda: bootstrap_means(HUNDRED * np.nan, [0] * 100, ["all"]), "200 of 200"),
        (lambda: bootstrap_means(HUNDRED, [0] * 100, ["all"], pictures=[[0, 1]]), r"\(100, 3\) or \(100, 2\), got"),
        (lambda: bootstrap_means(HUNDRED, [0] * 100, ["all"], pictures=HUNDRED.T), "whole numbers, got float64"),
        (lambda: bootstrap_means(HUNDRED[:, :4], [0, 0, 1, 1], ["a", "b"], pictures=TWICE), "too few judgements"),
        (lambda: bootstrap_precision(HUNDRED, np.zeros(100), [0] * 100, ["all"]), "nothing to find"),
        (lambda: Bootstrap(np.ones(2), np.ones((9, 2))).interval(95), "between 0 and 1, got 95"),
        (lambda: compare(Bootstrap(np.ones(2), np.ones((18, 2)))), "0.95 needs 19 resamples, got 18"),
        (lambda: compare(Bootstrap(np.ones(()), np.ones(30))), "K losses are compared"),
    ],
)  # fmt: skip
def test_what_has_no_interval_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
