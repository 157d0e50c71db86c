"""Mean random Fourier features of patches, window by window, with a gradient that keeps the image and no features."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losslab.images import SIGNED
from losslab.losses.sines import in_place
from losslab.types import Image

Means: TypeAlias = Float[Tensor, "images maps filters rows columns"]
"""What is left of feature maps when each window is averaged."""

# Measured on 16×3×128×128 with 512 features and two threads: chunks of this many values, 8 MiB, take a third of the
# time of one map of everything, since the allocator hands out the same memory again. Other devices want few launches.
VALUES_A_CHUNK = {True: 2**21, False: 2**26}
FILTERS_A_CHUNK = 64


@dataclass(frozen=True)
class Recipe:
    """What is computed of images.

    Args:
        border: pixels that are reflected at each side.
        patch_stride: step from patch to patch, in pixels.
        window: side of a window in patches; None is one window over all.
        stride: step from window to window, in patches.
        scales: of the filters, the last one 1: the responses are computed once for all.
        pairs: sines beside cosines.
    """

    border: int = 0
    patch_stride: int = 1
    window: int | None = None
    stride: int = 1
    scales: tuple[float, ...] = (1.0,)
    pairs: bool = False

    @property
    def maps(self) -> int:
        """Features of one filter."""
        return len(self.scales) * (1 + self.pairs)

    @property
    def unit(self) -> int:
        """Side of the blocks that overlapping windows share, in patches."""
        return math.gcd(self.window or 1, self.stride)


def mean_features(images: Image, filters: Tensor, phases: Tensor, recipe: Recipe) -> Means:
    """Give the mean over each window of cos(c · w · p + b), and of the sine, for each filter w and scale c.

    Args:
        images: (N, C, H, W) in [0, 1]; patches p are taken in [-1, 1].
        filters: (R, C, P, P).
        phases: (R,), b.
        recipe: scales, pairs, border and windows.

    Returns:
        (N, maps, R, rows, columns), the maps in the order of the scales, sine after cosine. The gradient with respect
        to `images` computes all features again, chunk by chunk, and saves `images` only; a second derivative costs
        what `plain_mean_features` costs. The filters get no gradient.
    """
    result: Tensor = _Recomputed.apply(images, filters, phases, recipe)
    return result


def plain_mean_features(images: Image, filters: Tensor, phases: Tensor, recipe: Recipe) -> Means:
    """Give what `mean_features` gives, by operations that autograd differentiates; it keeps every feature map."""
    response = _responses(_cropped(_prepared(images, recipe), filters, recipe), filters, phases, recipe)
    angles = [response * scale + (1 - scale) * phases[:, None, None] for scale in recipe.scales]
    maps = [part for angle in angles for part in ([angle.cos(), angle.sin()] if recipe.pairs else [angle.cos()])]
    return torch.stack([_pooled(each, recipe) for each in maps], dim=1)


class _Recomputed(torch.autograd.Function):
    """Forward and backward in chunks that fit the cache; between them only the images are kept."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe) -> Tensor:
        ctx.save_for_backward(images, filters, phases)
        ctx.recipe = recipe
        cropped = _cropped(_prepared(images, recipe), filters, recipe)
        with _full_precision(images.device):
            return torch.cat([
                _means(_Filtered(cropped[some], filters, phases, recipe), recipe)
                for some in _image_chunks(cropped, filters, recipe)
            ])  # fmt: skip

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        images, filters, phases = ctx.saved_tensors
        with _full_precision(images.device):
            if torch.is_grad_enabled():  # somebody will differentiate the gradient
                found = plain_mean_features(images, filters, phases, ctx.recipe)
                return torch.autograd.grad(found, images, grads[0], create_graph=True)[0], None, None, None
            return _gradient(images, filters, phases, ctx.recipe, grads[0]), None, None, None


