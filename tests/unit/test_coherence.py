"""PatchCoherence is its formula, with the gradient of the formula, in tiles of any size."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from losslab.losses import coherence
from losslab.losses.coherence import PatchCoherence


def by_loops(x: Tensor, y: Tensor, size: int, stride: int, alpha: float) -> float:
    """Compute the formula on two images (C, H, W) patch by patch."""

    def patches(image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        places = [(i, j) for i in range(0, height - size + 1, stride) for j in range(0, width - size + 1, stride)]
        return [2 * image[:, i : i + size, j : j + size] - 1 for i, j in places]

    candidates, references = patches(x), patches(y)
    table = [[float((p - q).square().mean()) for q in references] for p in candidates]
    least = [min(row[j] for row in table) for j in range(len(references))]
    best = [min(d / (alpha + m) for d, m in zip(row, least, strict=True)) for row in table]
    return sum(best) / len(best)


def whole_table(x: Tensor, y: Tensor, size: int, alpha: float) -> Tensor:
    """Compute the formula from the table of all distances, by autograd's minima, (N,)."""
    p, q = (functional.unfold(2 * image - 1, size).mT for image in (x, y))
    table = (p.unsqueeze(-2) - q.unsqueeze(-3)).square().mean(-1)
    return (table / (alpha + table.min(-2, keepdim=True)[0])).min(-1)[0].mean(-1)


@pytest.mark.parametrize(("size", "stride", "alpha"), [(3, 1, 0.05), (4, 3, 0.005)])
def test_is_the_formula_by_loops(size: int, stride: int, alpha: float) -> None:
    """Every patch, every match, images taken in [-1, 1], in 64 bits to 1e-12."""
    x, y = torch.rand(2, 2, 9, 10, dtype=torch.float64), torch.rand(2, 2, 9, 10, dtype=torch.float64)
    found = PatchCoherence(size, stride, alpha)(x, y)
    for i in range(2):
        assert float(found[i]) == pytest.approx(by_loops(x[i], y[i], size, stride, alpha), abs=1e-12)


@pytest.mark.parametrize("tile", [1, 700, 5000, 2**20])
def test_tiles_do_not_matter(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile for all pairs, a tile for some, and several tiles a pair give one value and its exact gradient."""
    monkeypatch.setattr(coherence, "TILE", {True: tile, False: tile})
    x, y = (torch.rand(5, 3, 11, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found, expected = PatchCoherence(4)(x, y), whole_table(x, y, 4, 0.05)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(value.square().sum(), (x, y)) for value in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


class Largest(TorchDispatchMode):
    """Note the size of the largest tensor that an operation makes."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [one for one in (made if isinstance(made, (tuple, list)) else [made]) if isinstance(one, Tensor)]
        self.values = max(self.values, *(one.numel() for one in tensors), 0)
        return made


def test_memory_grows_with_the_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither way, forward or backward, holds a table of all patches by all patches."""
    monkeypatch.setattr(coherence, "TILE", {True: 2**14, False: 2**14})
    x = torch.rand(1, 3, 34, 34, requires_grad=True)
    with Largest() as largest:
        PatchCoherence(3)(x, torch.rand(1, 3, 34, 34)).sum().backward()
    assert 1024 * 27 <= largest.values < 1024 * 40  # 32×32 patches of 27 values; the table would have 1024²


def test_single_precision_is_enough() -> None:
    """The search by a matrix product in 32 bits costs the loss five digits at most, on smooth images too."""
    x, y = (functional.avg_pool2d(torch.rand(3, 3, 36, 36), 5, 1) for _ in range(2))
    exact = PatchCoherence()(x.double(), y.double())
    torch.testing.assert_close(PatchCoherence()(x, y).double(), exact, rtol=1e-5, atol=0)


def test_each_pair_searches_its_own_images() -> None:
    """Batch axes broadcast both ways: every pair of three and two images at once."""
    x, y = torch.rand(3, 1, 3, 12, 12), torch.rand(2, 3, 12, 12)
    loss = PatchCoherence(5)
    singles = torch.stack([torch.stack([loss(x[i, 0], y[j]) for j in range(2)]) for i in range(3)])
    torch.testing.assert_close(loss.compare(loss.encode(x), loss.encode(y)), singles)


def test_candidate_and_reference_differ() -> None:
    """Candidates made of the reference's patches cost nothing, though they lack most of them; not so the other way."""
    reference = torch.rand(1, 3, 21, 21)
    candidate = reference[..., :7, 7:14].repeat(1, 1, 3, 3)
    loss = PatchCoherence(7, 7)
    torch.testing.assert_close(loss(candidate, reference), torch.zeros(1), rtol=0, atol=1e-9)
    assert loss(reference, candidate) > 0.1


def test_missing_patches_attract() -> None:
    """Of two equally near patches of the reference, the one that the candidate lacks is the match."""
    first, second, between = 0.0, 0.5, 0.25
    candidate = torch.tensor([first, between]).repeat_interleave(4).reshape(1, 2, 2, 2).transpose(1, 2).reshape(1, 2, 4)
    reference = torch.tensor([first, second]).repeat_interleave(4).reshape(1, 2, 2, 2).transpose(1, 2).reshape(1, 2, 4)
    alpha = 0.05
    # In [-1, 1] `between` is 0.5 off both, D = 0.25; least is 0 for `first` and 0.25 for `second`.
    found = PatchCoherence(2, 2, alpha)(candidate, reference)
    assert float(found) == pytest.approx((0.0 + 0.25 / (alpha + 0.25)) / 2)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="1 or more pixels, got 7 and 0"):
        PatchCoherence(stride=0)
    with pytest.raises(ValueError, match="alpha is more than 0, got 0"):
        PatchCoherence(alpha=0)
