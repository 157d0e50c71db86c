"""A weighted sum adds up what it holds, under names that a curve can carry."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.config import build, load, plain
from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.mmdpp import MMDpp
from losslab.losses.patch import PatchRBF
from losslab.losses.pixel import L1, L2
from losslab.losses.pyramid import AveragePyramid
from losslab.losses.ssim import SSIM
from losslab.losses.swd import PatchSWD
from losslab.losses.weighted_sum import WeightedSum
from losslab.runs.cell import identify


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)


def parts(loss: WeightedSum, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return loss.parts(loss.encode(x), loss.encode(y))


def test_terms_carry_the_sums_names(pair: tuple[Tensor, Tensor]) -> None:
    """A term of one part is called by its key, each part of a larger one by `key/part`, and all are weighted."""
    x, y = pair
    found = parts(WeightedSum({"levels": AveragePyramid(L1(), 1), "square": L2()}, {"square": 3, "levels": 0.5}), x, y)
    assert list(found) == ["square", "levels/level0", "levels/level1"]
    torch.testing.assert_close(found["square"], 3 * L2()(x, y))
    torch.testing.assert_close(found["levels/level0"], 0.5 * L1()(x, y))


def test_sums_nest(pair: tuple[Tensor, Tensor]) -> None:
    """A sum of sums is weighted by both, and names each part once."""
    x, y = pair
    inner = WeightedSum({"l1": L1(), "l2": L2()}, {"l1": 2.0, "l2": 3.0})
    found = parts(WeightedSum({"inner": inner}, {"inner": 10.0}), x, y)
    assert list(found) == ["inner/l1", "inner/l2"]
    torch.testing.assert_close(found["inner/l2"], 30 * L2()(x, y))
    assert list(parts(WeightedSum({"mmdpp": MMDpp(4)}, {"mmdpp": 1.0}), x, y)) == [
        "mmdpp/l2", "mmdpp/local", "mmdpp/mmd"]  # fmt: skip


def test_mmdppp_is_mmdpp_with_other_numbers(pair: tuple[Tensor, Tensor]) -> None:
    """0.001 · L2 + 0.05 · PatchRBF(11, 0.02) + 1 · MMD(3, 0.03, 512), for images in [-1, 1]."""
    x, y = pair[0], torch.lerp(*pair, 0.05)  # far from each other, aligned patches are all alike to the kernel
    loss = build(plain(load("loss=mmdppp"))["loss"])
    found = loss.parts(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(found["l2"], 0.001 * 4 * L2()(x, y))
    torch.testing.assert_close(found["local"], 0.05 * PatchRBF(11, 0.02)(x, y))
    torch.testing.assert_close(found["mmd"], RandomFeatureMMD(512, 3, 0.03)(x, y))


def test_a_key_that_came_later_leaves_the_ids_of_mmdpp() -> None:
    """A cell that was computed before the patch of `local` had a size is still found; another size is another cell."""
    now = plain(load("loss=mmdpp"))
    then = {**now, "loss": {key: value for key, value in now["loss"].items() if key != "local_patch_size"}}
    other = plain(load("loss=mmdpp", "loss.local_patch_size=5"))
    assert identify(now, "").id == identify(then, "").id != identify(other, "").id


def test_yaml_builds_a_sum(pair: tuple[Tensor, Tensor]) -> None:
    """Both mappings come from nested keys."""
    losses = {"a": {"_target_": "losslab.losses.pixel.L1"}, "b": {"_target_": "losslab.losses.pixel.L2"}}
    loss = build({"_target_": "losslab.losses.weighted_sum.WeightedSum", "losses": losses, "weights": {"a": 1, "b": 4}})
    torch.testing.assert_close(loss(*pair), L1()(*pair) + 4 * L2()(*pair))


def test_sizes_and_draws_are_those_of_the_terms() -> None:
    """The largest term decides what is too small, and every term is drawn anew."""
    loss = WeightedSum({"l1": L1(), "swd": PatchSWD(directions=2, redraw_every=1)}, {"l1": 1.0, "swd": 1.0})
    assert (loss.min_side, loss.own_axes) == (7, 2)
    old = loss.encode(torch.rand(1, 3, 8, 8))
    loss.draw(1)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(torch.rand(1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("losses", "weights", "message"),
    [
        ({"a": L1()}, {"b": 1.0}, r"each term needs one weight: terms \['a'\], weights \['b'\]"),
        ({}, {}, "each term needs one weight"),
        ({"a/b": L1()}, {"a/b": 1.0}, "without dot and slash to losses, got 'a/b'"),
        ({"a.b": L1()}, {"a.b": 1.0}, "without dot and slash to losses, got 'a.b'"),
    ],
)
def test_bad_terms_are_refused(losses: dict[str, Any], weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedSum(losses, weights)


def test_maps_add_up(pair: tuple[Tensor, Tensor]) -> None:
    """A sum has maps where all its terms have, with their weights; the first term that has none is named."""
    x, y = pair
    inner = WeightedSum({"l2": L2()}, {"l2": 2.0})
    loss = WeightedSum({"inner": inner, "ssim": SSIM()}, {"inner": 5.0, "ssim": 0.5})
    found = loss.maps(loss.encode(x), loss.encode(y))
    expected = 10 * L2().maps(x, y) + 0.5 * SSIM().maps(SSIM().encode(x), SSIM().encode(y))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y))
    mixed = WeightedSum({"l2": L2(), "swd": PatchSWD(directions=2)}, {"l2": 1.0, "swd": 1.0})
    with pytest.raises(ValueError, match="patchswd does not go place by place"):
        mixed.maps(mixed.encode(x), mixed.encode(y))
    with pytest.raises(ValueError, match="different sizes"):
        loss.maps(loss.encode(x), loss.encode(y[..., :16, :16]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"l1": math.nan, "l2": 1.0}, "weights of l1 is a number from 0, got nan"),
        ({"l1": 1.0, "l2": -1.0}, "weights of l2 is a number from 0, got -1.0"),
        ({"l1": 0.0, "l2": 0.0}, "weights are all 0, so that nothing is compared: l1, l2"),
    ],
)
def test_weights_are_checked(weights: dict[str, float], message: str) -> None:
    """A sum of distances is a distance, and not always zero."""
    with pytest.raises(ValueError, match=message):
        WeightedSum({"l1": L1(), "l2": L2()}, weights)
