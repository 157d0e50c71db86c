"""Average precision over shares of votes, whatever the order of the pairs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from losslab.metrics.jnd import average_precision, precision_by_subset


def by_loop(distances: NDArray[np.float64], same: NDArray[np.float64]) -> float:
    """Give the area threshold by threshold: precision and recall of all pairs that are at most so far apart."""
    points = []
    for threshold in sorted(set(distances.tolist())):
        near = distances <= threshold
        points.append((same[near].sum() / same.sum(), same[near].mean()))
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[place:])
        before = recall
    return area


def test_by_hand() -> None:
    """Precision 1, ½, ⅔ and ½ at recall ½, ½, 1 and 1: the envelope lifts what precedes ⅔."""
    assert_allclose(average_precision([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0]), (1 + 2 / 3) / 2, rtol=1e-15)
    assert_allclose(average_precision([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0]), 1 / 3, rtol=1e-15)
    assert_allclose(average_precision([1, 2], [1 / 3, 2 / 3]), 1 / 2, rtol=1e-15)  # the envelope is flat
    assert_allclose(average_precision([2, 1], [1 / 3, 2 / 3]), 2 / 3 * 2 / 3 + 1 / 3 * 1 / 2, rtol=1e-15)


@pytest.mark.parametrize("digits", [1, 2, 9], ids=["many ties", "few ties", "no ties"])
@pytest.mark.parametrize("votes", [1, 3])
def test_as_thresholds_have_it(digits: int, votes: int) -> None:
    """With ties and shares of votes it is the area that a loop over thresholds finds."""
    generator = np.random.default_rng(digits)
    distances = generator.random((3, 200)).round(digits)
    same = generator.integers(0, votes + 1, 200) / votes
    assert_allclose(average_precision(distances, same), [by_loop(one, same) for one in distances], rtol=1e-13)


def test_order_of_pairs_does_not_matter() -> None:
    """Pairs of one distance count together, not as some sort leaves them."""
    generator = np.random.default_rng(0)
    distances, same = generator.integers(0, 5, 100), generator.integers(0, 4, 100) / 3
    expected = average_precision(distances, same)
    for _ in range(5):
        order = generator.permutation(100)
        assert_allclose(average_precision(distances[order], same[order]), expected, rtol=1e-13)


def test_knowing_nothing_has_the_share_of_same() -> None:
    """One distance for all pairs scores as chance does, and not as the first pair of the file."""
    for same in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert average_precision([2.0] * 4, same) == 0.25


def test_perfect_order_scores_one() -> None:
    same = np.arange(100) < 30
    assert_allclose(average_precision(np.arange(100), same), 1, rtol=1e-15)
    assert_allclose(average_precision(np.exp(np.arange(100) / 9), same), 1, rtol=1e-15)


def test_weights_are_repetitions() -> None:
    """A pair that counts thrice scores as three equal pairs do, and one that counts 0 times as none."""
    generator = np.random.default_rng(0)
    distances, same = generator.random((2, 90)).round(2), generator.integers(0, 4, 90) / 3
    weights = generator.integers(0, 4, (5, 90))
    weights[0, distances[0] < 0.2] = 0  # nothing among the nearest
    found = average_precision(distances, same, weights)
    assert found.shape == (2, 5)
    for k, times in enumerate(weights):
        repeated = average_precision(np.repeat(distances, times, 1), np.repeat(same, times))
        assert_allclose(found[:, k], repeated, rtol=1e-13)
    assert_allclose(average_precision(distances, same, 0.01 * weights), found, rtol=1e-12)


def test_many_rows_are_worked_on_in_blocks() -> None:
    """How many weights are worked on at a time is no part of the result."""
    generator = np.random.default_rng(0)
    distances, same, weights = generator.random(20_000), generator.random(20_000), generator.integers(0, 3, (3, 20_000))
    found = average_precision(distances, same, weights)
    assert_allclose(found, [average_precision(distances, same, one) for one in weights], rtol=1e-12)
    assert average_precision(generator.random((2, 70_000)), np.ones(70_000)).tolist() == [1, 1]


def test_subsets_apart_and_pooled() -> None:
    """The mean ranks each subset by itself; pooled, a subset of larger distances comes last as a whole."""
    distances, same = np.array([1, 2, 3, 11, 12, 13]), np.array([1, 0, 0, 1, 1, 0])
    found = precision_by_subset(distances, same, [0] * 3 + [1] * 3, ["traditional", "cnn"])
    assert list(found) == ["traditional", "cnn", "mean", "pooled"]
    assert [float(found[name]) for name in ("traditional", "cnn", "mean")] == [1, 1, 1]
    assert_allclose(found["pooled"], by_loop(distances, same), rtol=1e-15)
    assert found["pooled"] < 0.8
    weighted = precision_by_subset([distances] * 2, same, [0] * 3 + [1] * 3, ["traditional", "cnn"], np.ones((4, 6)))
    assert weighted["cnn"].shape == (2, 4)


def test_tensors_are_taken() -> None:
    distances, same = torch.rand(2, 30), torch.randint(0, 2, (30,))
    expected = average_precision(distances.double().numpy(), same.numpy().tolist())
    assert np.array_equal(average_precision(distances, same), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_precision([1, np.nan], [1, 0]), "distances has NaN.*1 of 2, the first at 1"),
        (lambda: average_precision([1, 2], [1, 3]), "same is a share.*1 of 2, the first at 1, 3"),
        (lambda: average_precision([1, 2], [1]), "different lengths: distances has 2, same has 1"),
        (lambda: average_precision([1, 2], [0, 0]), "nothing to find"),
        (lambda: average_precision([1, 2], [1, 0], [[1, 1], [0, 1]]), "nothing to find"),
        (lambda: average_precision([1, 2], [1, 0], [2, -1]), "weights are 0 or more, got -1"),
        (lambda: average_precision([1, 2], [1, 0], [1]), "different lengths.*weights has 1"),
        (lambda: precision_by_subset([1, 2], [1, 0], [0, 1], ["a", "b"]), "nothing to find"),
    ],
)
def test_what_can_not_be_scored_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
