"""All patches of an image, laid out in tiles, and which tiles meet in how many windows."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from losslab.comparisons.pairs import wide
from losslab.images import SIGNED

BORDERS = {"reflect": "reflect", "zero": "constant", "none": None}

WHOLE = "patch"
"""One mean is taken off all channels of a patch, instead of each channel's own."""

TILE = 512
"""Patches a side of a tile, at most; a block of more is cut into several."""


class Pairs(NamedTuple):
    """Which tiles meet, `left` and `right`, (k,), and what the sum of a kernel over such a pair counts, (k,)."""

    left: Tensor
    right: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Patches:
    """The patches of an image, and square windows of them.

    Windows start at multiples of the stride and never leave the grid of patches. The grid is cut into blocks of
    stride×stride patches, which windows that overlap share, and a block of many patches into several tiles.

    Args:
        size: side of a patch in pixels.
        step: pixels from patch to patch.
        border: what lies beyond an image: "reflect", "zero" (grey), or "none", where patches end at the border.
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean.
        window: side of a window in patches; None is one window over all patches.
        stride: step from window to window in patches; `window` is a multiple of it.

    Raises:
        ValueError: a size below 1, an unknown border, an even patch that needs a border, a patch of which its mean
            leaves nothing, or a window that is no multiple of the stride.
    """

    size: int
    step: int = 1
    border: str = "none"
    remove_mean: bool | str = False
    window: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(self.size, self.step) < 1:
            raise ValueError(f"sides and steps of patches are at least 1 pixel, got {self.size} and {self.step}")
        check_mean(self.size, remove_mean=self.remove_mean)
        if self.border not in BORDERS:
            raise ValueError(f"border is one of {', '.join(BORDERS)}, got {self.border!r}")
        if self.border != "none" and self.size % 2 == 0:
            raise ValueError(f"patch_size is an odd number of pixels where there is a border, got {self.size}")
        if self.window is not None and (min(self.stride, self.window) < 1 or self.window % self.stride):
            raise ValueError(f"window is a multiple of stride, got window {self.window} and stride {self.stride}")

    @property
    def margin(self) -> int:
        """Pixels that are added on each side of an image."""
        return 0 if self.border == "none" else self.size // 2

    @property
    def min_side(self) -> int:
        """Smallest image with a window, in pixels; a reflected border is narrower than the image."""
        pixels = self.step * ((self.window or 1) - 1) + self.size - 2 * self.margin
        return max(pixels, self.margin + 1) if self.border == "reflect" else pixels

    def cut(self, images: Tensor) -> Tensor:
        """Give the patches of images (B, C, H, W) in [0, 1], taken in [-1, 1], tile by tile, (B, tiles, C·size², n).

        The last tile of a block is filled up with grey patches. They are the same in every image, and so cancel in an
        MMD, a norm of the difference of two distributions.
        """
        signed = SIGNED * images - 1
        mode = BORDERS[self.border]
        padded = functional.pad(signed, (self.margin,) * 4, mode=mode) if mode else signed
        patches = functional.unfold(padded, self.size, stride=self.step)
        if self.remove_mean:
            groups = patches.unflatten(1, (1, -1) if self.remove_mean == WHOLE else (-1, self.size**2))
            patches = (groups - groups.mean(2, keepdim=True)).flatten(1, 2)
        rows, columns, height, width = self._blocks(images)
        grid = patches.unflatten(2, (-1, self._places(images.shape[-1])))[..., : rows * height, : columns * width]
        blocks = grid.reshape(*patches.shape[:2], rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
        return _tiles(blocks.flatten(4).flatten(1, 2))

    def pairs(self, images: Tensor, *, within: bool) -> Pairs:
        """Give the pairs of tiles of images (B, C, H, W); `within` one image, each stands for its mirror image too.

        The weights make the sum of a kernel over all pairs its mean over pairs of patches and over windows.
        """
        rows, columns, height, width = self._blocks(images)
        overlap = 1 if self.window is None else self.window // self.stride
        left, right, weights = _pairs(rows, columns, overlap, height * width, within)
        return Pairs(left.to(images.device), right.to(images.device), weights.to(images.device, wide(images)))

    def tile(self, images: Tensor) -> int:
        """Count the patches of a tile of images (B, C, H, W)."""
        _, _, height, width = self._blocks(images)
        return _parts(height * width)[1]

    def _places(self, pixels: int) -> int:
        return (pixels + 2 * self.margin - self.size) // self.step + 1

    def _blocks(self, images: Tensor) -> tuple[int, int, int, int]:
        """Give the rows and columns of blocks, and the height and width of a block in patches."""
        down, across = (self._places(pixels) for pixels in images.shape[-2:])
        if self.window is None:
            return 1, 1, down, across
        return down // self.stride, across // self.stride, self.stride, self.stride


def check_mean(size: int, *, remove_mean: bool | str) -> None:
    """Refuse what is no way to take means off, and patches of which their mean leaves nothing to compare.

    Raises:
        ValueError: another word, or means are taken off patches of one pixel; of a grey one nothing would be left.
    """
    if not isinstance(remove_mean, bool) and remove_mean != WHOLE:
        raise ValueError(f"remove_mean is true, false or {WHOLE!r}, got {remove_mean!r}")
    if remove_mean and size == 1:
        word = str(remove_mean).lower()
        raise ValueError(f"a patch of one pixel has nothing left without its mean: patch_size=1, remove_mean={word}")


def without_mean(filters: Tensor, *, remove_mean: bool | str) -> Tensor:
    """Take means off filters, (R, C, h, w), so that their products with patches are those with patches without means.

    Example:
        >>> filters = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
        >>> without_mean(filters, remove_mean=True).flatten().tolist()
        [-1.0, 1.0, -4.0, 4.0]
        >>> without_mean(filters, remove_mean="patch").flatten().tolist()
        [-2.0, 0.0, -3.0, 5.0]
    """
    if not remove_mean:
        return filters
    return filters - filters.mean(dim=(-3, -2, -1) if remove_mean == WHOLE else (-2, -1), keepdim=True)


def _tiles(blocks: Tensor) -> Tensor:
    """Cut blocks (B, blocks, d, n) into tiles of equal size."""
    count = blocks.shape[-1]
    parts, size = _parts(count)
    if parts == 1:
        return blocks
    return functional.pad(blocks, (0, parts * size - count)).unflatten(3, (parts, size)).transpose(2, 3).flatten(1, 2)


def _parts(patches: int) -> tuple[int, int]:
    """Give the tiles of a block, and the patches of a tile."""
    parts = -(-patches // TILE)
    return parts, -(-patches // parts)


@lru_cache(maxsize=32)
def _pairs(rows: int, columns: int, overlap: int, patches: int, within: bool) -> Pairs:  # noqa: FBT001
    """List the pairs of tiles of blocks that share a window of overlap×overlap blocks."""
    (top, bottom, down), (start, end, across) = _line(rows, overlap), _line(columns, overlap)
    parts, _ = _parts(patches)
    one, other = (part.flatten() for part in torch.meshgrid(*[torch.arange(parts)] * 2, indexing="ij"))
    left, right = (
        ((vertical[:, None] * columns + horizontal).reshape(-1, 1) * parts + part).flatten()
        for vertical, horizontal, part in ((top, start, one), (bottom, end, other))
    )
    weights = (down[:, None] * across).reshape(-1, 1).expand(-1, parts**2).flatten() / patches**2
    if not within:
        return Pairs(left, right, weights)
    upper = left <= right
    return Pairs(left[upper], right[upper], (weights * (2 - (left == right).double()))[upper])


def _line(blocks: int, overlap: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the pairs of blocks along one side that share a window, and the share of their mean that they make up."""
    one, other = torch.meshgrid(*[torch.arange(blocks)] * 2, indexing="ij")
    first, last = (torch.maximum(one, other) - overlap + 1).clamp(min=0), torch.minimum(one, other)
    shared = last.clamp(max=blocks - overlap) - first + 1  # windows that begin no later than both, and end no earlier
    one, other, shared = one[shared > 0], other[shared > 0], shared[shared > 0]
    return one, other, shared.double() / ((blocks - overlap + 1) * overlap**2)
