"""Pyramids cut images into levels that add up, weigh them as their options say, and are honest about their kernels."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.config import build, load, plain
from losslab.losses.pixel import L1, L2
from losslab.losses.pyramid import AveragePyramid, LaplacianPyramid
from losslab.losses.swd import PatchSWD
from losslab.losses.weighted_sum import WeightedSum


def preset(name: str, *overrides: str) -> Any:
    return build(plain(load(f"loss={name}", *overrides))["loss"])


def lap1(x: Tensor, y: Tensor, kernel: Tensor, weights: Sequence[float]) -> Tensor:
    """Give Σ_j w_j · mean |L^j| of the difference of two images, (N,): the pyramid is linear."""
    rest, found = x - y, torch.zeros(len(x))
    for weight in weights[:-1]:
        padded = functional.pad(rest, (2, 2, 2, 2), mode="replicate")
        smooth = torch.cat([functional.conv2d(padded[:, c : c + 1], kernel[None, None]) for c in range(3)], dim=1)
        found += weight * (rest - smooth).abs().mean(dim=(1, 2, 3))
        rest = functional.avg_pool2d(smooth, 2)
    return found + weights[-1] * rest.abs().mean(dim=(1, 2, 3))


BINOMIAL = torch.outer(torch.tensor([1.0, 4, 6, 4, 1]), torch.tensor([1.0, 4, 6, 4, 1])) / 256


def near_flat(sigma: float) -> Tensor:
    """Sum two squared bells over a 5×5 grid, as minimal_glo and ariel415el do."""
    kernel = torch.tensor([[sum(torch.exp(torch.tensor(-(t**2) / (2 * sigma**2))) ** 2 for t in (u, v))
                            for v in range(-2, 3)] for u in range(-2, 3)])  # fmt: skip
    return kernel / kernel.sum()


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 44, 37), torch.rand(2, 3, 44, 37)


def test_laplacian_is_lap1_in_means(pair: tuple[Tensor, Tensor]) -> None:
    """The preset is the plain sum of the level means of |x - y|, the values that earlier versions gave."""
    torch.testing.assert_close(preset("laplacian")(*pair), lap1(*pair, BINOMIAL, (1, 1, 1, 1)), rtol=1e-6, atol=1e-7)


def test_lap_loss_is_what_the_original_computes_in_signed_images(pair: tuple[Tensor, Tensor]) -> None:
    """Lap1 with the near-flat kernel and 4^j-fold levels, plus the mean square, for images in [-1, 1]."""
    x, y = (2 * image - 1 for image in pair)
    square = (x - y).square().mean(dim=(1, 2, 3))
    meant = lap1(x, y, near_flat(2.0), (1, 4, 16, 64)) + square
    torch.testing.assert_close(preset("lap_loss")(*pair), meant, rtol=1e-5, atol=0)
    ran = lap1(x, y, near_flat(1.0), (1, 4, 16)) + square
    found = preset("lap_loss", "loss.losses.lap1.levels=2", "loss.losses.lap1.sigma=1")(*pair)
    torch.testing.assert_close(found, ran, rtol=1e-5, atol=0)


def test_near_flat_kernel_is_the_one_in_the_wild() -> None:
    """Its centre and corner at sigma 2 are those that minimal_glo's get_gaussian_kernel gives."""
    kernel = LaplacianPyramid(L1(), kernel="glo", sigma=2.0).kernel
    assert kernel[2, 2] == pytest.approx(0.0607, abs=5e-5)
    assert kernel[0, 0] == pytest.approx(0.0223, abs=5e-5)
    torch.testing.assert_close(kernel, near_flat(2.0))


@pytest.mark.parametrize("name", ["binomial", "gaussian", "glo"])
def test_blur_answers_an_impulse_with_its_kernel(name: str) -> None:
    """Every kernel sums to 1, keeps a constant, and is applied to each channel of each image alone."""
    loss = LaplacianPyramid(L1(), levels=1, kernel=name, sigma=1.5)
    impulse = torch.zeros(2, 3, 16, 16)
    impulse[1, 2, 8, 7] = 1
    blurred = impulse - loss.encode(impulse)[0]
    torch.testing.assert_close(blurred[1, 2, 6:11, 5:10], loss.kernel)
    assert blurred.sum() == pytest.approx(1)
    band, rest = loss.encode(torch.full((1, 16, 16), 0.5))
    torch.testing.assert_close(band, torch.zeros(1, 16, 16))
    torch.testing.assert_close(rest, torch.full((1, 8, 8), 0.5))


