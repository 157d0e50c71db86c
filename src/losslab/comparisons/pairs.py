"""All pairs of places of two feature maps, a tile of them at a time: no table of places × places is ever whole."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from losslab.comparisons.base import Arranged

Points: TypeAlias = Float[Tensor, "*#batch _ _"]
"""Places as vectors; the two sides of a table have vectors of one length."""

Table: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Makes rows of tables, (n, k, columns), from n×k points, from n×columns points, and from the numbers of the rows."""

# Numbers of all tables together that are held at a time, and a few times over. Measured on 16,384 places and one
# thread: 1 MiB is fastest, since all of it stays in the cache. Other devices have none such, and want more work.
TILE = {True: 2**18, False: 2**25}


def wide(of: Tensor) -> torch.dtype:
    """Give the type in which sums of many numbers lose nothing: 64 bits, where the device has them."""
    return torch.float32 if of.device.type == "mps" else torch.float64


def points(features: Arranged) -> Points:
    """List the features of each place, (*, h·w, C)."""
    return features.flatten(-2).mT


def squared_distances(p: Points, q: Points) -> tuple[Points, Points]:
    """Give points whose inner products are the squared distances of p and q: one product of matrices makes them all.

    Both are moved by the mean of q before: the smaller the norms, the fewer digits their difference loses.
    """
    middle = q.mean(-2, keepdim=True)
    p, q = p - middle, q - middle
    left = [-2 * p, p.square().sum(-1, keepdim=True), torch.ones_like(p[..., :1])]
    right = [q, torch.ones_like(q[..., :1]), q.square().sum(-1, keepdim=True)]
    return torch.cat(left, dim=-1), torch.cat(right, dim=-1)


def column_maxima(table: Table, left: Points, right: Points) -> Float[Tensor, "*#batch columns"]:
    """Give the largest number of each column of tables that have a row for each point of `left`.

    Args:
        table: differentiable; a row depends on its own point of `left` and on all points of `right`.
        left: (*, rows, D); leading axes broadcast.
        right: (*, columns, D).

    Returns:
        The maxima. The backward pass makes the rows that hold one again, tile by tile, and no others; a second
        derivative holds whole tables.
    """
    found: Tensor = _Reduced.apply(table, _maxima, left, right)
    return found


def means(table: Table, left: Points, right: Points) -> Float[Tensor, "*#batch"]:
    """Give the mean of each table, in 64 bits where the device has them; all else is as for `column_maxima`."""
    found: Tensor = _Reduced.apply(table, _mean, left, right)
    return found


class _Pairs:
    """The pairs of images of two batches that broadcast: some at a time, with as many rows as make a tile."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        self.sides = [side.reshape(-1, *side.shape[-2:]) for side in (left, right)]
        owners = [torch.arange(side.shape[:-2].numel(), device=side.device) for side in (left, right)]
        shapes = [side.shape[:-2] for side in (left, right)]
        self.owners = [one.reshape(of).expand(self.lead).reshape(-1) for one, of in zip(owners, shapes, strict=True)]
        # A side whose images are in one pair each needs no copy of them.
        self.whole = [len(side) == len(owner) for side, owner in zip(self.sides, self.owners, strict=True)]
        rows, columns = left.shape[-2], right.shape[-2]
        tile = TILE[left.device.type == "cpu"]
        self.pairs = max(1, min(len(self.owners[0]), tile // (rows * columns)))
        self.step = max(1, tile // (self.pairs * columns))
        self.rows = torch.arange(rows, device=left.device)

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Give some pairs at a time, by their numbers, with the left and the right side of each."""
        for start in range(0, len(self.owners[0]), self.pairs):
            some = slice(start, start + self.pairs)
            left, right = (
                side[some] if whole else side[owner[some]]
                for side, owner, whole in zip(self.sides, self.owners, self.whole, strict=True)
            )
            yield some, left, right


