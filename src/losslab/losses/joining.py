"""Encodings of some images at a time, brought together."""

from collections.abc import Iterable

import torch
from torch import Tensor

from losslab.types import Encoding, leaves, map_encoding


def joined(made: Iterable[Encoding], count: int) -> Encoding:
    """Bring encodings together into tensors that have room for all: no more than one of them is held besides.

    Args:
        made: encodings of one kind, each of some images, with one batch axis.
        count: images of all.

    Raises:
        ValueError: there are none.

    Example:
        >>> import torch
        >>> joined([torch.zeros(2, 3), torch.ones(1, 3)], 3)[:, 0]
        tensor([0., 0., 1.])
    """
    room, begin, last = list[Tensor](), 0, None
    for last in made:  # the last one's form is that of the whole
        parts = leaves(last)
        room = room or [_room(part, count) for part in parts]
        for whole, part in zip(room, parts, strict=True):
            whole[begin : begin + len(part)] = part
        begin += len(parts[0])
    if last is None:
        raise ValueError("there are no encodings to join")
    columns = iter(room)
    return map_encoding(lambda _: next(columns), last)


def _room(part: Tensor, count: int) -> Tensor:
    """Give room for more images, laid out as these are: operations of two layouts take up to three times as long."""
    in_rows = part.ndim != 4 or part.is_contiguous() or not part.is_contiguous(memory_format=torch.channels_last)
    layout = torch.contiguous_format if in_rows else torch.channels_last
    return torch.empty(count, *part.shape[1:], dtype=part.dtype, device=part.device, memory_format=layout)