def test_levels_add_up_to_the_image() -> None:
    """What the blur takes away and what it leaves are the whole image again."""
    x = torch.rand(1, 3, 16, 16)
    band, rest = LaplacianPyramid(L1(), levels=1).encode(x)
    torch.testing.assert_close(functional.avg_pool2d(x - band, 2), rest)


@pytest.mark.parametrize(
    ("choice", "weights"),
    [
        ("equal", [1, 1, 1]),
        ("coarse", [1, 4, 16]),
        ("fine", [1, 1 / 4, 1 / 16]),
        ("fine_scaled", [16, 4, 1]),
        ([0, 0.5, 7], [0, 0.5, 7]),
    ],
)
def test_weights_of_levels(choice: str | list[float], weights: list[float], pair: tuple[Tensor, Tensor]) -> None:
    """Each level counts as often as its name says, in both kinds of pyramids."""
    x, y = pair
    loss = AveragePyramid(L2(), 2, choice)
    found = loss.parts(loss.encode(x), loss.encode(y))
    assert list(found) == ["level0", "level1", "level2"]
    for j, (part, weight) in enumerate(zip(found.values(), weights, strict=True)):
        small = [functional.avg_pool2d(image, 2**j) for image in pair]
        torch.testing.assert_close(part, weight * L2()(*small), rtol=1e-5, atol=0)
    expected = lap1(x, y, BINOMIAL, weights)
    torch.testing.assert_close(LaplacianPyramid(L1(), 2, level_weights=choice)(x, y), expected, rtol=1e-6, atol=1e-7)


def test_parts_are_named_by_level(pair: tuple[Tensor, Tensor]) -> None:
    """A loss of one term gives a part a level, a loss of several gives each of them."""
    loss: LaplacianPyramid = preset("laplacian")
    a, b = (loss.encode(image) for image in pair)
    assert list(loss.parts(a, b)) == ["band0", "band1", "band2", "rest"]
    several = LaplacianPyramid(WeightedSum({"l1": L1(), "l2": L2()}, {"l1": 1.0, "l2": 1.0}), levels=1)
    found = several.parts(*(several.encode(image) for image in pair))
    assert list(found) == ["band0/l1", "band0/l2", "rest/l1", "rest/l2"]
    torch.testing.assert_close(found["band0/l1"], loss.parts(a, b)["band0"])


def test_inner_loss_decides_sizes_and_draws() -> None:
    """The rest has the inner loss's smallest size, and draws reach it."""
    for loss in (cls(PatchSWD(directions=2, redraw_every=1), 2) for cls in (LaplacianPyramid, AveragePyramid)):
        assert (loss.min_side, loss.own_axes) == (28, 2)
        old = loss.encode(torch.rand(3, 28, 28))
        loss.draw(1)
        with pytest.raises(ValueError, match="two draws"):
            loss.compare(old, loss.encode(torch.rand(3, 28, 28)))


@pytest.mark.parametrize("name", ["paper", "ariel"])
def test_former_names_of_weights_tell_the_present_ones(name: str) -> None:
    """Who types what an earlier version took reads what there is now."""
    with pytest.raises(ValueError, match=f"'equal', 'coarse', 'fine', 'fine_scaled', or a list of 4 .*got '{name}'"):
        LaplacianPyramid(L1(), level_weights=name)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="list of 4 numbers, got"):
        LaplacianPyramid(L1(), level_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="levels is 1 or more, got 0"):
        AveragePyramid(L1(), levels=0)
    with pytest.raises(ValueError, match="kernel is 'binomial', 'gaussian', 'glo', got 'box'"):
        LaplacianPyramid(L1(), kernel="box")
    with pytest.raises(ValueError, match="sigma is more than 0 pixels, got 0"):
        LaplacianPyramid(L1(), kernel="gaussian", sigma=0)
