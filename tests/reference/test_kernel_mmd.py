"""Exact MMD against geomloss, window by window, and Gabor and Prewitt filters against scikit-image."""

import math

import numpy as np
import pytest
import torch
from geomloss import SamplesLoss
from skimage.filters import gabor_kernel, prewitt_h, prewitt_v
from torch.nn import functional

from losslab.losses.exact_mmd import ExactMMD
from losslab.losses.kernels import Gaussian
from losslab.losses.patch_mmd import PatchMMD
from losslab.networks.banks import FilterBank, gabor, prewitt


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.06), (3, 0.03), (5, 0.05)])
def test_geomloss_in_windows(size: int, sigma: float) -> None:
    """Half the squared MMD of mean-free patches in [-1, 1] is geomloss' Gaussian loss of blur sigma · p², to 1e-9."""
    x, y = torch.rand(1, 3, 40, 53).double(), 0.7 * torch.rand(1, 3, 40, 53).double()
    theirs = SamplesLoss("gaussian", blur=sigma * size**2, backend="tensorized")
    sides = []
    for image in (x, y):
        padded = functional.pad(2 * image - 1, (size // 2,) * 4, mode="reflect")
        patches = functional.unfold(padded, size).unflatten(1, (3, size**2))
        grid = (patches - patches.mean(2, keepdim=True)).flatten(1, 2).unflatten(2, (40, 53))[0]
        windows = grid.unfold(1, 16, 8).unfold(2, 16, 8)
        sides.append(windows.permute(1, 2, 3, 4, 0).flatten(2, 3).flatten(0, 1))
    expected = torch.stack([theirs(p, q) for p, q in zip(*sides, strict=True)]).mean()
    found = ExactMMD(size, Gaussian([sigma]), window=16, stride=8)(x, y)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=0)


def test_geomloss_on_whole_images() -> None:
    """The squared MMD of all patches is twice geomloss' Gaussian loss, gradient included, to 1e-8."""
    x, y = torch.rand(1, 3, 20, 23).double().requires_grad_(), torch.rand(1, 3, 20, 23).double()
    p, q = (functional.unfold(2 * image - 1, 7)[0].T.contiguous() for image in (x, y))
    expected = 2 * SamplesLoss("gaussian", blur=0.05 * 49, backend="tensorized")(p, q)
    found = PatchMMD()(x, y)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=0)
    mine, theirs = (torch.autograd.grad(one.sum(), x)[0] for one in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_gabor_is_that_of_scikit_image() -> None:
    """Up to scikit-image's normalisation by 2π σ², all 64 filters agree to 1e-6; its kernels are cut to our size."""
    index, filters = 0, gabor()
    for angle in range(8):
        for sigma in (2.2, 4.4):
            for wavelength in (2.75, 5.5):
                for aspect in (1, 2):
                    kernel = gabor_kernel(1 / wavelength, angle * math.pi / 8, sigma_x=sigma, sigma_y=sigma / aspect,
                                          n_stds=8, offset=math.pi)  # fmt: skip
                    scaled = np.real(kernel) * 2 * math.pi * sigma**2 / aspect
                    rows, columns = (side // 2 for side in scaled.shape)
                    expected = scaled[rows - 5 : rows + 6, columns - 5 : columns + 6]
                    np.testing.assert_allclose(filters[index].numpy(), expected, atol=1e-6)
                    index += 1


def test_prewitt_is_that_of_scikit_image() -> None:
    """Inside the border, ours is three times scikit-image's mean of differences, to 1e-6; it mirrors its filters."""
    x = torch.rand(1, 9, 12)
    bank = FilterBank("edges", {"response": "", "relu": "", "pool": ""}, [], "response", prewitt(), pad=False)
    found = bank.read(x)["response"].numpy()
    signed = (2 * x[0] - 1).numpy()
    for response, theirs in zip(found, (prewitt_h(signed), prewitt_v(signed)), strict=True):
        np.testing.assert_allclose(response, -3 * theirs[1:-1, 1:-1], atol=1e-6)
