"""Mean random Fourier features of patches, block by block, with a gradient that keeps the image and no features."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losslab.types import Image

Means: TypeAlias = Float[Tensor, "images maps filters rows columns"]
"""What is left of feature maps when each block is averaged."""

# Measured on 16×3×128×128 with 512 features and two threads: chunks of this many values, 16 MiB, take a third of the
# time of one map of everything, since the allocator hands out the same memory again. Other devices want few launches.
VALUES_A_CHUNK = {True: 2**22, False: 2**26}
FILTERS_A_CHUNK = 64


@dataclass(frozen=True)
class Recipe:
    """What is computed of the responses z of the filters.

    Args:
        block: height and width of a block, in patches; rows and columns that fill no block are left out.
        patch_stride: step from patch to patch, in pixels.
        scales: cos(c · z) for each c; the filters' responses are computed once for all.
        pairs: sin(c · z) too.
    """

    block: tuple[int, int]
    patch_stride: int = 1
    scales: tuple[float, ...] = (1.0,)
    pairs: bool = False

    @property
    def maps(self) -> int:
        """Features of one filter."""
        return len(self.scales) * (1 + self.pairs)


def mean_features(padded: Image, filters: Tensor, phases: Tensor, recipe: Recipe) -> Means:
    """Give the mean over each block of cos(c · (z - b) + b), and of the sine, for each filter and scale c.

    z = w · p + b is the response of a filter w with phase b to a patch p, so a scale turns w into c · w.

    Args:
        padded: (N, C, H, W), of which every patch is taken.
        filters: (R, C, P, P).
        phases: (R,).
        recipe: scales, pairs and blocks.

    Returns:
        (N, maps, R, rows, columns), the maps in the order of the scales, sine after cosine. The gradient with respect
        to `padded` computes all features again, chunk by chunk, and saves `padded` only; a second derivative costs
        what `plain_mean_features` costs. The filters get no gradient.
    """
    result: Tensor = _Recomputed.apply(padded, filters, phases, recipe)
    return result


def plain_mean_features(padded: Image, filters: Tensor, phases: Tensor, recipe: Recipe) -> Means:
    """Give what `mean_features` gives, by operations that autograd differentiates; it keeps every feature map."""
    response = _responses(_cropped(padded, filters, recipe), filters, phases, recipe)
    angles = [response * scale + (1 - scale) * phases[:, None, None] for scale in recipe.scales]
    maps = [part for angle in angles for part in ([angle.cos(), angle.sin()] if recipe.pairs else [angle.cos()])]
    return torch.stack([functional.avg_pool2d(each, recipe.block) for each in maps], dim=1)


class _Recomputed(torch.autograd.Function):
    """Forward and backward in chunks that fit the cache; between them only the images are kept."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe) -> Tensor:
        ctx.save_for_backward(padded, filters, phases)
        ctx.recipe = recipe
        cropped = _cropped(padded, filters, recipe)
        found = padded.new_empty(len(padded), recipe.maps, len(filters), *_grid(padded, filters, recipe))
        for images in _image_chunks(cropped, filters, recipe):
            for chunk in _filter_chunks(filters):
                response = _responses(cropped[images], filters[chunk], phases[chunk], recipe)
                for index, values in enumerate(_features(response, phases[chunk], recipe)):
                    found[images, index, chunk] = functional.avg_pool2d(values, recipe.block)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        padded, filters, phases = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate the gradient
            found = plain_mean_features(padded, filters, phases, ctx.recipe)
            return torch.autograd.grad(found, padded, grads[0], create_graph=True)[0], None, None, None
        return _gradient(padded, filters, phases, ctx.recipe, grads[0]), None, None, None


