"""Distances of pairs out of a table of pictures, each picture encoded as seldom as memory allows."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from losslab import images
from losslab.losses.joining import joined
from losslab.losses.panel import Panel
from losslab.types import Bytes, Drawn, Image, leaves, map_encoding

BYTES_HELD = 2**30
"""Of encodings that are held at a time; of 64 × 64 pixels, VGG-16's four slots and five comparisons take 6 MB."""


class PairDistances:
    """The distances of pairs of pictures under each loss of a panel.

    Where each reference has the same number of partners and no picture comes twice, as in most sets of triplets,
    pictures are encoded some at a time and forgotten. Else the encodings of all pictures asked for are held, and
    compared.

    Args:
        panel: of losses.
        pictures: the table, (P, 3, H, W).
    """

    def __init__(self, panel: Panel, pictures: Bytes) -> None:
        """Keep both."""
        self.panel, self.pictures = panel, pictures

    @torch.no_grad()
    def capacity(self, device: torch.device) -> int:
        """Count the pictures whose encodings are held at a time, two at least."""
        encoding = self.panel.encode(self._images(torch.tensor([0]), device))
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in leaves(encoding)}
        return max(2, BYTES_HELD // sum(storages.values()))

    def block(self, capacity: int) -> int:
        """Count the pictures of a tile's row or column whose encodings, with those of the other side, can be held."""
        return len(self.pictures) if len(self.pictures) <= capacity else capacity // 2

    @torch.no_grad()
    def of(self, pairs: Int[Tensor, "pairs 2"], device: torch.device, capacity: int) -> Float[Tensor, "losses pairs"]:
        """Give the distance of each pair under each loss, on the CPU, as the panel is drawn now.

        Args:
            pairs: indices of pictures: reference and partner.
            device: to compute on.
            capacity: pictures whose encodings may be held at a time, from `capacity`.
        """
        order = pairs[:, 0].sort(stable=True).indices
        found = torch.empty(len(self.panel.names), len(pairs))
        found[:, order] = self._sorted(pairs[order], device, capacity)
        return found

    def _sorted(self, pairs: Tensor, device: torch.device, capacity: int) -> Tensor:
        references, counts = pairs[:, 0].unique_consecutive(return_counts=True)
        partners = int(counts[0])
        used = torch.cat([references, pairs[:, 1]]).unique()
        if bool((counts == partners).all()) and len(used) == len(references) + len(pairs):
            return self._streamed(references, pairs[:, 1].reshape(-1, partners), device)
        if len(used) <= capacity or len(pairs) == 1:
            return self._held(pairs, used, device)
        return torch.cat([self._sorted(some, device, capacity) for some in pairs.tensor_split(2)], 1)

    def _streamed(self, references: Tensor, partners: Tensor, device: torch.device) -> Tensor:
        table = [self._images(one, device) for one in (references, *partners.unbind(1))]
        found = self.panel.measure(*table)
        return torch.stack([torch.stack([*each.values()]) for each in found], -1).flatten(1).cpu()

    def _held(self, pairs: Tensor, used: Tensor, device: torch.device) -> Tensor:
        encodings = self._encoded(used, device)
        first, second = torch.searchsorted(used, pairs).to(device).unbind(1)
        found = [
            torch.stack([*self.panel.parts(_picked(encodings, row), _picked(encodings, some)).values()])
            for row, some in self._rows(first, second)
        ]
        return torch.cat(found, 1).cpu()

    def _rows(self, first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Give each reference with some of its partners, so that maps stay small."""
        side = self.pictures.shape[-2:].numel()
        at_once = self.panel.at_once(side)
        counts = first.unique_consecutive(return_counts=True)[1].tolist()
        for row, partners in zip(first.split(counts), second.split(counts), strict=True):
            for some in partners.split(at_once):
                yield row[:1], some

    def _encoded(self, used: Tensor, device: torch.device) -> Drawn[dict[str, Any]]:
        """Encode pictures some at a time, into tensors that have room for all."""
        at_once = self.panel.at_once(self.pictures.shape[-2:].numel())
        made = (self.panel.encode(self._images(some, device)) for some in used.split(at_once))
        return joined(made, len(used))  # type: ignore[return-value]

    def _images(self, numbers: Tensor, device: torch.device) -> Image:
        return images.to_float(self.pictures[numbers].to(device))


def _picked(encoding: Drawn[dict[str, Any]], numbers: Tensor) -> Drawn[dict[str, Any]]:
    """Give the encodings of some pictures; of neighbours, without a copy."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and bool((numbers.diff() == 1).all()):
        return map_encoding(lambda one: one[first : last + 1], encoding)  # type: ignore[return-value]
    return map_encoding(lambda one: one[numbers], encoding)  # type: ignore[return-value]
