"""The mean of a kernel over pairs of patches, tile by tile: no matrix of patches × patches is ever whole."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losslab.losses.kernels import Kernel
from losslab.losses.patches import Pairs, Patches
from losslab.types import Distance, Image

# Measured on 16×3×128×128 with two threads: tiles of 2 MiB stay in the cache between the product of matrices, the
# exponential and the product for the gradient. Other devices have no such cache, and are kept busy by larger chunks.
VALUES_A_CHUNK = {True: 2**19, False: 2**25}
NUMBERS_A_CHUNK = {True: 2**22, False: 2**26}
"""How many numbers of patches are in memory at a time."""


def within(images: Image, patches: Patches, kernel: Kernel) -> Distance:
    """Give the mean kernel of each image with itself, (*,), in 64 bits where the device has them.

    The mean is over all pairs of patches of a window, each with itself among them, and over the windows; pairs that
    several windows share are computed once. What fills up tiles adds a number that cancels in an MMD. The gradient is
    found beside the value, so that there is no second pass and nothing is kept for it but one image; it has no further
    derivative.
    """
    batch = images.reshape(-1, *images.shape[-3:])
    return _MeanKernel.apply(patches, kernel, torch.is_grad_enabled(), batch).reshape(images.shape[:-3])


def between(x: Image, y: Image, patches: Patches, kernel: Kernel) -> Distance:
    """Give the mean kernel of each pair of images, (*,), as `within` does; leading axes broadcast."""
    x, y = torch.broadcast_tensors(x, y)
    both = [images.reshape(-1, *images.shape[-3:]) for images in (x, y)]
    return _MeanKernel.apply(patches, kernel, torch.is_grad_enabled(), *both).reshape(x.shape[:-3])


class _MeanKernel(torch.autograd.Function):
    """The mean kernels of pairs of images, (B,), or of images (B, C, H, W) with themselves."""

    @staticmethod
    def forward(ctx: Any, patches: Patches, kernel: Kernel, recording: bool, *images: Tensor) -> Tensor:  # noqa: FBT001
        wanted = [recording and need for need in ctx.needs_input_grad[3:]]
        pairs = patches.pairs(images[0], within=len(images) == 1)
        chunks = zip(*(side.split(_images_a_chunk(images[0], patches)) for side in images), strict=True)
        found = [_means(patches, kernel, pairs, some, wanted) for some in chunks]
        totals, slopes = zip(*found, strict=True)
        ctx.save_for_backward(*(torch.cat(of) if of[0] is not None else None for of in zip(*slopes, strict=True)))
        return torch.cat(totals)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("exact MMD has a first derivative only: create_graph=True can't be given")
        scale = upstream[:, None, None, None]
        return None, None, None, *(None if of is None else of * scale.to(of) for of in ctx.saved_tensors)


def _images_a_chunk(images: Tensor, patches: Patches) -> int:
    """Count the images whose patches, and whose kernel of one pair of tiles, are in memory at a time."""
    on_cpu = images.device.type == "cpu"
    numbers = images[0].numel() * patches.size**2 // patches.step**2
    return max(1, min(NUMBERS_A_CHUNK[on_cpu] // max(1, numbers), VALUES_A_CHUNK[on_cpu] // patches.tile(images) ** 2))


class _Side:
    """One side of the pairs: vectors (B, tiles, D, n), weights (B, tiles, n), and the sums that become their slopes."""

    def __init__(self, vectors: Tensor, weights: Tensor | None) -> None:
        self.vectors, self.weights = vectors, weights
        self.weighted = vectors if weights is None else vectors * weights[..., None, :]
        self.of_vectors = torch.zeros_like(vectors) if vectors.requires_grad else None
        self.of_weights = torch.zeros_like(weights) if weights is not None and weights.requires_grad else None

    def add(self, own: Tensor, values: Tensor, slopes: Tensor, other: "_Side", others: Tensor, share: Tensor) -> None:
        """Add what the tiles `others` of the other side give to the slopes of the tiles `own` of this one."""
        if self.of_vectors is not None:
            self.of_vectors.index_add_(1, own, (other.weighted[:, others] @ slopes.mT) * share)
        if self.of_weights is not None:
            self.of_weights.index_add_(1, own, other.over(values, others) * share[..., 0])

    def over(self, values: Tensor, tiles: Tensor) -> Tensor:
        """Sum values (B, k, m, n) over the patches of k tiles of this side, by their weights, (B, k, m)."""
        # Two passes over the tile take a fifth of the time of a product with a vector.
        return (values if self.weights is None else values * self.weights[:, tiles, None]).sum(-1)

    def chain(self, rate: float) -> list[tuple[Tensor, Tensor]]:
        """List what depends on the image, and the slope with respect to it."""
        found = []
        if self.of_vectors is not None:
            slopes = self.of_vectors.mul_(rate)
            found.append((self.vectors, slopes if self.weights is None else slopes * self.weights[..., None, :]))
        if self.weights is not None and self.of_weights is not None:
            found.append((self.weights, self.of_weights))
        return found


def _means(
    patches: Patches, kernel: Kernel, pairs: Pairs, images: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Give the mean kernels of a few pairs of images, and their slopes on each side where they are wanted."""
    with torch.enable_grad():
        leaves = [side.detach().requires_grad_(want) for side, want in zip(images, wanted, strict=True)]
        points = [kernel.sides(patches.cut(leaf), patches.size**2) for leaf in leaves]
    (u, _, a), (_, v, b) = points[0], points[-1]
    left, right = _Side(u, a), _Side(v, b)
    total = _sweep(kernel, left, right, pairs)
    chains = [left.chain(kernel.rate), right.chain(kernel.rate)]
    if len(images) == 1:
        chains = [chains[0] + chains[1]]
    return total, [_pulled(leaf, chain) if chain else None for leaf, chain in zip(leaves, chains, strict=True)]


def _sweep(kernel: Kernel, left: _Side, right: _Side, pairs: Pairs) -> Tensor:
    """Add up the kernel over all pairs of tiles, (B,), and its slopes in the two sides."""
    count, tile = left.vectors.shape[0], left.vectors.shape[-1]
    chunk = max(1, VALUES_A_CHUNK[left.vectors.device.type == "cpu"] // (count * tile**2))
    slope = left.of_vectors is not None or right.of_vectors is not None
    total = pairs.weights.new_zeros(count)
    for i, j, weights in zip(*(part.split(chunk) for part in pairs), strict=True):
        products = left.vectors[:, i].mT @ right.vectors[:, j]
        values, slopes = kernel.profile(products, slope=slope)
        rows = right.over(values, j)
        total += left.over(rows[:, :, None], i).squeeze(-1).to(total) @ weights
        share = weights.to(values)[:, None, None]
        left.add(i, values, slopes, right, j, share)
        right.add(j, values.mT, slopes.mT, left, i, share)
    return total


def _pulled(image: Tensor, chain: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Pull slopes back to the image that all of this depends on."""
    outputs, slopes = zip(*chain, strict=True)
    return torch.autograd.grad(outputs, image, slopes)[0]