def _gradient(padded: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe, grad: Tensor) -> Tensor:
    """Give the gradient of Σ grad · features with respect to the padded images."""
    cropped = _cropped(padded, filters, recipe)
    matrix = filters.flatten(1).T
    grad = grad / math.prod(recipe.block)
    found = torch.zeros_like(padded, memory_format=torch.contiguous_format)
    for images in _image_chunks(cropped, filters, recipe):
        patches = torch.zeros((), dtype=padded.dtype, device=padded.device)
        for chunk in _filter_chunks(filters):
            response = _responses(cropped[images], filters[chunk], phases[chunk], recipe)
            slope = _slopes(response, phases[chunk], recipe, grad[images, :, chunk])
            patches = patches + matrix[:, chunk] @ slope.flatten(2)
        height, width = cropped.shape[-2:]
        folded = functional.fold(patches, (height, width), filters.shape[-1], stride=recipe.patch_stride)
        found[images, :, :height, :width] = folded
    return found


def _features(response: Tensor, phases: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Give the feature maps one after the other; the response is used up."""
    for angle in _angles(response, phases, recipe.scales):
        sine = angle.sin() if recipe.pairs else None
        yield angle.cos_()
        if sine is not None:
            yield sine


def _slopes(response: Tensor, phases: Tensor, recipe: Recipe, grad: Tensor) -> Tensor:
    """Give Σ grad · d feature / d response at every patch; the response is used up."""
    total: Tensor | None = None
    maps = iter(grad.unbind(1))
    for scale, angle in zip(recipe.scales, _angles(response, phases, recipe.scales), strict=True):
        cosine = angle.cos() if recipe.pairs else None
        slope = _weigh(angle.sin_(), next(maps) * -scale, recipe)
        if cosine is not None:
            slope += _weigh(cosine, next(maps) * scale, recipe)
        total = slope if total is None else total.add_(slope)
    assert total is not None  # there is a scale
    return total


def _angles(response: Tensor, phases: Tensor, scales: tuple[float, ...]) -> Iterator[Tensor]:
    """Give c · (z - b) + b for each scale; the last one takes the memory of the response."""
    for scale in scales[:-1]:
        yield (response * scale).add_((1 - scale) * phases[:, None, None])
    if scales[-1] != 1:
        response.mul_(scales[-1]).add_((1 - scales[-1]) * phases[:, None, None])
    yield response


def _weigh(values: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """Multiply each block of `values` by its weight, in place."""
    rows, columns = weights.shape[-2:]
    blocks = values.unflatten(-1, (columns, recipe.block[1])).unflatten(-3, (rows, recipe.block[0]))
    blocks.mul_(weights[..., :, None, :, None])
    return values


def _responses(images: Tensor, filters: Tensor, phases: Tensor, recipe: Recipe) -> Tensor:
    return functional.conv2d(images, filters, phases, stride=recipe.patch_stride)


def _grid(padded: Tensor, filters: Tensor, recipe: Recipe) -> tuple[int, int]:
    """Count rows and columns of whole blocks."""
    height, width = ((side - filters.shape[-1]) // recipe.patch_stride + 1 for side in padded.shape[-2:])
    return height // recipe.block[0], width // recipe.block[1]


def _cropped(padded: Tensor, filters: Tensor, recipe: Recipe) -> Tensor:
    """Cut off what no whole block needs."""
    counts = zip(_grid(padded, filters, recipe), recipe.block, strict=True)
    height, width = ((count * block - 1) * recipe.patch_stride + filters.shape[-1] for count, block in counts)
    return padded[..., :height, :width]


def _image_chunks(cropped: Tensor, filters: Tensor, recipe: Recipe) -> Iterator[slice]:
    patches = cropped.shape[-2] * cropped.shape[-1] // recipe.patch_stride**2
    values = patches * min(FILTERS_A_CHUNK, len(filters))
    step = max(1, VALUES_A_CHUNK[cropped.device.type == "cpu"] // values)
    return (slice(start, start + step) for start in range(0, len(cropped), step))


def _filter_chunks(filters: Tensor) -> Iterator[slice]:
    return (slice(start, start + FILTERS_A_CHUNK) for start in range(0, len(filters), FILTERS_A_CHUNK))
