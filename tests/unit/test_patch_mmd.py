"""MMD between all patches of two images: whole Gram matrices of small images, and the linear kernel's closed form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.config import build, load, plain
from losslab.losses import patches as tiling
from losslab.losses.kernels import ArcCosine, Gaussian, InverseMultiquadric, Kernel
from losslab.losses.patch_mmd import LinearPatchMMD, PatchMMD

Form = Callable[[Tensor], Tensor]

KERNELS: dict[str, Form] = {
    "patch_mmd": lambda squares: (-squares / (2 * (0.05 * 49) ** 2)).exp(),
    "patch_mmd_multi": lambda squares: torch.stack(
        [(-squares / (2 * (sigma * 49) ** 2)).exp() for sigma in (0.1, 0.05, 0.025, 0.01)]
    ).sum(0),
    "patch_mmd_imq": lambda squares: 1 / (1 + squares).sqrt(),
    "patch_mmd_linear": lambda squares: -squares / 2,  # p · q, less what depends on one side only
}


def whole_gram(x: Tensor, y: Tensor, form: Form, size: int, stride: int, *, remove_mean: bool = False) -> Tensor:
    """Give the squared MMD of two images from the kernel of all their patches, as one matrix with signs."""
    sides = []
    for image in (x, y):
        patches = functional.unfold(2 * image[None] - 1, size, stride=stride)[0].T
        if remove_mean:
            channels = patches.unflatten(1, (-1, size**2))
            patches = (channels - channels.mean(2, keepdim=True)).flatten(1)
        sides.append(patches)
    signs = torch.cat(
        [
            torch.full((len(side),), sign / len(side), dtype=torch.float64)
            for side, sign in zip(sides, (1, -1), strict=True)
        ]
    )
    both = torch.cat(sides)
    return signs @ form((both[:, None] - both).square().sum(-1)) @ signs


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_whole_gram(name: str, stride: int) -> None:
    """Each shipped loss and its gradient are those of the matrix that it avoids, to 1e-10."""
    loss = build(plain(load(f"loss={name}", f"loss.stride={stride}"))["loss"])
    x, y = torch.rand(2, 3, 17, 12).double().requires_grad_(), 0.6 * torch.rand(2, 3, 17, 12).double()
    expected = torch.stack([whole_gram(a, b, KERNELS[name], 7, stride) for a, b in zip(x, y, strict=True)])
    found = loss(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    mine, theirs = (torch.autograd.grad(one.sum(), x)[0] for one in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_means_are_of_each_patch() -> None:
    """Mean removal looks at one patch, not at its image or its neighbours in the batch."""
    x, y = torch.rand(2, 3, 9, 9).double(), torch.rand(2, 3, 9, 9).double()
    loss = PatchMMD(3, kernel=Gaussian([0.2]), remove_mean=True)
    expected = [
        whole_gram(a, b, lambda squares: (-squares / (2 * 1.8**2)).exp(), 3, 1, remove_mean=True)
        for a, b in zip(x, y, strict=True)
    ]
    torch.testing.assert_close(loss(x, y), torch.stack(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", [Gaussian([0.2]), InverseMultiquadric(), ArcCosine(2, unit_norm=False)])
def test_tiles_that_do_not_divide(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    """What fills up the last tile cancels, in the value and in the gradient."""
    x, y = torch.rand(1, 3, 13, 12).double().requires_grad_(), torch.rand(1, 3, 13, 12).double()
    loss = PatchMMD(3, kernel=kernel)
    whole = loss(x, y)
    monkeypatch.setattr(tiling, "TILE", 40)
    tiling._pairs.cache_clear()
    tiled = loss(x, y)
    assert loss.patches.cut(x).shape == (1, 3, 27, 37)  # of 110 patches
    tiling._pairs.cache_clear()
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-12)
    mine, theirs = (torch.autograd.grad(one.sum(), x)[0] for one in (tiled, whole))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_linear_kernel_sees_the_mean_patch_only() -> None:
    """A checkerboard and its inverse differ in their patches, and not in the mean of patches two pixels wide."""
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).expand(1, 3, 8, 8).float()
    assert LinearPatchMMD(2)(board[..., :7, :7], (1 - board)[..., :7, :7]).abs() < 1e-12
    assert PatchMMD(2, 2)(board, 1 - board) > 0.5
    assert LinearPatchMMD(2, 2)(board, 1 - board) == pytest.approx(2 * 2 * 3 * 4)


def test_shuffled_tiles_are_seen_by_stride_one_only() -> None:
    """Patches across the borders of tiles tell an image from its shuffled tiles."""
    tiles = torch.rand(16, 3, 7, 7)
    x, y = (
        one.unflatten(0, (4, 4)).permute(2, 0, 3, 1, 4).reshape(1, 3, 28, 28)
        for one in (tiles, tiles[torch.randperm(16)])
    )
    assert PatchMMD(stride=7)(x, y).abs() < 1e-7
    assert PatchMMD(stride=1)(x, y) > 1e-4


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got 0 and 1"):
        PatchMMD(0)
    with pytest.raises(ValueError, match="at least 1 pixel, got 7 and 0"):
        LinearPatchMMD(7, 0)
