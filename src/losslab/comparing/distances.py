"""Distances of many picture files: each is encoded once where memory allows."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from losslab import images
from losslab.data.pictures import first_of
from losslab.data.tiles import tiles
from losslab.losses.pairs import PairDistances
from losslab.losses.panel import Panel
from losslab.types import Bytes

Rows = Float[Tensor, "pairs losses"]
"""A distance a pair and loss."""

Measured = Iterator[tuple[Int[Tensor, " some"], Float[Tensor, "some losses"]]]
"""Numbers of pairs and their distances, some pairs at a time."""

HINT = "size=64 resizes all to 64×64"


def picture(path: Path, size: int | None) -> Bytes:
    """Read a picture, (3, H, W), and scale it to a square, unless `size` is None."""
    found = images.read(path)
    return found if size is None else images.to_bytes(images.resize(images.to_float(found), size, size))


def table_of(paths: Sequence[Path], size: int | None) -> Bytes:
    """Read pictures of one size, or bring them to one, (P, 3, H, W).

    Raises:
        ValueError: their sizes differ; the message names those that are not of the most frequent one.
        UnreadableImageError: a file is no picture.
    """
    found = [picture(path, size) for path in paths]
    sides = [_side(one) for one in found]
    usual = max(sides, key=sides.count)
    others = [f"{path} {side}" for path, side in zip(paths, sides, strict=True) if side != usual]
    if others:
        most = f"{paths[0]} {usual}" if len(paths) == 2 else f"most have {usual}"
        raise ValueError(f"the pictures differ in height × width: {most} and {first_of(others)}; {HINT}")
    return torch.stack(found)


def how(pictures: Bytes | None, size: int | None) -> str:
    """Say of what size pictures are, and how they came to it.

    Args:
        pictures: any of them; None where pairs may have sizes of their own.
        size: side that they were scaled to, or None.
    """
    if size is not None:
        return f"resized to {size}×{size} pixels (bilinear, antialiased)"
    return "each pair in its own size" if pictures is None else f"{_side(pictures)} pixels"


def check_sizes(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse pairs whose two pictures differ in size, before the first one is measured.

    Raises:
        ValueError: the message names them.
        UnreadableImageError: a file is no picture.
    """
    sides = [[_side(images.read(path)) for path in pair] for pair in pairs]
    bad = [f"{a} {p} and {b} {q}" for (a, b), (p, q) in zip(pairs, sides, strict=True) if p != q]
    if bad:
        raise ValueError(f"pictures of a pair differ in height × width: {first_of(bad)}; {HINT}")


def between(panel: Panel, pairs: Sequence[tuple[Path, Path]], size: int | None) -> Measured:
    """Give the distances of pairs of files, some pairs at a time, in order; each pair may have its own size."""
    both = (torch.stack([picture(path, size) for path in pair]) for pair in pairs)
    begin = 0
    for shape, alike in groupby(both, key=lambda one: one.shape):
        at_once = panel.at_once(2 * shape[-2:].numel())
        while some := [*islice(alike, at_once)]:
            (found,) = panel.measure(*images.to_float(torch.stack(some, 1)))
            yield torch.arange(begin, begin + len(some)), torch.stack([*found.values()], 1)
            begin += len(some)


def within(panel: Panel, pictures: Bytes, pairs: Int[Tensor, "pairs 2"]) -> Measured:
    """Give the distances of pairs out of one table, some pairs at a time, whose encodings memory can hold.

    Args:
        panel: of losses.
        pictures: the table, (P, 3, H, W).
        pairs: indices of pictures.

    Returns:
        Numbers of pairs and their distances, in an order of its own.
    """
    cpu = torch.device("cpu")
    distances = PairDistances(panel, pictures)
    capacity = distances.capacity(cpu)
    for numbers in tiles(pairs, distances.block(capacity)):
        yield numbers, distances.of(pairs[numbers], cpu, capacity).T


def standard_error(rows: Float64[Tensor, "pairs losses"], pairs: Int[Tensor, "pairs _"]) -> Float64[Tensor, " losses"]:
    """Give the standard error of a mean over pairs that may share pictures, by leaving out one picture at a time.

    Formula: √((P - 1)/P Σ_p (m_p - m̄)²), m_p the mean over the pairs without picture p.

    With one number a pair, such as that of a file name, it is s/√P. For all pairs it is nearly free of bias, for
    consecutive ones 1.2 to 1.4 times too large.

    Args:
        rows: distances.
        pairs: what each is of, such as the numbers of two pictures, or of one file name.

    Returns:
        One number a loss; NaN where a picture is in all pairs, as with two or fewer pictures.

    Paper and code: the scripts of `lpips` give the deviation over the root of the number of pairs, also where these
        share pictures, and divide by n instead of n - 1.

    Source: Arvesen, Annals of Mathematical Statistics 40, 1969.

    Example:
        >>> standard_error(torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[0], [1]]))
        tensor([1.], dtype=torch.float64)
    """
    count, width = int(pairs.max()) + 1, pairs.shape[1]
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, pairs.flatten(), rows.repeat_interleave(width, 0))
    means = (rows.sum(0) - sums) / (len(rows) - pairs.flatten().bincount())[:, None]
    return ((count - 1) / count * (means - means.mean(0)).square().sum(0)).sqrt()


def _side(one: Bytes) -> str:
    return f"{one.shape[-2]}×{one.shape[-1]}"
