"""The scores of 2AFC and their means over subsets are those that can be worked out by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from losslab.metrics.subsets import by_subset
from losslab.metrics.two_afc import accuracy, decisions, human_ceiling, oracle, two_afc_scores

BAPPS = ["traditional", "cnn", "superres", "deblur", "color", "frameinterp"]
D0, D1 = [0.1, 0.9, 0.4, 0.4, 0.3, 0.7], [0.2, 0.3, 0.4, 0.4, 0.8, 0.6]
JUDGE = [0.0, 0.0, 0.8, 0.2, 0.5, 0.6]
"""Right, wrong, a tie each side, a split vote, a soft one."""


def test_scores_by_hand() -> None:
    """A distance earns the share of people that chose as it did, and half where it does not choose."""
    assert_allclose(two_afc_scores(D0, D1, JUDGE), [1, 0, 0.5, 0.5, 0.5, 0.6], rtol=1e-15)
    assert decisions(D0, D1).tolist() == [0, 1, 0.5, 0.5, 0, 1]


def test_sides_do_not_matter() -> None:
    """Exchanging the candidates, and the votes with them, changes no score."""
    flipped = 1 - np.array(JUDGE)
    assert_allclose(two_afc_scores(D1, D0, flipped), two_afc_scores(D0, D1, JUDGE), rtol=1e-15)
    assert_allclose(accuracy(D1, D0, flipped).scores, accuracy(D0, D1, JUDGE).scores, rtol=1e-15)


def test_losses_broadcast() -> None:
    """Many losses at once are scored as each by itself."""
    d0, d1 = np.random.default_rng(0).random((2, 4, 3, 50)).round(1)
    judge = np.random.default_rng(1).integers(0, 6, 50) / 5
    found = two_afc_scores(d0, d1, judge)
    assert found.shape == (4, 3, 50)
    assert np.array_equal(found[2, 1], two_afc_scores(d0[2, 1], d1[2, 1], judge))
    scores = accuracy(d0, d1, judge)
    assert np.array_equal(scores.scores[2, 1], accuracy(d0[2, 1], d1[2, 1], judge).scores)


def test_tensors_and_lists_are_taken() -> None:
    """Distances come from anywhere; those of 32 bits are neither rounded nor told apart where they are equal."""
    expected = two_afc_scores(np.array(D0), np.array(D1), np.array(JUDGE))
    assert expected.dtype == np.float64
    assert np.array_equal(two_afc_scores(D0, D1, JUDGE), expected)
    d0, d1, judge = (torch.tensor(one) for one in (D0, D1, JUDGE))
    assert_allclose(two_afc_scores(d0, d1, judge), expected, rtol=1e-7)
    assert two_afc_scores(d0, d0.double(), judge).tolist() == [0.5] * 6


def test_accuracy_by_hand() -> None:
    """A tie of distances is half right; a split vote has no majority to agree with, and is counted out."""
    found = accuracy(D0, D1, JUDGE)
    assert found.scores.tolist() == [1, 0, 0.5, 0.5, 1]
    assert found.counted.tolist() == [True, True, True, True, False, True]


def test_accuracy_of_the_study() -> None:
    """As the published program has it: ties of distances and of votes are choices of p1."""
    found = accuracy(D0, D1, JUDGE, "pihlgren")
    loop = [float((a < b) == (h < 0.5)) for a, b, h in zip(D0, D1, JUDGE, strict=True)]
    assert found.scores.tolist() == loop == [1, 0, 1, 0, 0, 1]
    assert found.counted.all()
    nothing = accuracy([0.0] * 3, [0.0] * 3, [0.5, 0.6, 1.0], "pihlgren")
    assert nothing.scores.tolist() == [1, 1, 1]  # what is wrong with it


def test_human_ceiling_and_oracle() -> None:
    """The papers' two bounds, of which no choice beats the oracle."""
    assert_allclose(human_ceiling([0, 0.2, 0.5, 1]), [1, 0.68, 0.5, 1], rtol=1e-15)
    assert_allclose(oracle([0, 0.2, 0.5, 1]), [1, 0.8, 0.5, 1], rtol=1e-15)
    judge = np.random.default_rng(0).random(200)
    for choice in np.random.default_rng(1).random((5, 200)):
        assert (two_afc_scores(choice, 0.5 * np.ones(200), judge) <= oracle(judge)).all()


def test_human_ceiling_without_oneself() -> None:
    """With votes it is the agreement of two different people, counted pair by pair."""
    votes = np.array([1, 1, 1, 0, 0])
    pairs = [float(a == b) for i, a in enumerate(votes) for j, b in enumerate(votes) if i != j]
    assert_allclose(human_ceiling([votes.mean()], [5]), float(np.mean(pairs)), rtol=1e-15)
    flips = np.random.default_rng(0).binomial(4, 0.5, 20_000)
    assert_allclose(human_ceiling(flips / 4, np.full(20_000, 4)).mean(), 0.5, atol=0.01)
    assert human_ceiling(flips / 4).mean() > 0.6  # coins agree with themselves
    with pytest.raises(ValueError, match="2 triplets have fewer than 2 votes"):
        human_ceiling([0, 0.5, 1], [1, 4, 0])


