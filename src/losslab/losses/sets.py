"""The mean distance of an image to the pictures of a set, for many sets at once, in little memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.joining import joined
from losslab.losses.penalty import NoPenalty, Penalty
from losslab.networks.base import LossNetwork
from losslab.types import Distance, Found, Pictures, draw_names, leaves, map_encoding

PIXELS_AT_ONCE = 2**16
"""Of images that a loss without a network encodes at a time on a processor: what its caches hold."""

IMAGES_AT_ONCE = 16
"""Images that are encoded at a time, at most."""

TARGET_NUMBERS_AT_ONCE = 2**18
"""In the encodings that are compared at a time on a processor: what its cache holds several times."""


class SetDistances:
    """The weighted mean distance of one image to the pictures of a set, of many sets.

    The pictures are encoded once. For its gradient, an image is encoded once and compared with some pictures at a time;
    what autograd keeps is thrown away after each group, so that memory holds the encodings of the pictures and the
    activations of some images. Sets don't see each other: on a processor, each of torch's threads takes its own sets,
    and none waits for the others within an operation.

    Formula: d_s(x) = Σ_k w_sk loss(x, y_sk) + penalty(x), Σ_k w_sk = 1.

    Args:
        loss: to compare with; the pictures are encoded again when it has been drawn anew.
        pictures: (N, C, H, W) in [0, 1], those of a set side by side.
        sizes: pictures in each set.
        weights: w, (N,).
        penalty: what an image costs by itself.

    Raises:
        ValueError: the loss refuses the pictures.
    """

    def __init__(
        self, loss: Loss[Any], pictures: Pictures, sizes: Sequence[int], weights: Tensor, penalty: Penalty | None = None
    ) -> None:
        """Encode the pictures."""
        self.loss, self.penalty = loss, penalty or NoPenalty()
        self.pictures, self.sizes, self.weights = pictures, sizes, weights.to(pictures)
        self.begins = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.at_once = _images_at_once(loss, pictures)
        self.encoding = Lock()
        self._encode()
        numbers = sum(leaf[0].numel() for leaf in leaves(self.targets))
        on_processor = pictures.device.type == "cpu"
        self.targets_at_once = max(1, TARGET_NUMBERS_AT_ONCE // numbers) if on_processor else len(pictures)

    @torch.no_grad()
    def _encode(self) -> None:
        """Encode the pictures under the loss's present draw."""
        made = (self.loss.encode(some) for some in self.pictures.split(self.at_once))
        self.targets = joined(made, len(self.pictures))

    def __call__(self, images: Found, which: Sequence[int]) -> Distance:
        """Give the distance of each image to its set, (n,), with a gradient of first order.

        Args:
            images: (n, C, H, W), of any values: an image that is optimised may leave [0, 1] on its way.
            which: the number of each image's set, ascending.
        """
        found: Distance = _WithGradient.apply(images, self, which)
        return found

    def groups(self, which: Sequence[int], at_once: int) -> Iterator[tuple[slice, list[int]]]:
        """Group neighbouring sets of one size, some at a time: their places in `which`, and their numbers."""
        place = 0
        for _, run in groupby(enumerate(which), key=lambda item: (item[1] - item[0], self.sizes[item[1]])):
            numbers = [number for _, number in run]
            for begin in range(0, len(numbers), at_once):
                some = numbers[begin : begin + at_once]
                yield slice(place, place + len(some)), some
                place += len(some)

    def measure_all(
        self, images: Tensor, which: Sequence[int], *, gradient: bool
    ) -> Iterator[tuple[slice, Distance, Tensor | None]]:
        """Measure all images in groups, and say where each group stands."""
        threads = torch.get_num_threads() if images.device.type == "cpu" else 1
        workers = min(threads, len(which), IMAGES_AT_ONCE)
        groups = [*self.groups(which, max(1, self.at_once // max(1, workers)))]

        def one(group: tuple[slice, list[int]]) -> tuple[slice, Distance, Tensor | None]:
            mine, some = group
            return mine, *self.measure(images[mine], some, gradient=gradient)

        if workers < 2:
            yield from map(one, groups)
            return
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
                yield from pool.map(one, groups)
        finally:
            torch.set_num_threads(threads)  # for threads to come: those that are there keep their own number

    def measure(self, images: Found, numbers: Sequence[int], *, gradient: bool) -> tuple[Distance, Tensor | None]:
        """Give the distances of images (n, C, H, W) to neighbouring sets of one size, and their gradient if asked."""
        with torch.set_grad_enabled(gradient), torch.autocast(images.device.type, enabled=False):
            images = images.detach().requires_grad_(gradient)
            own = self.loss.embed(images)
        with self.encoding:
            if draw_names(own) != draw_names(self.targets):
                self._encode()
        begin, end, size = self.begins[numbers[0]], self.begins[numbers[-1] + 1], self.sizes[numbers[0]]
        targets = map_encoding(lambda leaf: leaf[begin:end].unflatten(0, (-1, size)), self.targets)
        weights = self.weights[begin:end].unflatten(0, (-1, size))
        with torch.set_grad_enabled(gradient), torch.autocast(images.device.type, enabled=False):
            cost = self.penalty(images)
            total, gradients = self._compared(own, targets, weights, gradient=gradient)
            total += cost.detach()
            if not gradient:
                return total, None
            roots = [(leaf, one) for leaf, one in zip(leaves(own), gradients, strict=True) if one is not None]
            roots += [(cost, torch.ones_like(cost))] if cost.requires_grad else []
            return total, torch.autograd.grad([root for root, _ in roots], images, [one for _, one in roots])[0]

    def _compared(
        self, own: Any, targets: Any, weights: Tensor, *, gradient: bool
    ) -> tuple[Distance, list[Tensor | None]]:
        """Give the weighted sums of distances of some encodings to their targets, and the gradient of each part."""
        cut = map_encoding(lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad), own)
        parts = leaves(cut)
        inputs = [number for number, part in enumerate(parts) if part.requires_grad and gradient]
        gradients: list[Tensor | None] = [None] * len(parts)
        total: Distance = weights.new_zeros(len(weights))
        one = map_encoding(lambda leaf: leaf.unsqueeze(1), cut)
        for first in range(0, weights.shape[1], self.targets_at_once):
            some = slice(first, first + self.targets_at_once)
            each = self.loss.compare(one, map_encoding(lambda leaf: leaf[:, some], targets))  # noqa: B023 - used at once
            found = (each * weights[:, some]).sum(1)
            total += found.detach()
            if inputs:
                # a loss may keep what it does not use
                more = torch.autograd.grad(found.sum(), [parts[number] for number in inputs], allow_unused=True)
                for number, part in zip(inputs, more, strict=True):
                    if part is not None:
                        before = gradients[number]
                        gradients[number] = part if before is None else before + part
        return total, gradients


class _WithGradient(torch.autograd.Function):
    """Compute gradients on the way forward, so that no group's graph outlives it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, sets: SetDistances, which: Sequence[int]) -> Tensor:
        """Measure all images, and keep their gradients."""
        wanted = ctx.needs_input_grad[0]
        total, gradient = images.new_empty(len(images)), torch.empty_like(images if wanted else images[:0])
        for mine, each, found in sets.measure_all(images, which, gradient=wanted):
            total[mine] = each
            if found is not None:
                gradient[mine] = found
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        """Scale each image's gradient by what is asked of its distance."""
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None, None, None], None, None


def _images_at_once(loss: Loss[Any], pictures: Pictures) -> int:
    """Count the images that are encoded at a time."""
    if pictures.device.type != "cpu":
        return IMAGES_AT_ONCE
    if any(isinstance(module, LossNetwork) for module in loss.modules()):
        # torch takes other convolutions for one image than for two; by their last bits, searches part.
        return 1
    return max(1, min(IMAGES_AT_ONCE, PIXELS_AT_ONCE // pictures.shape[-2:].numel()))
