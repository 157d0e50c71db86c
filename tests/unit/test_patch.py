"""Aligned patch losses, computed by boxes, are what cutting out every patch gives."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.losses.patch import SIMILARITIES, PatchRBF

SETTINGS: list[dict[str, Any]] = [
    {},
    {"patch_size": 11, "sigma": 0.02},
    {"patch_size": 7, "sigma": 0.04, "remove_mean": True},
    {"patch_size": 3, "sigma": 0.1, "kernel": "laplacian", "stride": 2},
    {"patch_size": 3, "sigma": 0.06, "kernel": "simple", "border": "none"},
    {"patch_size": 4, "sigma": 0.06, "border": "none", "stride": 3, "remove_mean": True},
    {"patch_size": 5, "sigma": 0.02, "unit_norm": True},
    {"patch_size": 3, "sigma": 0.1, "remove_mean": "patch"},
    {"patch_size": 5, "sigma": 0.02, "unit_norm": True, "remove_mean": "patch"},
    {"patch_size": 9, "sigma": 0.01, "unit_norm": True, "remove_mean": True, "stride": 2, "kernel": "laplacian"},
]


def patches(loss: PatchRBF, images: Tensor) -> Tensor:
    """Cut out every patch: (N, C, numbers, patches)."""
    cut = functional.unfold(2 * images - 1, loss.patch_size, padding=loss.padding, stride=loss.stride)
    found = cut.unflatten(1, (images.shape[1], -1))
    if loss.remove_mean:
        found = found - found.mean((1, 2) if loss.remove_mean == "patch" else 2, keepdim=True)
    if loss.unit_norm:
        found = found / (found.square().sum((1, 2), keepdim=True) + loss.eps**2).sqrt()
    return found


def by_unfolding(loss: PatchRBF, x: Tensor, y: Tensor) -> Tensor:
    squares = (patches(loss, x) - patches(loss, y)).square().sum((1, 2))
    s = loss.bandwidth
    kernels = {
        "gaussian": lambda d: (-d / (2 * s**2)).exp(),
        "laplacian": lambda d: (-d.clamp(min=1e-20).sqrt() / s).exp(),
        "simple": lambda d: (-d / s).exp(),
    }
    return 1 - kernels[loss.kernel](squares).mean(-1)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_boxes_are_unfolding(settings: dict[str, Any], channels: int) -> None:
    """Values to 1e-10 and gradients to 1e-8 in float64."""
    loss = PatchRBF(**settings)
    x, y = (torch.rand(3, channels, 13, 16, dtype=torch.float64).requires_grad_() for _ in range(2))
    found, expected = loss(x, y), by_unfolding(loss, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert (found > 0.01).all()
    weights = torch.rand(3, dtype=torch.float64)
    for ours, theirs in zip(
        *(torch.autograd.grad((weights * d).sum(), (x, y)) for d in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_against_loops() -> None:
    """The aligned term of MMD++: a sum of squares over channels and the patch, zeros beyond the border, in [-1, 1]."""
    x, y = torch.rand(1, 3, 6, 7), torch.rand(1, 3, 6, 7)
    squares = functional.pad((2 * x - 2 * y).square().sum(1), (1, 1, 1, 1))[0]
    terms = [
        1 - math.exp(-float(squares[row : row + 3, column : column + 3].sum()) / (2 * 0.9**2))
        for row in range(6)
        for column in range(7)
    ]
    torch.testing.assert_close(PatchRBF(3, 0.1)(x, y), torch.tensor([sum(terms) / 42]))


def test_mean_removal_hides_a_shift_of_colour() -> None:
    x = 0.5 * torch.rand(2, 3, 20, 20)
    shifted = x + torch.tensor([0.1, 0.3, 0.2])[:, None, None]
    # Beyond the border both are padded with the same zeros, so a shift is seen there unless only inner patches count.
    blind = PatchRBF(5, 0.02, border="none", remove_mean=True)
    torch.testing.assert_close(blind(x, shifted), torch.zeros(2), rtol=0, atol=1e-5)
    assert (PatchRBF(5, 0.02, border="none")(x, shifted) > 0.1).all()


def test_unit_norm_hides_contrast() -> None:
    """Patches that differ by a factor only are equal once their norms are one."""
    x = torch.rand(2, 3, 20, 20)
    faded = 0.5 + 0.5 * (x - 0.5)
    assert (PatchRBF(5, 0.02, unit_norm=True)(x, faded) < 1e-4).all()
    assert (PatchRBF(5, 0.02)(x, faded) > 0.05).all()


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_flat_patches_of_unit_norm(kernel: str) -> None:
    """Grey has no norm: the distance is zero to itself, and its gradient is a number."""
    loss = PatchRBF(3, 0.02, kernel, unit_norm=True, remove_mean=True)
    grey = torch.full((1, 3, 9, 9), 0.5, requires_grad=True)
    distance = loss(grey, torch.full((1, 3, 9, 9), 0.5))
    distance.sum().backward()
    torch.testing.assert_close(distance, torch.zeros(1), rtol=0, atol=1e-6)
    assert grey.grad is not None
    assert grey.grad.isfinite().all()


@pytest.mark.parametrize("remove_mean", [True, False])
def test_low_contrast_keeps_its_digits(remove_mean: bool) -> None:
    """In 32 bits, patches of unit norm that are nearly flat and white have the digits of 64 bits to 1e-3."""
    loss = PatchRBF(11, 0.001, "laplacian", unit_norm=True, remove_mean=remove_mean, eps=1e-4)
    x, y = (0.99 + 0.004 * torch.rand(1, 3, 20, 20) for _ in range(2))
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype).requires_grad_()
        distance = loss(leaf, y.to(dtype))
        found.append((distance.double(), torch.autograd.grad(distance.sum(), leaf)[0].double()))
    (value, gradient), (exact, slope) = found
    torch.testing.assert_close(value, exact, rtol=1e-3, atol=0)
    assert (gradient - slope).norm() < 1e-3 * slope.norm()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one of gaussian, laplacian, simple, got 'rbf'"):
        PatchRBF(kernel="rbf")
    with pytest.raises(ValueError, match="'zero' or 'none', got 'reflect'"):
        PatchRBF(border="reflect")
    with pytest.raises(ValueError, match="odd number of pixels where the border is padded, got 4"):
        PatchRBF(4)
    with pytest.raises(ValueError, match="are more than 0, got 0"):
        PatchRBF(stride=0)
    with pytest.raises(ValueError, match="one pixel has nothing left"):
        PatchRBF(1, remove_mean=True)
    with pytest.raises(ValueError, match="true, false or 'patch', got 'each'"):
        PatchRBF(remove_mean="each")


@pytest.mark.parametrize("settings", [{}, {"patch_size": 5, "unit_norm": True, "kernel": "laplacian"}], ids=str)
def test_maps_are_the_patches(settings: dict[str, Any]) -> None:
    """At each pixel, one minus the kernel of the patches around it; their mean is the distance."""
    x, y = torch.rand(2, 3, 12, 14), torch.rand(1, 3, 12, 14)
    loss = PatchRBF(**settings)
    found = loss.maps(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y))
    size = loss.patch_size
    squares = (patches(loss, x[1:]) - patches(loss, y)).square().sum((1, 2)).reshape(12, 14)
    one = SIMILARITIES[loss.kernel](squares[4, 6], loss.bandwidth)
    torch.testing.assert_close(found[1, 0, 4, 6], 1 - one, rtol=1e-4, atol=1e-6)
    assert found.shape == (2, 1, 12, 14)
    for bad in (PatchRBF(size, stride=2), PatchRBF(size, border="none")):
        with pytest.raises(ValueError, match="a patch around each pixel with stride 1 and border zero, got stride"):
            bad.maps(bad.encode(x), bad.encode(y))
