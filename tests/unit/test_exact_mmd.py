"""The exact MMD: tiles, shared blocks and analytic slopes give what each window by itself gives."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from losslab.losses import mean_kernel
from losslab.losses import patches as tiling
from losslab.losses.exact_mmd import ExactMMD
from losslab.losses.kernels import ArcCosine, Gaussian, InverseMultiquadric, Kernel
from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.patch_mmd import PatchMMD
from losslab.losses.patches import Patches

Form = Callable[[Tensor, Tensor], Tensor]
exactly = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


def gaussian(p: Tensor, q: Tensor, widths: tuple[float, ...] = (0.54,)) -> Tensor:
    squares = torch.cdist(p, q, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([(-squares / (2 * width**2)).exp() for width in widths]).sum(0)


def multiquadric(p: Tensor, q: Tensor) -> Tensor:
    return 0.5 / (0.25 + (p[:, None] - q).square().sum(-1)).sqrt()


def arc_cosine(p: Tensor, q: Tensor, depth: int = 7, *, unit_norm: bool = True) -> Tensor:
    """Iterate the closed form of one ReLU, as Cho and Saul write it."""
    norms = p.norm(dim=1)[:, None] * q.norm(dim=1)
    cosine = (p @ q.T / norms).clamp(-1 + 1e-15, 1 - 1e-15)
    for _ in range(depth):
        angle = cosine.acos()
        cosine = (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
    return cosine if unit_norm else cosine * norms / p.shape[1]


KERNELS: dict[str, tuple[Kernel, Form]] = {
    "one bandwidth": (Gaussian([0.06]), gaussian),
    "two bandwidths": (Gaussian([0.06, 0.2]), partial(gaussian, widths=(0.54, 1.8))),
    "multiquadric": (InverseMultiquadric(0.5), multiquadric),
    "angles": (ArcCosine(), arc_cosine),
    "angles and norms": (ArcCosine(2, unit_norm=False), partial(arc_cosine, depth=2, unit_norm=False)),
}


def grid_of_patches(image: Tensor, size: int, border: str, *, remove_mean: bool | str) -> Tensor:
    """Give the patches of one image in [-1, 1] where they are, one by one."""
    signed, margin = 2 * image - 1, 0 if border == "none" else size // 2
    if margin:
        mode = {"reflect": "reflect", "zero": "constant"}[border]
        signed = functional.pad(signed[None], (margin,) * 4, mode=mode)[0]
    rows = []
    for top in range(signed.shape[1] - size + 1):
        patches = [signed[:, top : top + size, left : left + size] for left in range(signed.shape[2] - size + 1)]
        if remove_mean:
            axes = (0, 1, 2) if remove_mean == "patch" else (1, 2)
            patches = [patch - patch.mean(dim=axes, keepdim=True) for patch in patches]
        rows.append(torch.stack([patch.flatten() for patch in patches]))
    return torch.stack(rows)


def window_by_window(
    x: Tensor,
    y: Tensor,
    form: Form,
    window: int | None,
    stride: int,
    *,
    border: str,
    remove_mean: bool | str,
    size: int = 3,
) -> Tensor:
    """Give the squared MMD of each window by itself, averaged, of two images."""
    p, q = (grid_of_patches(image, size, border, remove_mean=remove_mean) for image in (x, y))
    height, width = (window, window) if window else p.shape[:2]
    found = []
    for top in range(0, p.shape[0] - height + 1, stride):
        for left in range(0, p.shape[1] - width + 1, stride):
            a, b = (grid[top : top + height, left : left + width].flatten(0, 1) for grid in (p, q))
            found.append(form(a, a).mean() + form(b, b).mean() - 2 * form(a, b).mean())
    return torch.stack(found).mean()


def images(*shape: int) -> tuple[Tensor, Tensor]:
    smooth = functional.avg_pool2d(torch.rand(shape[0], 3, shape[-2] + 2, shape[-1] + 2).double(), 3, 1)
    x, y = smooth, 0.3 * torch.rand(shape[0], 3, *shape[-2:]).double() + 0.5 * smooth
    return x.requires_grad_(), y.requires_grad_()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("window", "stride", "border", "remove_mean"),
    [
        (8, 4, "reflect", True),
        (6, 2, "zero", False),
        (5, 5, "none", False),
        (None, 1, "none", True),
        (5, 5, "reflect", "patch"),
    ],
)
def test_window_by_window(kernel: str, window: int | None, stride: int, border: str, remove_mean: bool | str) -> None:
    """Values and both gradients are those of each window by itself, to 1e-10, in sizes that no stride divides."""
    mine, form = KERNELS[kernel]
    x, y = images(2, 13, 19)
    loss = ExactMMD(3, mine, window, stride, border=border, remove_mean=remove_mean, half=False)
    slow = partial(window_by_window, form=form, window=window, stride=stride, border=border, remove_mean=remove_mean)
    expected = torch.stack([slow(a, b) for a, b in zip(x, y, strict=True)])
    found = loss(x, y)
    exactly(found, expected)
    weights = torch.tensor([1.0, -3.0]).double()
    for mine_, theirs in zip(
        torch.autograd.grad(found @ weights, (x, y)), torch.autograd.grad(expected @ weights, (x, y)), strict=True
    ):
        torch.testing.assert_close(mine_, theirs, rtol=1e-8, atol=1e-12)


def shift_form(x: Tensor, y: Tensor, width: float, window: int, stride: int, size: int = 3) -> Tensor:
    """Give ½ MMD² of mean-free patches by displacements: box filters give distances, integral images sums."""
    half = size // 2
    x, y = (functional.pad(2 * one - 1, (half,) * 4, mode="reflect") for one in (x, y))

    def mean(a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros((), dtype=a.dtype)
        height, across = a.shape[-2:]
        for down in range(1 - window, window):
            for right in range(1 - window, window):
                rows, columns = (slice(max(0, -shift), side - max(0, shift)) for shift, side in
                                 ((down, height), (right, across)))  # fmt: skip
                shifted = b[..., max(0, down) :, max(0, right) :][..., : height - abs(down), : across - abs(right)]
                difference = a[..., rows, columns] - shifted
                squares, sums = (functional.avg_pool2d(one, size, 1) * size**2
                                 for one in (difference.square(), difference))  # fmt: skip
                values = (-(squares - sums.square() / size**2).sum(1) / (2 * width**2)).exp()
                integral = functional.pad(values, (1, 0, 1, 0)).cumsum(-2).cumsum(-1)
                tall, wide = window - abs(down), window - abs(right)
                boxes = (integral[..., tall:, wide:] - integral[..., :-tall, wide:]
                         - integral[..., tall:, :-wide] + integral[..., :-tall, :-wide])  # fmt: skip
                total = total + boxes[..., ::stride, ::stride].mean()
        return total / window**4

    return 0.5 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_shift_form() -> None:
    """A form without any product of matrices gives the same value and gradient, to 1e-10."""
    x, y = images(1, 14, 11)
    expected, found = shift_form(x, y, 0.54, window=6, stride=3), ExactMMD(window=6, stride=3)(x, y)
    exactly(found, expected[None])
    exactly(*(torch.autograd.grad(one.sum(), x)[0] for one in (found, expected)))


def test_random_features_approach_it() -> None:
    """The mean over draws of RandomFeatureMMD is ExactMMD's default, within four standard errors."""
    x, y = (image.float().detach() for image in images(1, 48, 48))
    exact = float(ExactMMD()(x, y))
    draws = torch.stack([RandomFeatureMMD(256, seed=seed)(x, y)[0] for seed in range(24)])
    error = float(draws.std()) / math.sqrt(24)
    assert error < 0.03 * exact
    assert abs(float(draws.mean()) - exact) < 4 * error


