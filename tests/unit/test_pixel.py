"""The smooth power of the difference is its formula, keeps its digits, and has a slope everywhere."""

import pytest
import torch

from losslab.config import build, load, plain
from losslab.losses.pixel import L1, L2, Lp


@pytest.mark.parametrize("p", [0.3, 0.5, 1, 1.5, 2, 3])
@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_is_the_formula(p: float, eps: float) -> None:
    """The mean of (d² + eps²)^(p/2) - eps^p, for each image."""
    x, y = torch.rand(4, 3, 9, 7).double(), torch.rand(4, 3, 9, 7).double()
    expected = (((x - y) ** 2 + eps**2) ** (p / 2) - eps**p).mean(dim=(1, 2, 3))
    torch.testing.assert_close(Lp(p, eps)(x, y), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("p", [1, 1.5, 2, 4])
def test_without_eps_is_the_plain_power(p: float) -> None:
    """eps=0 changes nothing about |d|^p."""
    x, y = torch.rand(2, 3, 9, 7).double(), torch.rand(2, 3, 9, 7).double()
    torch.testing.assert_close(Lp(p, 0)(x, y), (x - y).abs().pow(p).mean(dim=(1, 2, 3)), rtol=1e-14, atol=0)


def test_first_and_second_power_are_l1_and_l2() -> None:
    """p=2 is L2 whatever eps is, and p=1 nears L1 as eps falls."""
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(Lp(2, 0.3)(x, y), L2()(x, y))
    torch.testing.assert_close(Lp(1, 1e-6)(x, y), L1()(x, y), rtol=1e-5, atol=0)


def test_small_differences_keep_their_digits() -> None:
    """Far below eps the loss is p/2 · eps^(p-2) · d², also in 32 bits, where the plain formula gives 0 or less."""
    x = torch.zeros(1, 3, 4, 4)
    found = Lp(0.5, 1e-3)(x, x + 1e-6)
    torch.testing.assert_close(found, torch.tensor([0.25 * 1e-3**-1.5 * 1e-12]), rtol=1e-4, atol=0)


def test_slope_is_bounded() -> None:
    """Equal pixels have slope zero, and no pixel has more than a bound that eps sets: p < 1 alone would be infinite."""
    steps = (torch.arange(-1000, 1001) / 1e5).view(1, 1, 1, -1).requires_grad_()
    Lp(0.5, 1e-3)(steps, torch.zeros_like(steps)).sum().mul(2001).backward()
    assert steps.grad is not None
    assert steps.grad[0, 0, 0, 1000] == 0
    assert steps.grad.abs().max() < 0.32 * 1e-3**-0.5  # p/2 · √2 / 3^¾ at eps · √2, the steepest place


def test_options_are_checked() -> None:
    for p, eps in ((0.5, 0), (1, -1e-3), (1, 2), (1, 1e-30)):
        with pytest.raises(ValueError, match=f"eps is from 1e-12 to 1, or 0 .* got eps {eps} and p {p}"):
            Lp(p, eps)
    with pytest.raises(ValueError, match="p is a number more than 0, got 0"):
        Lp(0)


def test_configs_are_what_they_are_called() -> None:
    """The loss lp is the original's square root, charbonnier the smooth L1."""
    found = {name: build(plain(load(f"loss={name}"))["loss"]) for name in ("lp", "charbonnier")}
    assert [(loss.p, loss.eps) for loss in found.values()] == [(0.5, 1e-3), (1.0, 1e-3)]


@pytest.mark.parametrize("loss", [L1(), L2(), Lp(0.5)], ids=lambda loss: loss.name)
def test_maps_are_the_pixels(loss: L1 | L2 | Lp) -> None:
    """At each pixel, the distance of that pixel by itself."""
    x, y = torch.rand(2, 3, 5, 6), torch.rand(1, 3, 5, 6)
    found = loss.maps(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(found[1, 0, 2, 3], loss(x[1:, :, 2:3, 3:4], y[:, :, 2:3, 3:4])[0])
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y))