def test_means_over_subsets() -> None:
    """Small subsets weigh as much as large ones in the mean, and less in the pooled one."""
    values = np.array([1, 0, 0, 0, 0, 1, 1])
    found = by_subset([values, 1 - values], [1, 0, 0, 0, 0, 1, 1], ["large", "small"])
    assert list(found) == ["large", "small", "mean", "pooled"]
    expected: dict[str, list[float]] = {"large": [0, 1], "small": [1, 0], "mean": [0.5, 0.5], "pooled": [3 / 7, 4 / 7]}
    for name, means in expected.items():
        assert_allclose(found[name], means, rtol=1e-15)


@pytest.mark.parametrize(
    ("row", "distortions", "real", "everything"),
    [
        ((80.8, 84.4, 73.4, 67.1, 68.8, 68.6), 82.6, 69.5, 73.9),
        ((59.9, 77.8, 64.7, 58.2, 63.5, 55.0), 68.9, 60.3, 63.2),
        ((61.4, 78.6, 68.1, 59.5, 57.3, 57.7), 70.0, 60.6, 63.8),
    ],
    ids=["human", "L2", "FSIMc"],
)
def test_groups_of_the_papers(row: tuple[float, ...], distortions: float, real: float, everything: float) -> None:
    """The means of LPIPS's Table 5 follow from its six columns, whatever the sizes of the subsets; to its digits."""
    sizes = [5, 3, 9, 8, 4, 2]
    found = by_subset(np.repeat(row, sizes), np.repeat(range(6), sizes), BAPPS)
    means = [float(found[name]) for name in ("distortions", "real", "mean")]
    assert_allclose(means, [distortions, real, everything], atol=0.0501)
    assert_allclose(found["pooled"], np.average(row, weights=sizes), rtol=1e-14)
    shuffled = by_subset(np.repeat(row, sizes)[::-1], 5 - np.repeat(range(6), sizes)[::-1], BAPPS[::-1])
    assert_allclose([shuffled[name] for name in found], list(found.values()), rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: two_afc_scores([1, np.nan, np.inf], [1, 2, 3], [0, 0, 0]), "d0 has NaN.*2 of 3, the first at 1, nan"),
        (
            lambda: two_afc_scores([1, 2], np.array([[1, 2], [1, np.inf]]), [0, 0]),
            r"d1 has NaN.*1 of 4, the first at \(1, 1\)",
        ),
        (lambda: two_afc_scores([1, 2], [2, 1], [0, 1.2]), "judge is a share.*1 of 2, the first at 1, 1.2"),
        (lambda: two_afc_scores([1, 2], [2, 1], [-0.2, 1]), "judge is a share.*1 of 2, the first at 0, -0.2"),
        (lambda: two_afc_scores([1, 2], [2], [0, 1]), "different lengths: d0 has 2, d1 has 1"),
        (lambda: two_afc_scores([1, 2], [2, 1], [0]), "different lengths: d0 has 2, judge has 1"),
        (lambda: two_afc_scores([], [], []), r"at least one number, got shape \(0,\)"),
        (lambda: two_afc_scores(1.0, 2.0, 0.5), r"at least one number, got shape \(\)"),
        (lambda: accuracy([1], [2], [0], "majorty"), r"one of \['majority', 'pihlgren'\], got 'majorty'"),
        (lambda: accuracy([1, 2], [2, 1], [0.5, 0.5]), "none of 2 triplets has a majority"),
        (lambda: human_ceiling([0.5], [4.0]), "votes holds whole numbers, got float64"),
        (lambda: by_subset([1, 2], [0, 2], ["a", "b"]), "indices from 0 to 1.*1 of 2, the first at 1, 2"),
        (lambda: by_subset([1, 2], [0, 0], ["a", "b", "c"]), r"nothing belongs to the subsets \['b', 'c'\]"),
        (lambda: by_subset([1, 2], [0, 1], ["a", "a"]), "none twice"),
        (lambda: by_subset([1, 2], [0, 1], ["a", "pooled"]), "none of .*'pooled'"),
        (lambda: by_subset([1, 2, 3], [0, 1], ["a", "b"]), "different lengths: values has 3, subset has 2"),
        (lambda: by_subset([1, 2], [0.0, 1.0], ["a", "b"]), "subset holds whole numbers, got float64"),
    ],
)
def test_what_can_not_be_scored_is_named(call: Callable[[], Any], message: str) -> None:
    """A wrong number is counted, placed and shown; it never becomes a score."""
    with pytest.raises(ValueError, match=message):
        call()


def test_inputs_stay() -> None:
    d0, judge = np.array(D0), np.array(JUDGE)
    two_afc_scores(d0, D1, judge), accuracy(d0, D1, judge), human_ceiling(judge), oracle(judge)
    assert d0.tolist() == D0
    assert judge.tolist() == JUDGE
