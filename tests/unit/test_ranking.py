"""Ranking nets see what they are said to see, and begin where their seed says."""

import pytest
import torch
from torch import nn

from losslab.models.ranking import RANKINGS, LargeRanking, SmallRanking, make_ranking


def test_large_sees_five_numbers() -> None:
    """The two distances, their difference and both ratios, in the order of the published net, through leaky layers."""
    net = LargeRanking()
    first, leaky, second, _, last = net.layers
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    d0, d1 = torch.tensor([0.3, 1.2]), torch.tensor([0.7, 0.1])
    seen = torch.tensor([[0.3, 0.7, -0.4, 0.3 / 0.8, 0.7 / 0.4], [1.2, 0.1, 1.1, 1.2 / 0.2, 0.1 / 1.3]])
    inner = torch.where((made := first(seen)) > 0, made, 0.2 * made)
    inner = torch.where((made := second(inner)) > 0, made, 0.2 * made)
    torch.testing.assert_close(net(d0, d1), last(inner)[:, 0])
    assert (first.out_features, second.out_features) == (32, 32)
    assert leaky.negative_slope == 0.2


def test_small_and_none() -> None:
    """A plane over both distances, and the mere difference."""
    net = SmallRanking()
    weight, bias = net.layer.weight[0], net.layer.bias
    d0, d1 = torch.rand(2, 5)
    torch.testing.assert_close(net(d0, d1), weight[0] * d0 + weight[1] * d1 + bias)
    assert torch.equal(make_ranking("none", 0)(d0, d1), d0 - d1)
    assert not [*make_ranking("none", 0).parameters()]


@pytest.mark.parametrize("name", RANKINGS)
def test_finite_at_nothing(name: str) -> None:
    """Equal pictures, whose distances are zero, have a logit and gradients; leading axes stay."""
    d0, d1 = torch.zeros(2, 3, 4, requires_grad=True)
    found = make_ranking(name, 0)(d0, d1)
    assert found.shape == (3, 4)
    for gradient in torch.autograd.grad(found.sum(), (d0, d1)):
        assert gradient.isfinite().all()


def test_start_is_a_function_of_the_seed() -> None:
    """The same for the same seed, another for another, and torch's own generator stays where it was."""
    before = torch.get_rng_state()
    starts = [make_ranking("large", seed).state_dict()["layers.0.weight"] for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    with pytest.raises(ValueError, match="task.ranking is one of large, small, none, got 'huge'"):
        make_ranking("huge", 0)