@pytest.mark.parametrize(
    "arguments",
    [{"window": None}, {"patch_stride": 2, "window": 12, "stride": 4}, {"border": "none", "remove_mean": False}],
)
def test_random_features_approach_it_with_other_windows(arguments: dict[str, Any]) -> None:
    """Windows, strides and borders mean the same to both; each draw is within the error of 2048 features."""
    x, y = (image.float().detach() for image in images(1, 40, 37))
    exact, found = ExactMMD(**arguments)(x, y), RandomFeatureMMD(2048, **arguments)(x, y)
    torch.testing.assert_close(found, exact, rtol=0.08, atol=0)


def test_half_is_half() -> None:
    x, y = images(1, 32, 32)
    exactly(ExactMMD(half=False)(x, y), 2 * ExactMMD()(x, y))


def test_arguments_of_the_original() -> None:
    """Gaussian of sigma / √2 without ½ and mean removal is the kernel exp(-D / s²) of MMDExact."""
    x, y = images(1, 12, 12)
    loss = ExactMMD(3, Gaussian([0.06 / math.sqrt(2)]), 8, 4, remove_mean=False, half=False)

    def form(p: Tensor, q: Tensor) -> Tensor:
        return (-(p[:, None] - q).square().sum(-1) / (0.06 * 9) ** 2).exp()

    exactly(loss(x, y)[0], window_by_window(x[0], y[0], form, 8, 4, border="reflect", remove_mean=False))


