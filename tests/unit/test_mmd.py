"""The random-feature MMD and MMD++ are what their formulas say."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.mmdpp import MMDpp
from losslab.losses.patch import PatchRBF

BANDWIDTH = 0.06 * 9


def windows_of_patches(image: Tensor, *, remove_mean: bool) -> Tensor:
    """Cut each 32×32 window of an image into its 3×3 patches, by loops: (windows, patches, 27) in [-1, 1]."""
    padded = functional.pad(2 * image - 1, (1, 1, 1, 1), mode="reflect")[0]
    _, height, width = image[0].shape
    windows = []
    for top in range(0, height - 31, 16):
        for left in range(0, width - 31, 16):
            patches = []
            for row in range(top, top + 32):
                for column in range(left, left + 32):
                    patch = padded[:, row : row + 3, column : column + 3]
                    if remove_mean:
                        patch = patch - patch.mean(dim=(1, 2), keepdim=True)
                    patches.append(patch.flatten())
            windows.append(torch.stack(patches))
    return torch.stack(windows)


def half_squared_mmd(x: Tensor, y: Tensor, *, remove_mean: bool = True) -> float:
    """Give ½ MMD² with the exact kernel, averaged over windows."""
    p, q = (windows_of_patches(image.double(), remove_mean=remove_mean) for image in (x, y))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square() / (2 * BANDWIDTH**2)).exp().mean(dim=(1, 2))

    return 0.5 * float((kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)).mean())


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    smooth = functional.avg_pool2d(torch.rand(1, 3, 50, 50), 3, 1)
    return smooth, torch.rand(1, 3, 48, 48) * 0.3 + 0.5 * smooth


@pytest.mark.parametrize("remove_mean", [True, False])
def test_approaches_the_exact_kernel(pair: tuple[Tensor, Tensor], remove_mean: bool) -> None:
    """The mean over draws is ½ MMD² under the Gaussian kernel of (mean-free) patches in [-1, 1]."""
    exact = half_squared_mmd(*pair, remove_mean=remove_mean)
    values = torch.stack(
        [RandomFeatureMMD(512, remove_mean=remove_mean, seed=seed)(*pair)[0] for seed in range(24)]
    ).double()
    standard_error = float(values.std()) / math.sqrt(24)
    assert standard_error < 0.03 * exact
    assert abs(float(values.mean()) - exact) < 4 * standard_error


def test_error_falls_as_one_over_root_features(pair: tuple[Tensor, Tensor]) -> None:
    """Sixteen times the features, a quarter of the error."""
    exact = half_squared_mmd(*pair)

    def error(features: int) -> float:
        draws = [float(RandomFeatureMMD(features, seed=100 + seed)(*pair)) - exact for seed in range(48)]
        return math.sqrt(sum(draw**2 for draw in draws) / len(draws))

    assert 2.8 < error(32) / error(512) < 5.6  # 4, within what 48 draws leave open


def test_features_against_loops(pair: tuple[Tensor, Tensor]) -> None:
    """Filters without mean on plain patches are filters on mean-free patches, pooled in two steps or in one."""
    loss = RandomFeatureMMD(5)
    patches = windows_of_patches(pair[0], remove_mean=True)
    # The buffers hold 2w and b - Σw for images in [0, 1]; Σw = 0 here, since the mean is taken off each filter.
    expected = torch.cos(patches @ (loss.filters / 2).flatten(1).T + loss.phases).mean(1)
    found = loss.encode(pair[0]).value[0].flatten(1).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_window_positions_of_an_odd_size() -> None:
    """Windows start at multiples of the stride and never leave the image."""
    assert RandomFeatureMMD(4).encode(torch.rand(1, 3, 32, 47)).value.shape == (1, 4, 1, 1)
    assert RandomFeatureMMD(4).encode(torch.rand(1, 3, 48, 65)).value.shape == (1, 4, 2, 3)


def test_chunks_do_not_matter() -> None:
    """More images and features than a chunk holds give what one chunk each gives."""
    x, y = torch.rand(9, 3, 32, 32), torch.rand(9, 3, 32, 32)
    loss = RandomFeatureMMD(130)
    plain = functional.avg_pool2d(
        functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), loss.filters, loss.phases).cos(), 32, 16
    )
    torch.testing.assert_close(loss.encode(x).value, plain, rtol=1e-4, atol=1e-6)
    leaf = x.clone().requires_grad_()
    loss(leaf, y).sum().backward()
    assert leaf.grad is not None
    single = x[8:].clone().requires_grad_()
    loss(single, y[8:]).sum().backward()
    torch.testing.assert_close(leaf.grad[8:], single.grad, rtol=1e-4, atol=1e-9)


def test_seed_decides() -> None:
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert torch.equal(RandomFeatureMMD(8, seed=1)(x, y), RandomFeatureMMD(8, seed=1)(x, y))
    assert not torch.equal(RandomFeatureMMD(8, seed=1)(x, y), RandomFeatureMMD(8, seed=2)(x, y))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of stride"):
        RandomFeatureMMD(window=32, stride=12)
    with pytest.raises(ValueError, match="multiple of stride"):
        RandomFeatureMMD(stride=0)
    with pytest.raises(ValueError, match="more than 0, got 512 and 0"):
        RandomFeatureMMD(sigma=0)
    with pytest.raises(ValueError, match="more than 0, got 0 and"):
        RandomFeatureMMD(features=0)
    with pytest.raises(ValueError, match="two draws"):
        RandomFeatureMMD(4).compare(
            *(RandomFeatureMMD(4, sigma=sigma).encode(torch.rand(1, 3, 32, 32)) for sigma in (0.06, 0.01))
        )
    with pytest.raises(ValueError, match="odd"):
        RandomFeatureMMD(patch_size=4)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        RandomFeatureMMD(4).encode(torch.rand(1, 1, 32, 32))


def test_patch_rbf_against_loops() -> None:
    """The aligned term: a sum of squares over channels and the patch, zeros beyond the border, in [-1, 1]."""
    x, y = torch.rand(1, 3, 6, 7), torch.rand(1, 3, 6, 7)
    squares = functional.pad((2 * x - 2 * y).square().sum(1), (1, 1, 1, 1))[0]
    terms = [
        1 - math.exp(-float(squares[row : row + 3, column : column + 3].sum()) / (2 * 0.9**2))
        for row in range(6)
        for column in range(7)
    ]
    torch.testing.assert_close(PatchRBF(3, 0.1)(x, y), torch.tensor([sum(terms) / 42]))


def test_mmdpp_is_its_three_terms(pair: tuple[Tensor, Tensor]) -> None:
    """0.001 · L2 + 0.05 · PatchRBF(3, 0.1) + 1 · MMD(3, 0.06, 512), for images in [-1, 1]."""
    x, y = pair
    loss = MMDpp()
    parts = loss.parts(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(parts["l2"], 0.001 * (2 * x - 2 * y).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(parts["local"], 0.05 * PatchRBF(3, 0.1)(x, y))
    torch.testing.assert_close(parts["mmd"], RandomFeatureMMD(512, 3, 0.06, 32, 16)(x, y))
    torch.testing.assert_close(loss(x, y), parts["l2"] + parts["local"] + parts["mmd"])
