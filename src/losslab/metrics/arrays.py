"""What the metrics take: lists, numpy arrays or tensors of the CPU, turned into 64 bits and checked."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers: TypeAlias = NDArray[np.float64]
"""Numbers of any shape."""
Whole: TypeAlias = NDArray[np.int64]
"""Indices and counts of any shape."""
Flags: TypeAlias = NDArray[np.bool_]
"""Yes or no, of any shape."""


def numbers(values: ArrayLike, name: str) -> Numbers:
    """Give values as numbers of 64 bits, of which the last axis is not empty.

    Raises:
        ValueError: some are NaN or infinite, or there are none.
    """
    found = np.asarray(values, dtype=np.float64)
    if not found.ndim or not found.size:
        raise ValueError(f"{name} is an array (*, T) with at least one number, got shape {found.shape}")
    _refuse(~np.isfinite(found), f"{name} has NaN or infinite values", found)
    return found


def shares(values: ArrayLike, name: str) -> Numbers:
    """Give shares of judgements as numbers of 64 bits.

    Raises:
        ValueError: some are not from 0 to 1, or there are none.
    """
    found = numbers(values, name)
    _refuse((found < 0) | (found > 1), f"{name} is a share of judgements, from 0 to 1, but has others", found)
    return found


def indices(values: ArrayLike, name: str, limit: int | None = None) -> Whole:
    """Give whole numbers from 0, and below `limit` if there is one.

    Raises:
        ValueError: some are not.
    """
    found = np.asarray(values)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name} holds whole numbers, got {found.dtype}")
    wrong = found < 0 if limit is None else (found < 0) | (found >= limit)
    _refuse(wrong, f"{name} holds indices from 0" + (f" to {limit - 1}" if limit else "") + ", but has others", found)
    return found.astype(np.int64)


def same_length(**arrays: Numbers | Whole) -> int:
    """Give the length that the last axes of all arrays have.

    Raises:
        ValueError: they have different ones.
    """
    lengths = {name: array.shape[-1] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("these are of different lengths: " + ", ".join(f"{k} has {v}" for k, v in lengths.items()))
    return next(iter(lengths.values()))


def places(subset: ArrayLike, subsets: Sequence[str], reserved: frozenset[str]) -> Whole:
    """Check which subset each triplet belongs to, (T,).

    Raises:
        ValueError: an index is no subset's, a subset is empty, or a name stands twice or is `reserved`.
    """
    if len(set(subsets)) < len(subsets) or reserved & set(subsets):
        raise ValueError(f"subsets are names, none twice and none of {sorted(reserved)}, got {list(subsets)}")
    found = indices(subset, "subset", len(subsets))
    if found.ndim != 1:
        raise ValueError(f"subset has the shape (T,), got {found.shape}")
    counts = np.bincount(found, minlength=len(subsets))
    empty = [name for name, count in zip(subsets, counts, strict=True) if not count]
    if empty:
        raise ValueError(f"nothing belongs to the subsets {empty}: leave them out")
    return found


def _refuse(wrong: Flags, message: str, found: NDArray[np.generic]) -> None:
    """Say how many are wrong, and where the first one is."""
    if wrong.any():
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
        where = first[0] if len(first) == 1 else first
        raise ValueError(f"{message}: {int(wrong.sum())} of {wrong.size}, the first at {where}, {found[first]}")
