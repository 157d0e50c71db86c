"""The random-feature MMD and MMD++ are what their formulas say."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from losslab.losses import random_features
from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.mmdpp import MMDpp
from losslab.losses.patch import PatchRBF

BANDWIDTH = 0.06 * 9


def windows_of_patches(image: Tensor, *, remove_mean: bool | str) -> Tensor:
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
                        patch = patch - (patch.mean() if remove_mean == "patch" else patch.mean((1, 2), keepdim=True))
                    patches.append(patch.flatten())
            windows.append(torch.stack(patches))
    return torch.stack(windows)


def half_squared_mmd(x: Tensor, y: Tensor, *, remove_mean: bool | str = True) -> float:
    """Give ½ MMD² with the exact kernel, averaged over windows."""
    p, q = (windows_of_patches(image.double(), remove_mean=remove_mean) for image in (x, y))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square() / (2 * BANDWIDTH**2)).exp().mean(dim=(1, 2))

    return 0.5 * float((kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)).mean())


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    smooth = functional.avg_pool2d(torch.rand(1, 3, 50, 50), 3, 1)
    return smooth, torch.rand(1, 3, 48, 48) * 0.3 + 0.5 * smooth


@pytest.mark.parametrize("remove_mean", [True, False, "patch"])
def test_approaches_the_exact_kernel(pair: tuple[Tensor, Tensor], remove_mean: bool | str) -> None:
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


@pytest.mark.parametrize("remove_mean", [True, "patch"])
def test_features_against_loops(pair: tuple[Tensor, Tensor], remove_mean: bool | str) -> None:
    """Filters without mean on plain patches are whole filters on mean-free patches, pooled in two steps or in one."""
    loss, whole = RandomFeatureMMD(5, remove_mean=remove_mean), RandomFeatureMMD(5, remove_mean=False)
    patches = windows_of_patches(pair[0], remove_mean=remove_mean)
    expected = torch.cos(patches @ whole.filters.flatten(1).T + whole.phases).mean(1)
    found = loss.encode(pair[0]).value[0].flatten(1).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_window_positions_of_an_odd_size() -> None:
    """Windows start at multiples of the stride and never leave the image."""
    assert RandomFeatureMMD(4).encode(torch.rand(1, 3, 32, 47)).value.shape == (1, 4, 1, 1)
    assert RandomFeatureMMD(4).encode(torch.rand(1, 3, 48, 65)).value.shape == (1, 4, 2, 3)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"pairs": True},
    {"sigma": [0.03, 0.06]},
    {"sigma": [0.1, 0.02, 0.05], "pairs": True},
    {"orthogonal": True, "remove_mean": False},
    {"window": None},
    {"window": 20, "stride": 12},
    {"window": 7, "stride": 3, "patch_stride": 4, "patch_size": 5},
    {"border": "none", "patch_size": 4, "patch_stride": 4, "window": None},
    {"patch_size": 1, "remove_mean": False, "window": 8, "stride": 16},
    {"patch_size": 7, "window": 9, "stride": 6, "patch_stride": 2},
]


def in_one_piece(loss: RandomFeatureMMD, image: Tensor) -> Tensor:
    """Give the windows' features as one expression: all patches, all features, one pooling."""
    recipe = loss.recipe
    padded = functional.pad(2 * image - 1, (recipe.border,) * 4, mode="reflect") if recipe.border else 2 * image - 1
    maps = []
    for bandwidth in loss.bandwidths:
        filters = loss.filters * (loss.bandwidths[-1] / bandwidth)
        angle = functional.conv2d(padded, filters, stride=recipe.patch_stride) + loss.phases[:, None, None]
        maps += [angle.cos(), angle.sin()] if recipe.pairs else [angle.cos()]
    features = torch.cat(maps, dim=1)
    if recipe.window is None:
        return features.mean(dim=(-2, -1), keepdim=True)
    return functional.avg_pool2d(features, recipe.window, recipe.stride)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_chunks_and_recomputation_change_nothing(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values to 1e-5 and gradients to 1e-4 of the plain form, with images and features in several chunks."""
    monkeypatch.setitem(random_features.VALUES_A_CHUNK, True, 150_000)  # a few images
    x, y = torch.rand(5, 3, 41, 38), torch.rand(5, 3, 41, 38)
    loss = RandomFeatureMMD(130, **settings)
    torch.testing.assert_close(loss.encode(x).value, in_one_piece(loss, x), rtol=1e-4, atol=2e-6)
    plain = random_features.plain_mean_features(x, loss.filters, loss.phases, loss.recipe).flatten(1, 2)
    torch.testing.assert_close(plain, in_one_piece(loss, x), rtol=1e-4, atol=2e-6)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    distance = loss(ours, y)
    expected = (in_one_piece(loss, theirs) - in_one_piece(loss, y)).square().mean(dim=(-3, -2, -1))
    torch.testing.assert_close(distance, expected, rtol=1e-5, atol=0)
    weights = torch.rand(5)
    found, wanted = (torch.autograd.grad((weights * d).sum(), leaf)[0]
                     for d, leaf in ((distance, ours), (expected, theirs)))  # fmt: skip
    assert (found - wanted).norm() < 1e-4 * wanted.norm()
    again = torch.autograd.grad((weights * loss(ours, y)).sum(), ours, create_graph=True)[0]
    assert (again - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("settings", SETTINGS[:6], ids=str)
def test_first_and_second_derivative(settings: dict[str, Any]) -> None:
    """The recomputed gradient is that of the value, and can itself be differentiated."""
    loss = RandomFeatureMMD(6, 3, **{"window": 4, "stride": 2, **settings}).double()
    x, y = (torch.rand(2, 3, 5, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(loss, (x, y))
    assert torch.autograd.gradgradcheck(loss, (x, y), fast_mode=True)


@pytest.mark.parametrize("settings", [{}, {"window": 7, "stride": 3}, {"window": None, "pairs": True}], ids=str)
def test_saved_memory_is_one_image(settings: dict[str, Any]) -> None:
    """What is kept for the backward pass is the image and the filters, also where windows share no blocks."""
    x, loss = torch.rand(4, 3, 64, 64), RandomFeatureMMD(512, **settings)

    def saved(function: Callable[[Tensor], Tensor]) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = function(x.clone().requires_grad_())
        assert out.requires_grad
        return sum(kept.values())

    own = sum(tensor.nbytes for tensor in (x, loss.filters, loss.phases))
    assert saved(lambda leaf: loss.encode(leaf).value) == own
    assert 50 * own < saved(lambda leaf: in_one_piece(loss, leaf))


@pytest.mark.parametrize(("shape", "patch_size"), [((16, 3, 64, 64), 3), ((1, 3, 512, 512), 3), ((2, 3, 128, 128), 11)])
def test_no_tensor_is_larger_than_a_chunk(
    shape: tuple[int, ...], patch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward make no tensor of more values than a chunk may have, whatever the images' size."""
    monkeypatch.setitem(random_features.VALUES_A_CHUNK, True, 2**20)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max([largest, *(one.numel() for one in pytree.tree_leaves(out) if isinstance(one, Tensor))])
            return out

    loss, x = RandomFeatureMMD(128, patch_size), torch.rand(shape).requires_grad_()
    with Watch():
        loss.encode(x).value.sum().backward()
    assert largest <= 1.2 * max(2**20, 3 * (shape[-1] + 10) ** 2 * shape[0], 27 * shape[-1] ** 2)


def spread(pair: tuple[Tensor, Tensor], features: int, **settings: Any) -> float:
    """Give the root mean square error of the loss over 48 draws."""
    exact = half_squared_mmd(*pair)
    draws = [float(RandomFeatureMMD(features, seed=seed, **settings)(*pair)) - exact for seed in range(48)]
    assert abs(sum(draws)) / 48 < 4 * math.sqrt(sum(draw**2 for draw in draws)) / 48  # no bias
    return math.sqrt(sum(draw**2 for draw in draws) / 48)


def test_pairs_and_orthogonal_filters_have_the_same_expectation(pair: tuple[Tensor, Tensor]) -> None:
    """Half the filters with cosine and sine are no worse than all with phases; nor are orthogonal ones."""
    iid = spread(pair, 64)
    assert spread(pair, 64, pairs=True) < 1.25 * iid
    assert spread(pair, 64, orthogonal=True) < 1.25 * iid


def test_one_mean_of_all_channels_sees_colours_and_no_brightness() -> None:
    """A shift of all channels alike is nothing, one of a single channel is much; each channel's own mean hides both."""
    x = 0.2 + 0.1 * torch.rand(1, 3, 34, 34)
    red = x + torch.tensor([0.4, 0.0, 0.0])[:, None, None]
    one, own = RandomFeatureMMD(64, remove_mean="patch"), RandomFeatureMMD(64)
    assert float(one(x, x + 0.4)) < 1e-9
    assert max(float(own(x, x + 0.4)), float(own(x, red))) < 1e-9
    assert float(one(x, red)) > 0.01
    with pytest.raises(ValueError, match="remove_mean is true, false or 'patch', got 'channel'"):
        RandomFeatureMMD(4, remove_mean="channel")


@pytest.mark.parametrize(("remove_mean", "dimensions"), [(False, 27), (True, 24), ("patch", 26)])
def test_orthogonal_filters(remove_mean: bool | str, dimensions: int) -> None:
    """Filters of a group are orthogonal, those of two groups are not, and lengths are those of normal vectors."""
    loss = RandomFeatureMMD(2 * dimensions, orthogonal=True, remove_mean=remove_mean, seed=3)
    filters = loss.filters.flatten(1).double() * loss.bandwidths[0]
    products = filters @ filters.T
    off = products - products.diagonal().diag()
    assert off[:dimensions, :dimensions].abs().max() < 1e-4
    assert off[:dimensions, dimensions:].abs().max() > 1
    assert abs(float(products.diagonal().mean()) - dimensions) < 4
    if remove_mean:
        means = loss.filters.mean(dim=(-3, -2, -1) if remove_mean == "patch" else (-2, -1))
        assert means.abs().max() < 1e-6


def test_orthogonal_filters_are_uniform() -> None:
    """No direction is preferred: over many draws the numbers of a filter have mean 0 and covariance 1."""
    draws = torch.stack([
        RandomFeatureMMD(4, orthogonal=True, remove_mean=False, seed=seed).filters.flatten() for seed in range(600)
    ]) * (0.06 * 9)  # fmt: skip
    assert draws.mean(0).abs().max() < 5 / math.sqrt(600)
    assert (draws.square().mean(0) - 1).abs().max() < 5 * math.sqrt(2 / 600)


def test_several_bandwidths_are_the_mean_of_the_kernels(pair: tuple[Tensor, Tensor]) -> None:
    """A list of bandwidths gives the mean of the losses that each one gives with the same filters."""
    each = [RandomFeatureMMD(32, sigma=sigma, seed=5)(*pair) for sigma in (0.03, 0.06)]
    torch.testing.assert_close(RandomFeatureMMD(32, sigma=[0.03, 0.06], seed=5)(*pair), sum(each) / 2)


@pytest.mark.parametrize(
    "other",
    [{"sigma": 0.01}, {"border": "none"}, {"seed": 1}, {"remove_mean": False}, {"remove_mean": "patch"},
     {"pairs": True}, {"stride": 8}, {"orthogonal": True}],
    ids=str,
)  # fmt: skip
def test_encodings_of_two_settings_are_refused(other: dict[str, Any]) -> None:
    """A distance between features of different filters or windows would be noise."""
    x = torch.rand(1, 3, 34, 34)
    with pytest.raises(ValueError, match="two draws|different"):
        RandomFeatureMMD(4).compare(RandomFeatureMMD(4).encode(x), RandomFeatureMMD(4, **other).encode(x))


@pytest.mark.parametrize(
    ("settings", "side"),
    [({}, 32), ({"window": None, "patch_size": 11}, 6), ({"window": None, "border": "none"}, 3),
     ({"window": 5, "patch_stride": 4}, 17), ({"window": 5, "border": "none", "patch_size": 4, "patch_stride": 2}, 12)],
    ids=str,
)  # fmt: skip
def test_smallest_side(settings: dict[str, Any], side: int) -> None:
    """The smallest legal image has one window, and one pixel less is refused."""
    loss = RandomFeatureMMD(4, **settings)
    assert loss.min_side == side
    assert loss.encode(torch.rand(1, 3, side, side)).value.shape == (1, 4, 1, 1)
    with pytest.raises(ValueError, match=f"at least {side}×{side} pixels"):
        loss.encode(torch.rand(1, 3, side, side - 1))


def test_redrawing_spares_a_backward_pass_to_come() -> None:
    """A draw between forward and backward changes no gradient."""
    x, y = torch.rand(1, 3, 32, 32).requires_grad_(), torch.rand(1, 3, 32, 32)
    loss = RandomFeatureMMD(8, redraw_every=1)
    expected = torch.autograd.grad(loss(x, y).sum(), x)[0]
    distance = loss(x, y).sum()
    loss.draw(1)
    assert torch.equal(torch.autograd.grad(distance, x)[0], expected)


def test_autocast_leaves_the_digits_of_value_and_gradient() -> None:
    """Angles of ten radians would lose their digits in 16 bits, on the way forth and on the way back."""
    loss, x = RandomFeatureMMD(8), torch.rand(1, 3, 32, 32).requires_grad_()

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        means = random_features.mean_features(x, loss.filters, loss.phases, loss.recipe)
        return means, torch.autograd.grad(means.sum(), x)[0]

    expected = value_and_gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradient()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_seed_decides() -> None:
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert torch.equal(RandomFeatureMMD(8, seed=1)(x, y), RandomFeatureMMD(8, seed=1)(x, y))
    assert not torch.equal(RandomFeatureMMD(8, seed=1)(x, y), RandomFeatureMMD(8, seed=2)(x, y))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="are 1 or more, got 3, 1, 32 and 0"):
        RandomFeatureMMD(stride=0)
    with pytest.raises(ValueError, match="'reflect' or 'none', got 'zero'"):
        RandomFeatureMMD(border="zero")
    with pytest.raises(ValueError, match="even number of features, got 7"):
        RandomFeatureMMD(7, pairs=True)
    with pytest.raises(ValueError, match="more than 0, got 512 and 0"):
        RandomFeatureMMD(sigma=0)
    with pytest.raises(ValueError, match="more than 0, got 0 and"):
        RandomFeatureMMD(features=0)
    with pytest.raises(ValueError, match="are 1 or more, got 3, 1, 0 and 16"):
        RandomFeatureMMD(window=0)
    with pytest.raises(ValueError, match="more than 0, got 512 and nan"):
        RandomFeatureMMD(sigma=math.nan)
    with pytest.raises(ValueError, match="redraw_every is a number of steps"):
        RandomFeatureMMD(redraw_every=-1)
    with pytest.raises(ValueError, match="one pixel has nothing left"):
        RandomFeatureMMD(patch_size=1)
    with pytest.raises(ValueError, match="odd"):
        RandomFeatureMMD(patch_size=4)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        RandomFeatureMMD(4).encode(torch.rand(1, 1, 32, 32))


