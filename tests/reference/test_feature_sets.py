"""Gram against piq, SWD against POT, MMD against geomloss, contextual and CoBi against loops and plain autograd."""

import math
from typing import Any

import ot
import pytest
import torch
from geomloss import SamplesLoss
from piq.perceptual import StyleLoss
from torch import Tensor

from losslab.comparisons import pairs
from losslab.comparisons.base import Comparison
from losslab.comparisons.cobi import CoBi
from losslab.comparisons.contextual import Contextual
from losslab.comparisons.gram import Gram, GramTrace
from losslab.comparisons.mmd import MMD
from losslab.comparisons.sliced_wasserstein import SlicedWasserstein


def distance(comparison: Comparison[Any], a: Tensor, b: Tensor) -> Tensor:
    return comparison.compare(comparison.encode(a), comparison.encode(b))


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype) + 0.3


@pytest.mark.parametrize(("divisor", "count"), [("none", 1), ("places", 30), ("all", 210)])
@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_gram_is_that_of_piq(norm: str, power: int, divisor: str, count: int) -> None:
    """Matrices of piq over the divisor, mean absolute or squared difference, and their diagonals, to 1e-12."""
    x, y = maps(3, 7, 5, 6)
    difference = (StyleLoss.gram_matrix(x) - StyleLoss.gram_matrix(y)).abs().squeeze(1) / count
    found = distance(Gram(norm, divisor), x, y)
    torch.testing.assert_close(found, (difference**power).mean(dim=(1, 2)), rtol=1e-12, atol=0)
    diagonal = difference.diagonal(dim1=1, dim2=2)
    found = distance(GramTrace(norm, divisor), x, y)
    torch.testing.assert_close(found, (diagonal**power).mean(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("projections", [None, 9])
def test_swd_is_that_of_pot(norm: str, power: int, projections: int | None) -> None:
    """W1, and W2 squared, of the vectors at all places under our directions, to 1e-12; one draw of any seed."""
    x, y = maps(2, 4, 5, 6)
    swd = SlicedWasserstein(projections, norm, seed=5)
    found = distance(swd, x, y)
    (directions,) = swd.buffers()
    for i in range(2):
        p, q = (one[i].permute(1, 2, 0).reshape(30, 4).numpy() for one in (x, y))
        expected = ot.sliced_wasserstein_distance(p, q, projections=directions.T.numpy(), p=power) ** power
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-12)


def test_swd_tends_to_the_integral_over_the_sphere() -> None:
    """Sets of one vector each are |θ · (p - q)| apart: on average ½ |p - q| for 3 features, and a third for squares."""
    p, q = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    q[:, 0] = 2.0
    assert float(distance(SlicedWasserstein(20_000), p, q)) == pytest.approx(2 * 0.5, rel=0.02)
    assert float(distance(SlicedWasserstein(20_000, "l2"), p, q)) == pytest.approx(4 / 3, rel=0.03)


@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_mmd_is_twice_that_of_geomloss(sigma: float) -> None:
    """The Gaussian kernel of this sigma, value to 1e-9 and gradient to 1e-8, for maps of two sizes."""
    x, y = torch.randn(1, 4, 5, 6).double().requires_grad_(), torch.randn(1, 4, 7, 3).double() + 0.3
    p, q = (one[0].flatten(1).T.contiguous() for one in (x, y))
    expected = 2 * SamplesLoss("gaussian", blur=sigma, backend="tensorized")(p, q)
    found = distance(MMD("gaussian", sigma), x, y)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_linear_mmd_is_the_mean_of_its_kernel() -> None:
    """Means of p · q over all pairs of places, to 1e-12."""
    x, y = maps(1, 4, 3, 5)
    p, q = (one[0].flatten(1) for one in (x, y))
    expected = (p.T @ p).mean() + (q.T @ q).mean() - 2 * (p.T @ q).mean()
    torch.testing.assert_close(distance(MMD("linear"), x, y)[0], expected, rtol=1e-12, atol=1e-13)


def test_mmd_in_32_bits() -> None:
    """Five digits are right, also for features far from zero, since they are moved there first."""
    x, y = (one.float() + 300 for one in maps(1, 8, 12, 12))
    exact = distance(MMD("gaussian", 3.0), x.double(), y.double())
    torch.testing.assert_close(distance(MMD("gaussian", 3.0), x, y).double(), exact, rtol=1e-5, atol=0)


def feature_distance(p: list[float], q: list[float], kind: str) -> float:
    """Compute one distance; for cosine p and q come centred."""
    if kind == "cosine":
        dot = sum(s * t for s, t in zip(p, q, strict=True))
        return 1 - dot / math.sqrt(sum(s * s for s in p) * sum(t * t for t in q))
    return sum(abs(s - t) ** {"l1": 1, "l2": 2}[kind] for s, t in zip(p, q, strict=True))


def table_by_loops(x: Tensor, y: Tensor, kind: str) -> list[list[float]]:
    """List the distances of each place of x to each one of y, maps (C, h, w)."""
    middle = y.mean(dim=(1, 2), keepdim=True) if kind == "cosine" else 0
    places = [[column.tolist() for column in (one - middle).flatten(1).T] for one in (x, y)]
    return [[feature_distance(p, q, kind) for q in places[1]] for p in places[0]]


def similarities_by_loops(table: list[list[float]], h: float, eps: float) -> list[list[float]]:
    """Compute equations 2 to 4 of Mechrez et al."""
    found = []
    for row in table:
        weights = [math.exp((1 - d / (min(row) + eps)) / h) for d in row]
        found.append([w / sum(weights) for w in weights])
    return found


def loss_by_loops(similarities: list[list[float]], floor: float) -> float:
    columns = list(zip(*similarities, strict=True))
    return -math.log(sum(max(column) for column in columns) / len(columns) + floor)


def grid_by_loops(rows: int, columns: int, grid: float) -> list[list[float]]:
    """List the distances of all pairs of places."""
    places = [(grid * i / rows, grid * j / columns) for i in range(rows) for j in range(columns)]
    return [[math.dist(p, q) for q in places] for p in places]


@pytest.mark.parametrize("kind", ["cosine", "l1", "l2"])
@pytest.mark.parametrize(("h", "eps", "floor"), [(0.5, 1e-5, 1e-5), (0.1, 0.3, 0.0)])
def test_contextual_by_loops(kind: str, h: float, eps: float, floor: float) -> None:
    """The formula, place by place, a against b and not the other way, to 1e-9."""
    x, y = maps(2, 4, 4, 5)
    found = distance(Contextual(h, kind, eps=eps, floor=floor), x, y)
    for i in range(2):
        expected = loss_by_loops(similarities_by_loops(table_by_loops(x[i], y[i], kind), h, eps), floor)
        assert float(found[i]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["cosine", "l2"])
@pytest.mark.parametrize(("weight", "grid", "eps"), [(0.1, 1.0, 0.1), (0.4, 255.0, 2e-3)])
def test_cobi_by_loops(kind: str, weight: float, grid: float, eps: float) -> None:
    """Both forms: the code's blend of similarities, and the paper's sum of distances, to 1e-9."""
    x, y = maps(1, 4, 4, 5)
    near, table = grid_by_loops(4, 5, grid), table_by_loops(x[0], y[0], kind)
    squares = similarities_by_loops([[d * d for d in row] for row in near], 0.5, eps)
    mixed = [
        [(1 - weight) * s + weight * t for s, t in zip(*rows, strict=True)]
        for rows in zip(similarities_by_loops(table, 0.5, eps), squares, strict=True)
    ]
    found = distance(CoBi(weight, distance=kind, eps=eps, grid=grid), x, y)
    assert float(found) == pytest.approx(loss_by_loops(mixed, 1e-5), rel=1e-9)
    least = [min(d + weight * n for d, n in zip(*rows, strict=True)) for rows in zip(table, near, strict=True)]
    found = distance(CoBi(weight, "distances", distance=kind, grid=grid), x, y)
    assert float(found) == pytest.approx(sum(least) / len(least), rel=1e-9)


def plain_contextual(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """Compute the loss of one pair from its whole table, by operations that autograd differentiates."""
    p, q = x.flatten(2).mT, y.flatten(2).mT
    if kind == "cosine":
        middle = q.mean(1, keepdim=True)
        p, q = ((one - middle) / (one - middle).norm(dim=-1, keepdim=True) for one in (p, q))
        table = 1 - p @ q.mT
    else:
        difference = p[:, :, None] - q[:, None]
        table = (difference.abs() if kind == "l1" else difference.square()).sum(-1)
    weights = ((1 - table / (table.min(-1, keepdim=True)[0] + 1e-5)) / 0.5).exp()
    similarity = weights / weights.sum(-1, keepdim=True)
    return -(similarity.max(1)[0].mean(-1) + 1e-5).log()


@pytest.mark.parametrize("kind", ["cosine", "l1", "l2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_contextual_gradient_is_the_plain_one(
    kind: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradients of both sides, in tiles of 20 rows, relative to the largest entry."""
    monkeypatch.setattr(pairs, "TILE", {True: 20 * 256, False: 20 * 256})
    x, y = (one.requires_grad_() for one in maps(2, 8, 16, 16, dtype=dtype))
    found, expected = distance(Contextual(distance=kind), x, y), plain_contextual(x, y, kind)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
    for one, other in zip(*(torch.autograd.grad(of.sum(), (x, y)) for of in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))