def _gradient(images: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe, grad: Tensor) -> Tensor:
    """Give the gradient of Σ grad · features with respect to the images."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        cropped = _cropped(_prepared(leaf, recipe), filters, recipe)
    slopes = torch.cat([
        _pulled(cropped.detach()[some], filters, phases, recipe, grad[some])
        for some in _image_chunks(cropped, filters, recipe)
    ])  # fmt: skip
    return torch.autograd.grad(cropped, leaf, slopes)[0]


def _pulled(cropped: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe, grad: Tensor) -> Tensor:
    """Give the gradient with respect to a few padded images."""
    filtered = _Filtered(cropped, filters, phases, recipe)
    slopes = (
        (chunk, _slopes(response, phases[chunk], recipe, grad[:, :, chunk])) for chunk, response in filtered.chunks()
    )
    return filtered.pull(slopes)


def _means(filtered: "_Filtered", recipe: Recipe) -> Tensor:
    """Give the means over the windows of a few images, (n, maps, R, rows, columns)."""
    found = []
    for chunk, response in filtered.chunks():
        means = []
        for angle in _angles(response, filtered.phases[chunk], recipe):
            sine = _pooled(in_place("sin", angle.clone()), recipe) if recipe.pairs else None
            means.append(_pooled(in_place("cos", angle), recipe))
            means += [] if sine is None else [sine]
        found.append(torch.stack(means, dim=1))
    return torch.cat(found, dim=2)


class _Filtered:
    """A few padded images under all filters, a chunk of filters at a time, always in the same memory.

    Small patches are cut out once, with a one after each for the phase, and filtered by products of matrices: on a CPU
    that needs no new memory for a chunk. Columns of large patches would be larger than the responses.
    """

    def __init__(self, cropped: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe) -> None:
        self.cropped, self.filters, self.phases, self.recipe = cropped, filters, phases, recipe
        self.columns: Tensor | None = None
        if filters[0].numel() < FILTERS_A_CHUNK:
            columns = functional.unfold(cropped, filters.shape[-1], stride=recipe.patch_stride)
            self.columns = functional.pad(columns, (0, 0, 0, 1), value=1.0)
            self.matrix = torch.cat([filters.flatten(1), phases[:, None]], dim=1)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Give each chunk of filters with its responses, (n, r, height, width), which the next one overwrites."""
        memory: Tensor | None = None
        sides = _places(self.cropped, self.filters, self.recipe)
        for chunk in _filter_chunks(self.cropped, self.filters, self.recipe):
            if self.columns is None:
                yield chunk, _responses(self.cropped, self.filters[chunk], self.phases[chunk], self.recipe)
                continue
            matrix = self.matrix[chunk].expand(len(self.cropped), -1, -1)
            if memory is None or memory.shape[1] != matrix.shape[1]:
                memory = torch.bmm(matrix, self.columns)
            else:
                torch.bmm(matrix, self.columns, out=memory)
            yield chunk, memory.unflatten(-1, sides)

    def pull(self, slopes: Iterator[tuple[slice, Tensor]]) -> Tensor:
        """Give the gradient with respect to the images, from that with respect to each chunk's responses."""
        found: Tensor | None = None
        for chunk, slope in slopes:
            if self.columns is None:
                part = functional.conv_transpose2d(slope, self.filters[chunk], stride=self.recipe.patch_stride)
                found = part if found is None else found.add_(part)
                continue
            matrix = self.filters[chunk].flatten(1).T.expand(len(self.cropped), -1, -1)
            values = slope.flatten(2)
            found = torch.bmm(matrix, values) if found is None else found.baddbmm_(matrix, values)
        assert found is not None  # there is a filter
        if self.columns is None:
            return found
        height, width = self.cropped.shape[-2:]
        return functional.fold(found, (height, width), self.filters.shape[-1], stride=self.recipe.patch_stride)


def _slopes(response: Tensor, phases: Tensor, recipe: Recipe, grad: Tensor) -> Tensor:
    """Give Σ grad · d feature / d response at every patch; the response is used up."""
    found: list[Tensor] = []
    blocks = [_spread(each, response, recipe) for each in grad.unbind(1)]
    maps = iter(blocks)
    for scale, angle in zip(recipe.scales, _angles(response, phases, recipe), strict=True):
        cosine = in_place("cos", angle.clone()) if recipe.pairs else None
        slope = _weigh(in_place("sin", angle), next(maps) * -scale)
        if cosine is not None:
            slope += _weigh(cosine, next(maps) * scale)
        found = [found[0].add_(slope)] if found else [slope]
    return found[0]


