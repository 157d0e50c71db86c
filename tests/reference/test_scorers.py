"""2AFC, JND and intervals against the lpips package, torchmetrics and scipy."""

from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import torch
from lpips.trainer import score_2afc_dataset, score_jnd_dataset
from numpy.testing import assert_allclose
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, binary_precision_recall_curve

from losslab.metrics.bootstrap import bootstrap_means
from losslab.metrics.jnd import average_precision
from losslab.metrics.two_afc import two_afc_scores


def handed(**data: Tensor) -> SimpleNamespace:
    """Give what the package's scorers read from: one batch, with distances in place of pictures."""
    return SimpleNamespace(load_data=lambda: [data])


def test_2afc_is_that_of_lpips() -> None:
    """With ties and soft labels; the package's function is handed distances in place of pictures."""
    d0, d1 = torch.rand(2, 300, dtype=torch.float64).mul(20).round().div(20)
    judge = torch.randint(0, 6, (300,)).double() / 5
    nothing = torch.zeros_like(d0)
    data = handed(ref=nothing, p0=d0, p1=d1, judge=judge)
    mean, details = score_2afc_dataset(data, lambda reference, other: other - reference)
    found = two_afc_scores(d0, d1, judge)
    assert (d0 == d1).any()
    assert_allclose(found, details["scores"], rtol=1e-14)
    assert_allclose(found.mean(), mean, rtol=1e-14)


@pytest.mark.parametrize("votes", [1, 3])
def test_jnd_is_that_of_lpips(votes: int) -> None:
    """Without ties, on distances (N,), on which the package's function works."""
    distances = torch.rand(300, dtype=torch.float64)
    same = torch.randint(0, votes + 1, (300,)).double() / votes
    data = handed(p0=distances, p1=torch.zeros(300), same=same)
    expected, _ = score_jnd_dataset(data, lambda p0, p1: p0 - p1)
    assert_allclose(average_precision(distances, same), expected, rtol=1e-13)


def test_jnd_of_lpips_on_its_own_distances_is_the_first_label() -> None:
    """The package's distances are (N, 1, 1, 1), of which its function sorts the last axis: what we don't repeat."""
    distances, same = torch.rand(50, dtype=torch.float64), torch.zeros(50)
    same[distances < 0.4] = 1
    distances[0], same[0] = 0.7, 1 / 3
    for shown in (distances, -distances):
        data = handed(p0=shown.reshape(50, 1, 1, 1), p1=torch.zeros(1), same=same)
        expected, _ = score_jnd_dataset(data, lambda p0, p1: p0 - p1)
        assert_allclose(np.asarray(expected, np.float64).ravel()[0], 1 / 3, rtol=1e-6)
    assert average_precision(distances, same) > 0.9 > average_precision(-distances, same)


def test_precision_is_that_of_torchmetrics() -> None:
    """Labels 0 and 1 with ties: its curve below an envelope; and its score itself where precision falls all along."""
    near = torch.randint(0, 60, (500,)).double() / 60
    same = torch.bernoulli(1 - near).long()
    precision, recall, _ = (one.numpy() for one in binary_precision_recall_curve(1 - near, same))
    assert_allclose(average_precision(near, same), lpips.voc_ap(recall[::-1], precision[::-1]), rtol=1e-6)
    falling = torch.arange(10).repeat_interleave(10)
    share = torch.cat([torch.arange(10) < 10 - place for place in range(10)])
    expected = binary_average_precision(1 - falling / 10, share.long())
    assert_allclose(average_precision(falling, share), expected, rtol=1e-6)


def test_percentile_interval_is_that_of_scipy() -> None:
    """Within what 20,000 resamples of each leave open: the ends of two runs differ by some 1 % of the width."""
    scores = np.random.default_rng(0).binomial(5, 0.7, 80) / 5
    low, high = bootstrap_means(scores, [0] * 80, ["all"], samples=20_000)["mean"].interval()
    there = scipy.stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert_allclose([low, high], there.confidence_interval, atol=0.04 * float(high - low))