def test_mmdpp_is_its_three_terms(pair: tuple[Tensor, Tensor]) -> None:
    """0.001 · L2 + 0.05 · PatchRBF(3, 0.1) + 1 · MMD(3, 0.06, 512), for images in [-1, 1]."""
    x, y = pair
    loss = MMDpp()
    parts = loss.parts(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(parts["l2"], 0.001 * (2 * x - 2 * y).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(parts["local"], 0.05 * PatchRBF(3, 0.1)(x, y))
    torch.testing.assert_close(parts["mmd"], RandomFeatureMMD(512, 3, 0.06, 32, 16)(x, y))
    torch.testing.assert_close(loss(x, y), parts["l2"] + parts["local"] + parts["mmd"])


def test_mmdpp_hands_its_settings_on(pair: tuple[Tensor, Tensor]) -> None:
    """Every argument reaches its term, the draws too."""
    x, y = pair
    weights = {"l2": 0.5, "local": 2.0, "mmd": 3.0}
    loss = MMDpp(16, weights, 5, 0.2, 0.04, seed=3, redraw_every=2, window=8, stride=4)
    mmd = RandomFeatureMMD(16, 3, 0.04, 8, 4, seed=3, redraw_every=2)
    assert loss.min_side == 8
    for step in (0, 2):
        loss.draw(step)
        mmd.draw(step)
        parts = loss.parts(loss.encode(x), loss.encode(y))
        torch.testing.assert_close(parts["l2"], 0.5 * (2 * x - 2 * y).square().mean(dim=(1, 2, 3)))
        torch.testing.assert_close(parts["local"], 2 * PatchRBF(5, 0.2)(x, y))
        torch.testing.assert_close(parts["mmd"], 3 * mmd(x, y))
