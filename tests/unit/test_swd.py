"""PatchSWD sorts what its formula says, and its gradient goes back to where each value came from."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.config import build, load, plain
from losslab.losses.patch import PatchRBF
from losslab.losses.pixel import L2
from losslab.losses.swd import PatchSWD
from losslab.types import Drawn


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 15, 12), torch.rand(2, 3, 15, 12)


def plain_swd(loss: PatchSWD, x: Tensor, y: Tensor) -> Tensor:
    """Project unfolded patches, sort with torch, compare: (N,)."""
    if loss.border:
        x, y = (functional.pad(image, (loss.border,) * 4, mode="reflect") for image in (x, y))
    p, q = (
        (loss.filters.flatten(1) @ functional.unfold(image, loss.patch_size, stride=loss.stride)).sort(dim=-1)[0]
        for image in (x, y)
    )
    return (p - q).abs().mean(dim=(1, 2)) if loss.norm == "l1" else (p - q).square().mean(dim=(1, 2))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(("stride", "pad"), [(1, False), (2, True)])
def test_value_and_gradient_are_those_of_plain_torch(
    norm: str, stride: int, pad: bool, pair: tuple[Tensor, Tensor]
) -> None:
    """Chunks of directions, NumPy's order and the border change nothing; 35 directions are two chunks and a rest."""
    loss = PatchSWD(4, stride, 35, norm, pad=pad).double()
    x, y = (image.double().requires_grad_() for image in pair)
    found, expected = loss(x, y), plain_swd(loss, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(value.square().sum(), (x, y)) for value in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_gradient_has_a_gradient(pair: tuple[Tensor, Tensor]) -> None:
    """Whoever needs it twice, as a penalty on gradients does, gets the right one."""
    loss = PatchSWD(3, directions=4, norm="l2").double()
    x, y = pair[0][:1, :, :5, :5].double().requires_grad_(), pair[1][:1, :, :5, :5].double()
    assert torch.autograd.gradgradcheck(loss, (x, y))


def test_many_patches_keep_their_order() -> None:
    """More patches than 16 bits can count are still taken back to their places."""
    x = torch.rand(3, 190, 190, requires_grad=True)  # 35344 patches, 2^15 = 32768
    loss = PatchSWD(3, directions=1)
    found, expected = (value(x[None], torch.zeros(1, 3, 190, 190)) for value in (loss, lambda *a: plain_swd(loss, *a)))
    one, other = (torch.autograd.grad(value.square().sum(), x)[0] for value in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-10)


def test_directions_have_unit_length_in_signed_images() -> None:
    """The filters are twice unit directions: those of patches in [-1, 1]; a shift of brightness d moves W1 by a sum."""
    loss = PatchSWD(5, directions=9)
    torch.testing.assert_close(loss.filters.square().sum(dim=(1, 2, 3)), torch.full((9,), 4.0))
    x = torch.rand(1, 3, 12, 12) * 0.5
    expected = 0.25 * loss.filters.sum(dim=(1, 2, 3)).abs().mean()
    torch.testing.assert_close(loss(x, x + 0.25), expected[None])


@pytest.mark.parametrize("remove_mean", [True, "patch"])
def test_mean_is_removed_from_each_patch(pair: tuple[Tensor, Tensor], remove_mean: bool | str) -> None:
    """Directions without mean on patches are whole directions on patches without mean."""
    x, y = pair
    whole, less = PatchSWD(5, directions=8), PatchSWD(5, directions=8, remove_mean=remove_mean)
    patches = [functional.unfold(image, 5).unflatten(1, (3, 25)) for image in (x, y)]
    axes = (1, 2) if remove_mean == "patch" else 2
    free = [(one - one.mean(axes, keepdim=True)).flatten(1, 2) for one in patches]
    p, q = ((whole.filters.flatten(1) @ one).sort(dim=-1)[0] for one in free)
    torch.testing.assert_close(less(x, y), (p - q).abs().mean(dim=(1, 2)))
    torch.testing.assert_close(less(x * 0.5, x * 0.5 + 0.3), torch.zeros(2), rtol=0, atol=1e-6)


def test_originals_numbers_are_this_one_times_root_d(pair: tuple[Tensor, Tensor]) -> None:
    """Directions divided by the standard deviation of their entries have a length of nearly √d."""
    loss = PatchSWD(7, directions=64)
    x, y = (2 * image - 1 for image in pair)
    directions = loss.filters.flatten(1)
    original = directions / directions.std(dim=1, keepdim=True)
    p, q = ((original @ functional.unfold(image, 7)).sort(dim=-1)[0] for image in (x, y))
    torch.testing.assert_close((p - q).abs().mean(dim=(1, 2)), 147**0.5 * loss(*pair), rtol=0.01, atol=0)


def test_swdpp_is_its_three_terms() -> None:
    """0.01 · L2 + 0.2 · PatchRBF(11, 0.015) + PatchSWD(11, 5, 128) with directions of length √363, in [-1, 1]."""
    x = torch.rand(2, 3, 32, 32)
    y = torch.lerp(x, torch.rand(2, 3, 32, 32), 0.05)  # far from each other, all patches are alike to the local term
    loss = build(plain(load("loss=swdpp"))["loss"])
    parts = loss.parts(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(parts["l2"], 0.01 * 4 * L2()(x, y))
    torch.testing.assert_close(parts["local"], 0.2 * PatchRBF(11, 0.015)(x, y))
    swd = PatchSWD(11, 5, 128, remove_mean=True)(x, y)
    torch.testing.assert_close(parts["swd"], 363**0.5 * swd, rtol=1e-3, atol=0)


def test_laplacian_swd_weighs_levels_alike() -> None:
    """The preset has two bands and the rest, 512 directions, and no weights."""
    loss = build(plain(load("loss=laplacian_swd"))["loss"])
    assert loss.weights == [1, 1, 1]
    assert loss.loss.filters.shape == (512, 3, 7, 7)


def test_draws_follow_seed_and_step() -> None:
    """Two seeds and two draws differ, and encodings of other directions, patches or borders never compare."""
    x = torch.rand(1, 3, 9, 9)
    loss = PatchSWD(3, directions=4, redraw_every=5)
    first: Drawn[Tensor] = loss.encode(x)
    loss.draw(4)
    assert torch.equal(loss.encode(x).value, first.value)
    loss.draw(5)
    assert not torch.equal(loss.encode(x).value, first.value)
    other = PatchSWD(3, directions=4)
    for options in ({"seed": 1}, {"remove_mean": True}):
        with pytest.raises(ValueError, match="two draws"):
            other.compare(other.encode(x), PatchSWD(3, directions=4, **options).encode(x))


def test_sorting_on_another_device_is_torchs(monkeypatch: pytest.MonkeyPatch, pair: tuple[Tensor, Tensor]) -> None:
    """Without NumPy's order the result is the same."""
    loss = PatchSWD(3, directions=6)
    expected = plain_swd(loss, *pair)
    torch.testing.assert_close(loss(*pair), expected)
    monkeypatch.setattr(np, "argsort", None)
    meta = loss.to("meta")
    assert meta.terms(*(meta.embed(image.to("meta")) for image in pair))["patchswd"].shape == (2,)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="1 or more, got 7, 0 and 256"):
        PatchSWD(stride=0)
    with pytest.raises(ValueError, match="one pixel has nothing left"):
        PatchSWD(1, remove_mean=True)
    with pytest.raises(ValueError, match="'l1' or 'l2', got 'l3'"):
        PatchSWD(norm="l3")
    with pytest.raises(ValueError, match="3 channels, got 1"):
        PatchSWD(directions=1).encode(torch.rand(1, 1, 8, 8))
    assert (PatchSWD(7, directions=1, pad=True).min_side, PatchSWD(7, directions=1).min_side) == (4, 7)
    assert PatchSWD(7, directions=1, pad=True)(torch.rand(3, 4, 4), torch.rand(3, 4, 4)) > 0
