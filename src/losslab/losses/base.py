"""The loss protocol: encode each image once, then compare encodings as often as you like."""

from abc import ABC, abstractmethod
from itertools import chain
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from losslab import images as contract
from losslab.comparisons.base import Map
from losslab.types import Distance, Drawn, Encoding, Image, leaves

Kept = TypeVar("Kept", bound=Encoding)
"""The kind of encoding that a loss makes."""
Value = TypeVar("Value")

FULL_PRECISIONS = (torch.float32, torch.float64)


class Loss(nn.Module, ABC, Generic[Kept]):
    """A distance between images, in two halves.

    `encode` does all the work that needs one image only, `compare` all the work that needs both; neither changes its
    input or any state, so that several threads can call them at once. Leading axes broadcast as torch's do: N against
    N, or 1 against N. What is random in a loss changes by `draw` alone. Both compute in 32 bits or more, also under
    autocast.

    A loss writes `embed` and `terms`; a loss around another one calls the same two.
    """

    min_side: int = 1
    """Smallest legal height and width of an image, in pixels."""

    own_axes: int = 3
    """Last axes of the tensors in an encoding that describe one image; those before them are the batch's."""

    @property
    def name(self) -> str:
        """What logs and errors call this loss."""
        return type(self).__name__.lower()

    @abstractmethod
    def embed(self, images: Image) -> Kept:
        """Do `encode`'s work without its checks, on what may be no image: a band of a pyramid has negative values."""

    @abstractmethod
    def terms(self, a: Kept, b: Kept) -> dict[str, Distance]:
        """Give the terms that make up the distance of each pair, by name; a loss of one term gives it its own name."""

    def draw(self, step: int) -> None:
        """Set the random state to that of `step`, a function of the loss's seed and the step alone."""

    def encode(self, images: Tensor) -> Kept:
        """Check the images and do the work that needs one image only.

        Args:
            images: (*, C, H, W) in [0, 1], at least `min_side` pixels a side; half precision is turned into 32 bits.

        Returns:
            Tensors with the batch axes first; they may alias `images`.

        Raises:
            ValueError: the images break the range contract, are too small, or are not of the loss's type or device.
        """
        images = self.prepare(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.embed(images)

    def prepare(self, images: Tensor) -> Image:
        """Do the checks of `encode`, and turn half precision into 32 bits.

        Raises:
            ValueError: as `encode`.
        """
        contract.check(images, self.min_side, self.name)
        images = images if images.dtype in FULL_PRECISIONS else images.float()
        self._check_place(images)
        return images

    def parts(self, a: Kept, b: Kept) -> dict[str, Distance]:
        """Give the terms that `compare` adds up, by name.

        Raises:
            ValueError: the encodings have different shapes, parts or draws. Images of different sizes have a distance
                where their encodings have one shape, as those of sets of patches can; `forward` refuses them.
        """
        self.check_alike(a, b)
        with torch.autocast(leaves(a)[0].device.type, enabled=False):
            return self.terms(a, b)

    def compare(self, a: Kept, b: Kept) -> Distance:
        """Give the distance of two encodings, one number a pair; leading axes broadcast.

        Raises:
            ValueError: the encodings have different shapes, parts or draws. Images of different sizes have a distance
                where their encodings have one shape, as those of sets of patches can; `forward` refuses them.
        """
        return total(self.parts(a, b))

    def places(self, a: Kept, b: Kept) -> Map:
        """Do `maps`' work without its checks.

        Raises:
            ValueError: the loss does not go place by place.
        """
        raise ValueError(f"{self.name} does not go place by place")

    def maps(self, a: Kept, b: Kept) -> Map:
        """Give the distance at each pixel, (*, 1, H, W), whose mean is `compare`.

        A network's maps are scaled up, after which their mean is nearly that.

        Raises:
            ValueError: the encodings don't fit, or the loss does not go place by place.
        """
        self.check_alike(a, b)
        with torch.autocast(leaves(a)[0].device.type, enabled=False):
            return self.places(a, b)

    def forward(self, x: Tensor, y: Tensor) -> Distance:
        """Give the distance of each pair of images, (*,).

        Raises:
            ValueError: the images differ in size or channels, or one of them is refused by `encode`.
        """
        if x.shape[-3:] != y.shape[-3:]:
            raise ValueError(f"{self.name} compares images of one size, got {tuple(x.shape)} and {tuple(y.shape)}")
        return self.compare(self.encode(x), self.encode(y))

    def check_alike(self, a: Any, b: Any) -> None:
        """Refuse encodings that have no distance.

        Raises:
            ValueError: one would broadcast along an axis of the images, the batches don't broadcast, or the encodings
                have different parts, as those of two losses mostly have.
        """
        first, second = leaves(a), leaves(b)
        if len(first) != len(second):
            raise ValueError(f"{self.name} can't compare encodings of two losses: {len(first)} and {len(second)} parts")
        for p, q in zip(first, second, strict=True):
            if p.shape[-self.own_axes :] != q.shape[-self.own_axes :]:
                shapes = f"{tuple(p.shape)} and {tuple(q.shape)}"
                raise ValueError(f"{self.name} can't compare encodings of different sizes or losses: {shapes}")
            batches = [tuple(one.shape[: -self.own_axes]) for one in (p, q)]
            if any(m != n and 1 not in (m, n) for m, n in zip(*(batch[::-1] for batch in batches), strict=False)):
                raise ValueError(f"{self.name} compares N images with N or with 1, got batches {batches}")

    def _check_place(self, images: Tensor) -> None:
        """Refuse images that the loss's own tensors can't be combined with."""
        own = next((one for one in chain(self.buffers(), self.parameters()) if one.is_floating_point()), images)
        if own.dtype not in FULL_PRECISIONS:
            raise ValueError(f"{self.name} was turned to {own.dtype}, but losses need 32 bits or more: call .float()")
        if own.dtype != images.dtype or own.device != images.device:
            mine, theirs = (f"{one.dtype} on {one.device}" for one in (own, images))
            raise ValueError(f"{self.name} is {mine}, the images are {theirs}: move one of them by .to(...)")


def total(parts: dict[str, Distance]) -> Distance:
    """Add up the terms of a loss, (*,)."""
    return torch.stack(list(parts.values())).sum(0)


def same_draw(a: Drawn[Value], b: Drawn[Value]) -> tuple[Value, Value]:
    """Unwrap two encodings that were made under the same draw.

    Raises:
        ValueError: they were not; a distance between them would be noise.
    """
    if a.draw != b.draw:
        raise ValueError(f"can't compare encodings of two draws ({a.draw} and {b.draw}): encode the older one again")
    return a.value, b.value