class _Reduced(torch.autograd.Function):
    """Forward keeps the points, and the number of the row that holds each maximum."""

    @staticmethod
    def forward(ctx: Any, table: Table, reduce: Callable[..., tuple[Tensor, ...]], *sides: Tensor) -> Tensor:
        pairs = _Pairs(*sides)
        found = [reduce(table, left, right, pairs.rows.split(pairs.step)) for _, left, right in pairs.chunks()]
        values, *winners = (torch.cat(of) for of in zip(*found, strict=True))
        ctx.table = table
        ctx.save_for_backward(*sides, *winners)
        return values.reshape(pairs.lead + values.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        left, right, *winners = ctx.saved_tensors
        winner, needs = winners[0] if winners else None, ctx.needs_input_grad[2:]
        # Somebody who has gradients recorded here will differentiate this one.
        pull = _slopes_by_autograd if torch.is_grad_enabled() else _slopes_by_tiles
        with torch.autocast(left.device.type, enabled=False):
            return None, None, *pull(ctx.table, (left, right), winner, grads[0], needs)


def _maxima(table: Table, left: Tensor, right: Tensor, tiles: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Give the maximum of each column, (n, columns), and the number of its row."""
    best = left.new_full(right.shape[:-1], -torch.inf)
    winner = torch.zeros_like(best, dtype=torch.long)
    for rows in tiles:
        values, where = table(left[:, rows], right, rows).max(1)
        winner = torch.where(values > best, rows[where], winner)
        best = torch.maximum(best, values)
    return best, winner


def _mean(table: Table, left: Tensor, right: Tensor, tiles: Iterable[Tensor]) -> tuple[Tensor]:
    """Give the mean of each table, (n,)."""
    total = left.new_zeros(left.shape[0], dtype=wide(left))
    for rows in tiles:
        total += table(left[:, rows], right, rows).sum(-1).sum(-1, dtype=wide(left))
    return (total / (left.shape[-2] * right.shape[-2]),)


def _slopes_by_tiles(
    table: Table, sides: tuple[Tensor, ...], winner: Tensor | None, grad: Tensor, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Give the gradient with respect to each side that needs one."""
    pairs = _Pairs(*(side.detach() for side in sides))
    grad = grad.to(sides[0]).reshape(len(pairs.owners[0]), -1)
    if winner is None:
        grad = grad / (sides[0].shape[-2] * sides[1].shape[-2])
    slopes = [side.new_zeros(side.shape) if need else None for side, need in zip(pairs.sides, needs, strict=True)]
    for some, left, right in pairs.chunks():
        i, j = (owner[some] for owner in pairs.owners)
        for rows in (pairs.rows if winner is None else winner[some].unique()).split(pairs.step):
            weights = grad[some, None]
            if winner is not None:
                weights = weights * (winner[some, None] == rows[:, None])
            own, others = _pulled(table, left[:, rows], right, rows, weights, needs)
            if slopes[0] is not None and own is not None:
                places = i[:, None] * len(pairs.rows) + rows
                slopes[0].view(-1, own.shape[-1]).index_add_(0, places.flatten(), own.flatten(0, 1))
            if slopes[1] is not None and others is not None:
                if pairs.whole[1]:
                    slopes[1][some] += others  # in a fraction of the time of index_add_
                else:
                    slopes[1].index_add_(0, j, others)
    return [None if slope is None else slope.reshape(side.shape) for slope, side in zip(slopes, sides, strict=True)]


def _pulled(
    table: Table, left: Tensor, right: Tensor, rows: Tensor, weights: Tensor, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Pull weights of some rows of tables back to both sides, where they are needed."""
    with torch.enable_grad():
        leaves = [side.detach().requires_grad_(need) for side, need in zip((left, right), needs, strict=True)]
        made = table(leaves[0], leaves[1], rows)
    found = iter(torch.autograd.grad(made, [leaf for leaf in leaves if leaf.requires_grad], weights.expand_as(made)))
    return [next(found) if need else None for need in needs]


def _slopes_by_autograd(
    table: Table, sides: tuple[Tensor, ...], winner: Tensor | None, grad: Tensor, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Give what `_slopes_by_tiles` gives, itself differentiable."""
    pairs = _Pairs(*sides)
    left, right = (side[owner] for side, owner in zip(pairs.sides, pairs.owners, strict=True))
    made = table(left, right, pairs.rows)
    values = made.mean(dim=(1, 2)) if winner is None else made.gather(1, winner[:, None]).squeeze(1)
    wanted = [side for side, need in zip(sides, needs, strict=True) if need]
    found = iter(torch.autograd.grad(values.reshape(grad.shape).to(grad), wanted, grad, create_graph=True))
    return [next(found) if need else None for need in needs]