def test_equal_images_are_at_zero_with_zero_gradient() -> None:
    """In 32 bits the rounding error is about 1e-8, also where the distance is far smaller than its three terms."""
    x = torch.rand(4, 3, 40, 40, requires_grad=True)
    found = ExactMMD()(x, x.detach().clone())
    assert found.abs().max() < 2e-8
    assert torch.autograd.grad(found.sum(), x)[0].abs().max() < 1e-9
    near = (x + 0.003 * torch.randn_like(x)).detach()
    exact = ExactMMD()(x.double(), near.double())
    assert 1e-7 < exact.min() < exact.max() < 1e-4
    torch.testing.assert_close(ExactMMD()(x, near).double(), exact, rtol=0, atol=2e-8)


@pytest.mark.parametrize("depth", [1, 3, 7, 20])
def test_arc_cosine_polynomials(depth: int) -> None:
    """The polynomials are κ∘…∘κ and its slope, to the rounding of 32 and of 64 bits, up to both ends."""
    cosines = torch.cat([torch.linspace(-1, 1, 2001), 1 - torch.logspace(-16, -1, 50)]).double().requires_grad_()
    value, (slope,) = cosines, (torch.ones_like(cosines),)
    for _ in range(depth):
        angle = value.detach().clamp(-1, 1).acos()
        slope = slope * (1 - angle / math.pi)
        value = (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
    for dtype, tolerance in ((torch.float64, 2e-12), (torch.float32, 1e-6)):
        found = ArcCosine(depth).profile(cosines.detach().to(dtype).clone(), slope=True)
        rounded = 1e-3 if dtype == torch.float32 else 2e-8  # of the slope: an angle near 0 is a root of the cosine's
        torch.testing.assert_close(found[0].double(), value, rtol=0, atol=tolerance)
        torch.testing.assert_close(found[1].double(), slope, rtol=0, atol=rounded)


def test_arc_cosine_of_seven_layers() -> None:
    """The published network's kernel is nearly flat but for a peak at equal patches."""
    cosines = torch.tensor([-1, 0, 0.5, 0.8, 0.9, 0.95, 0.99, 1]).double()
    found = ArcCosine(7).profile(cosines, slope=False)[0]
    np.testing.assert_allclose(found, [0.777, 0.809, 0.856, 0.913, 0.946, 0.968, 0.992, 1], atol=5e-4)


def test_grey_images_have_small_gradients() -> None:
    """A patch without contrast has no direction; its gradient is bounded, and it is worth nothing in the kernel."""
    x = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    loss = ExactMMD(3, ArcCosine(), border="zero", remove_mean=False, half=False)
    loss(x, torch.rand(1, 3, 32, 32)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1
    assert loss.encode(x)["within"].abs().max() < 1e-6


class Largest(TorchDispatchMode):
    """Keep the number of values of the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else (result,)
        self.numbers = max([self.numbers, *(one.numel() for one in made if isinstance(one, Tensor))])
        return result


@pytest.mark.parametrize("window", [32, None])
def test_no_tensor_of_patches_times_patches(window: int | None) -> None:
    """Memory does not grow with the square of the patches, forward or backward."""
    x, y = torch.rand(2, 3, 48, 48, requires_grad=True), torch.rand(2, 3, 48, 48)
    with Largest() as largest:
        ExactMMD(window=window)(x, y).sum().backward()
    patches = 2 * 48**2
    assert largest.numbers <= max(mean_kernel.VALUES_A_CHUNK[True], 29 * 1.2 * patches)
    assert largest.numbers < (48**2) ** 2 / 8


def chunk_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for values, numbers, tile in ((2**19, 2**22, 512), (1, 1, 512), (5000, 60000, 50), (2**30, 2**30, 7)):
        monkeypatch.setattr(mean_kernel, "VALUES_A_CHUNK", {True: values})
        monkeypatch.setattr(mean_kernel, "NUMBERS_A_CHUNK", {True: numbers})
        monkeypatch.setattr(tiling, "TILE", tile)
        tiling._pairs.cache_clear()
        yield
    tiling._pairs.cache_clear()


@pytest.mark.parametrize("kernel", ["one bandwidth", "angles and norms"])
@pytest.mark.parametrize("window", [8, None])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, kernel: str, window: int | None) -> None:
    """Tiles that don't divide a block, and chunks of any size, give one value and one gradient."""
    x, y = images(3, 12, 17)
    loss = ExactMMD(3, KERNELS[kernel][0], window, 4, border="zero", remove_mean=False)
    found = []
    for _ in chunk_sizes(monkeypatch):
        value = loss(x, y)
        found.append((value, *torch.autograd.grad(value.sum(), (x, y))))
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            exactly(mine, theirs)


class Spy(Gaussian):
    """Keep whether slopes were asked for."""

    asked = False

    def profile(self, products: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        self.asked |= slope
        return super().profile(products, slope=slope)


def test_gradient_only_where_it_is_wanted() -> None:
    """A target costs no gradient, and neither does anything that is not recorded."""
    x, y = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    loss = ExactMMD(kernel=(spy := Spy([0.06])))
    assert not loss.encode(y)["within"].requires_grad
    with torch.no_grad():
        assert not loss(x, y).requires_grad
    assert not spy.asked
    found = torch.autograd.grad(loss(x, y).sum(), x)[0]
    assert spy.asked
    both = torch.autograd.grad(loss(x, y.clone().requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(found, both)


def test_second_derivatives_are_refused() -> None:
    """They would be missing without a word."""
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance = ExactMMD()(x, torch.rand(1, 3, 32, 32)).sum()
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(distance, x, create_graph=True)


def test_smallest_sides() -> None:
    """Borders of zeros or reflections make room for as many patches as pixels; without them patches end earlier."""
    assert ExactMMD().min_side == 32
    assert ExactMMD(border="none").min_side == 34
    assert ExactMMD(patch_stride=2, window=8, stride=4).min_side == 15
    assert ExactMMD(5, window=None, border="none").min_side == 5
    assert ExactMMD(5, window=None, border="zero").min_side == 1
    assert ExactMMD(5, window=None, border="reflect").min_side == 3
    for loss in (ExactMMD(5, window=None), ExactMMD(5, window=None, border="zero"), ExactMMD(border="none"),
                 ExactMMD(patch_stride=2, window=8, stride=4)):  # fmt: skip
        side = loss.min_side
        assert loss(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)).isfinite()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExactMMD(window=32, stride=12), "multiple of stride, got window 32 and stride 12"),
        (lambda: ExactMMD(stride=0), "multiple of stride"),
        (lambda: ExactMMD(window=0), "multiple of stride"),
        (lambda: ExactMMD(patch_size=4), "odd number of pixels where there is a border, got 4"),
        (lambda: ExactMMD(patch_size=0, border="none"), "at least 1 pixel, got 0"),
        (lambda: ExactMMD(patch_size=1), "one pixel has nothing left without its mean"),
        (lambda: PatchMMD(patch_size=1, remove_mean=True), "one pixel has nothing left without its mean"),
        (lambda: ExactMMD(border="wrap"), "border is one of reflect, zero, none, got 'wrap'"),
        (lambda: Gaussian([]), "sigmas are numbers more than 0"),
        (lambda: Gaussian([0.1, 0.0]), "sigmas are numbers more than 0, got"),
        (lambda: InverseMultiquadric(0.0), "c is more than 0, got 0"),
        (lambda: ArcCosine(0), "depth is at least 1, got 0"),
        (lambda: Patches(3, 0), "at least 1 pixel, got 3 and 0"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