def _angles(response: Tensor, phases: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Give c · (z - b) + b for each scale c of responses z = w · p + b; the last one is the response itself."""
    for scale in recipe.scales[:-1]:
        yield (response * scale).add_((1 - scale) * phases[:, None, None])
    yield response


def _pooled(maps: Tensor, recipe: Recipe) -> Tensor:
    """Average maps over the windows, by way of the blocks that these share."""
    if recipe.window is None:
        return maps.mean(dim=(-2, -1), keepdim=True)
    blocks = functional.avg_pool2d(maps, recipe.unit)
    return functional.avg_pool2d(blocks, recipe.window // recipe.unit, recipe.stride // recipe.unit)


def _spread(grad: Tensor, maps: Tensor, recipe: Recipe) -> Tensor:
    """Turn the gradient of windows into that of each value of a block of maps, (n, r, rows, columns) of blocks."""
    if recipe.window is None:
        return grad / (maps.shape[-2] * maps.shape[-1])
    with torch.enable_grad():
        sides = [side // recipe.unit for side in maps.shape[-2:]]
        blocks = grad.new_zeros(*grad.shape[:2], *sides).requires_grad_()
        windows = functional.avg_pool2d(blocks, recipe.window // recipe.unit, recipe.stride // recipe.unit)
    return torch.autograd.grad(windows, blocks, grad)[0] / recipe.unit**2


def _weigh(values: Tensor, weights: Tensor) -> Tensor:
    """Multiply each block of `values` by its weight, in place."""
    rows, columns = weights.shape[-2:]
    blocks = values.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))
    blocks.mul_(weights[..., :, None, :, None])
    return values


def _responses(padded: Image, filters: Tensor, phases: Tensor, recipe: Recipe) -> Tensor:
    return functional.conv2d(padded, filters, phases, stride=recipe.patch_stride)


def _prepared(images: Image, recipe: Recipe) -> Tensor:
    """Take images in [-1, 1], with a border."""
    signed = SIGNED * images - 1
    return functional.pad(signed, (recipe.border,) * 4, mode="reflect") if recipe.border else signed


def _cropped(padded: Tensor, filters: Tensor, recipe: Recipe) -> Tensor:
    """Cut off what no whole block needs."""
    size, step = filters.shape[-1], recipe.patch_stride
    height, width = ((count - count % recipe.unit - 1) * step + size for count in _places(padded, filters, recipe))
    return padded[..., :height, :width]


def _places(images: Tensor, filters: Tensor, recipe: Recipe) -> tuple[int, int]:
    """Count the rows and columns of patches."""
    height, width = ((side - filters.shape[-1]) // recipe.patch_stride + 1 for side in images.shape[-2:])
    return height, width


def _filter_chunks(cropped: Tensor, filters: Tensor, recipe: Recipe) -> list[slice]:
    room = VALUES_A_CHUNK[cropped.device.type == "cpu"] // math.prod(_places(cropped, filters, recipe))
    step = min(max(1, room), FILTERS_A_CHUNK)
    return [slice(start, start + step) for start in range(0, len(filters), step)]


def _image_chunks(cropped: Tensor, filters: Tensor, recipe: Recipe) -> list[slice]:
    values = math.prod(_places(cropped, filters, recipe)) * min(FILTERS_A_CHUNK, len(filters))
    room = max(1, VALUES_A_CHUNK[cropped.device.type == "cpu"] // values)
    step = room - room % 2 if room > 1 else 1  # two threads take as many images each
    return [slice(start, start + step) for start in range(0, len(cropped), step)]


def _full_precision(device: torch.device) -> ExitStack:
    """Give a context in which angles of some ten radians keep their digits: no autocast, no TF32 convolutions."""
    context = ExitStack()
    if torch.amp.is_autocast_available(device.type):
        context.enter_context(torch.autocast(device.type, enabled=False))
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        same = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        context.enter_context(cudnn.flags(**same, allow_tf32=False))
    return context
