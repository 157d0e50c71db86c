"""Comparisons of features give what slow loops give, share what can be shared, and have a gradient everywhere."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.checks import check_number, check_switch, check_whole
from losslab.comparisons.base import Comparison
from losslab.comparisons.cosine import Cosine
from losslab.comparisons.dot import Dot
from losslab.comparisons.mean import Mean
from losslab.comparisons.sort import Sort, ascending
from losslab.comparisons.spatial import Spatial, unit
from losslab.comparisons.study import study
from losslab.comparisons.sum import Sum
from losslab.config import build, load, plain
from losslab.types import leaves

MINE = ("l1", "l2", "spatial", "mean", "sort", "spatial_mean", "spatial_sort", "cosine", "dot")


def compared(comparison: Comparison[Any], x: Tensor, y: Tensor) -> Tensor:
    return comparison.compare(comparison.encode(x), comparison.encode(y))


def configured(name: str, *overrides: str) -> Comparison[Any]:
    comparison: Comparison[Any] = build(plain(load(f"compare={name}", *overrides))["compare"])
    return comparison


def pair(channels: int = 5, count: int = 2) -> tuple[Tensor, Tensor]:
    x, y = (torch.randn(count, channels, 4, 3).double() for _ in range(2))
    return x.relu(), y.relu()


def slow(x: Tensor, y: Tensor, norm: str, channels: str, weights: Tensor | None, normalize: bool) -> float:
    """Compare one pair (C, h, w), number by number."""
    places = []
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            p, q = ([float(one) for one in map_[:, row, column]] for map_ in (x, y))
            if normalize:
                p, q = ([one / (math.sqrt(sum(each**2 for each in v)) + 1e-10) for one in v] for v in (p, q))
            terms = [abs(a - b) ** (1 if norm == "l1" else 2) for a, b in zip(p, q, strict=True)]
            if weights is not None:
                terms = [float(weight) * term for weight, term in zip(weights, terms, strict=True)]
            places.append(sum(terms) / (len(terms) if channels == "mean" else 1))
    return sum(places) / len(places)


def means(features: Tensor) -> Tensor:
    return torch.stack([torch.full(one.shape, float(one.sum()) / one.numel(), dtype=torch.float64) for one in features])


def ranks(features: Tensor) -> Tensor:
    return torch.stack(
        [torch.tensor(sorted(one.flatten().tolist()), dtype=torch.float64).reshape(one.shape) for one in features]
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("norm", "channels"), [("l1", "sum"), ("l1", "mean"), ("l2", "sum"), ("l2", "mean")])
def test_equal_slow_loops(norm: str, channels: str, weighted: bool, normalize: bool) -> None:
    """`spatial`, `mean` and `sort` are their formulas, the study's spread means included, to 1e-12."""
    x, y = pair()
    weights = torch.tensor([0.0, 0.5, 1.0, 3.0, 0.25]).double() if weighted else None
    kinds: list[tuple[type[Any], Any]] = [(Spatial, lambda one: one), (Mean, means), (Sort, ranks)]
    for kind, prepare in kinds:
        found = compared(kind(norm, channels, weights, normalize=normalize), x, y)
        expected = [slow(prepare(p), prepare(q), norm, channels, weights, normalize) for p, q in zip(x, y, strict=True)]
        torch.testing.assert_close(
            found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0, msg=kind.__name__
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_both_ways_of_sorting_agree(dtype: torch.dtype, memory: torch.memory_format) -> None:
    """The sort of numpy, where no gradient is asked for, gives torch's numbers bit for bit."""
    x = torch.randn(2, 3, 17, 13).to(dtype).relu().to(memory_format=memory)
    kept = x.clone()
    fast = Sort().arrange(x)
    slow_ = Sort().arrange(x.clone().requires_grad_())
    with torch.no_grad():
        unasked = Sort().arrange(x.clone().requires_grad_())
    assert slow_.requires_grad
    assert not unasked.requires_grad
    assert torch.equal(fast, slow_)
    assert torch.equal(fast, unasked)
    assert torch.equal(x, kept)
    assert bool((fast.flatten(-2).diff() >= 0).all())


def test_sorting_has_a_gradient() -> None:
    """Each value gets the gradient of its rank."""
    x, y = (torch.randn(1, 3, 4, 5).double().requires_grad_() for _ in range(2))
    for normalize in (True, False):
        assert torch.autograd.gradcheck(lambda a, b: compared(Sort(normalize=normalize), a, b), (x, y))  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [7, 40_000])
def test_gradients_of_sorting_are_torchs(dtype: torch.dtype, count: int) -> None:
    """Bit for bit for different values, beyond what 16 bits can number too; equal ones share theirs in some order."""
    x = (torch.randperm(2 * count).view(2, count) / 64).to(torch.float64)
    x = (x if dtype == torch.float64 else x.to(dtype)).requires_grad_()
    weights = torch.randn(2, count).to(dtype)
    found, expected = (torch.autograd.grad(way(x), x, weights)[0] for way in (ascending, lambda y: y.sort(-1).values))
    if dtype == torch.float64 or count == 7:
        assert torch.equal(found, expected)
    assert found.dtype == dtype
    tied = torch.zeros(2, count).requires_grad_()
    (found,) = torch.autograd.grad(ascending(tied), tied, weights.float())
    assert torch.equal(found.sort(-1).values, weights.float().sort(-1).values)


def test_sorting_has_a_second_derivative() -> None:
    x = torch.randn(3, 5).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a: ascending(a).pow(3), x)


def test_no_gradient_at_a_place_of_zeros() -> None:
    """A ReLU leaves places without any feature; a norm there has no derivative, and 1 / 1e-10 would be a huge one."""
    x = torch.rand(1, 4, 3, 3)
    x[..., 1, 2] = 0
    for comparison in (Spatial(), Spatial("l1"), Sort(), Mean(), Cosine()):
        leaf = x.clone().requires_grad_()
        compared(comparison, leaf, torch.rand(1, 4, 3, 3)).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        if not isinstance(comparison, (Sort, Mean)):
            assert (leaf.grad[..., 1, 2] == 0).all()
            assert (leaf.grad[..., 0, 0] != 0).all()
    for dim in (-3, (-3, -2, -1)):
        leaf = torch.zeros(1, 4, 2, 2).requires_grad_()
        unit(leaf, dim).sum().backward()
        assert leaf.grad is not None
        assert (leaf.grad == 0).all()


def test_unit_vectors() -> None:
    """The small number is added to the norm, as LPIPS does: it is felt where features are as small."""
    x = torch.tensor([3e-10, 4e-10, 0.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(unit(x), x / 6e-10, rtol=1e-12, atol=0)
    torch.testing.assert_close(unit(1e12 * x), x / 5e-10, rtol=1e-9, atol=0)


def test_cosine() -> None:
    """One minus torch's cosine, half the study's normalised `spatial`, and no loss of digits for near features."""
    x, y = (torch.randn(2, 6, 4, 3).double() for _ in range(2))
    expected = 1 - functional.cosine_similarity(x, y, dim=1).mean((1, 2))
    torch.testing.assert_close(compared(Cosine(), x, y), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(compared(Cosine(), x, y), compared(Spatial(), x, y) / 2)
    near = x + 1e-5 * y
    exact, single = compared(Cosine(), x, near), compared(Cosine(), x.float(), near.float())
    torch.testing.assert_close(single.double(), exact, rtol=1e-2, atol=0)  # 1 - cos would give 0, or nothing but noise
    black, some = torch.zeros(1, 6, 4, 3).double(), x[:1]
    assert compared(Cosine(), black, black) == 0
    torch.testing.assert_close(compared(Cosine(), black, some), torch.tensor([0.5]).double())


def test_dot() -> None:
    """Normalised, it is one minus the cosine of whole maps; otherwise the source's number, of which more is nearer."""
    x, y = (torch.randn(2, 6, 4, 3).double() for _ in range(2))
    expected = 1 - functional.cosine_similarity(x.flatten(1), y.flatten(1))
    torch.testing.assert_close(compared(Dot(), x, y), expected, rtol=1e-9, atol=0)
    source = 1 - torch.bmm(x.reshape(2, 1, -1), y.reshape(2, -1, 1))
    torch.testing.assert_close(compared(Dot(normalize=False), x, y), source[:, 0, 0])
    assert (compared(Dot(normalize=False), x, x) < 0).all()
    assert (compared(Dot(), x, x) == 0).all()
    assert not torch.allclose(compared(Dot(), x, y), compared(Cosine(), x, y), rtol=1e-3)


def test_sum_of_comparisons() -> None:
    """L1 and half a mean, say: weights count, inner sums too, and each summand is given by itself."""
    x, y = pair()
    inner = Sum({"sort": Sort(), "dot": Dot()}, {"sort": 2.0, "dot": 3.0})
    outer = Sum({"l1": Spatial("l1", "mean", normalize=False), "inner": inner}, {"inner": 0.5, "l1": 1.0})
    expected = compared(Spatial("l1", "mean", normalize=False), x, y) + compared(Sort(), x, y)
    expected += 1.5 * compared(Dot(), x, y)
    torch.testing.assert_close(compared(outer, x, y), expected)
    summands = outer.summands()
    assert [(weight, type(one)) for weight, one in summands] == [(1.0, Sort), (1.5, Dot), (1.0, Spatial)]
    torch.testing.assert_close(sum(weight * compared(one, x, y) for weight, one in summands), expected)
    assert Sort().summands()[0][0] == 1.0
    two = Sum({"spatial": Spatial(), "cosine": Cosine()}, {"spatial": 2.0, "cosine": 3.0})
    torch.testing.assert_close(two.maps(two.encode(x), two.encode(y)).mean((1, 2, 3)), compared(two, x, y))


def test_sums_need_a_weight_for_each() -> None:
    with pytest.raises(ValueError, match=r"one weight: comparisons \['dot', 'sort'\], weights \['dot'\]"):
        Sum({"sort": Sort(), "dot": Dot()}, {"dot": 1.0})
    with pytest.raises(ValueError, match="one weight"):
        Sum({}, {})


def spoilt(**weights: Any) -> Sum:
    return Sum({"sort": Sort(), "dot": Dot()}, {"sort": 1.0, "dot": 1.0, **weights})


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, True])
def test_weights_of_sums_are_numbers_from_zero(bad: float) -> None:
    """A negative weight makes far images near; with zeros alone all images are alike, with some a term is left out."""
    with pytest.raises(ValueError, match=f"weights of dot is a number from 0, got {bad}"):
        spoilt(dot=bad)
    with pytest.raises(ValueError, match="weights are all 0, so that nothing is compared: sort, dot"):
        spoilt(sort=0.0, dot=0.0)
    x, y = pair()
    torch.testing.assert_close(compared(spoilt(dot=0.0), x, y), compared(Sort(), x, y))


def test_recipes() -> None:
    """Equal recipes mean equal numbers: what a panel computes once must not be two different things."""
    kinds: list[Any] = [
        Spatial(), Spatial("l1"), Spatial(channels="mean"), Spatial(normalize=False), Mean(), Mean("l1"), Sort(),
        Sort(normalize=False), Cosine(), Dot(), Dot(normalize=False), Sum({"a": Sort()}, {"a": 1.0}),
        Sum({"a": Sort()}, {"a": 2.0}), Sum({"a": Mean()}, {"a": 1.0}), Spatial(weights=torch.ones(2)),
        Spatial(weights=torch.ones(2)), Mean(weights=torch.ones(2)),
    ]  # fmt: skip
    assert len({one.recipe() for one in kinds}) == len(kinds)
    for one in kinds[:-3]:
        again = configured("spatial") if one is kinds[0] else type(one)(**_arguments(one))
        assert again.recipe() == one.recipe()
        assert hash(again.recipe()) == hash(one.recipe())
    assert Sum({"b": Sort()}, {"b": 1.0}).recipe() == Sum({"a": Sort()}, {"a": 1.0}).recipe()


def _arguments(one: Comparison[Any]) -> dict[str, Any]:
    if isinstance(one, Cosine):
        return {}
    if isinstance(one, Sum):
        return {"comparisons": dict(zip(one.weights, one.comparisons, strict=True)), "weights": one.weights}
    held: Any = one.spatial if isinstance(one, (Mean, Sort)) else one
    return {name: getattr(held, name) for name in ("norm", "channels", "normalize") if hasattr(held, name)}


def test_shared_arrangements() -> None:
    """Comparisons whose arrangements have one name can be settled on each other's."""
    x = torch.rand(2, 3, 4, 5)
    kinds = (Spatial, Mean, Sort, Dot)
    comparisons: list[Any] = [kind(normalize=on) for kind in kinds for on in (True, False)]
    comparisons += [Spatial("l1", "mean"), Cosine(), Sum({"sort": Sort(), "dot": Dot()}, {"sort": 1.0, "dot": 1.0})]
    arranged: dict[str, Tensor] = {}
    for one in comparisons:
        first = arranged.setdefault(one.arrangement, one.arrange(x))
        assert torch.equal(first, one.arrange(x))
        for p, q in zip(leaves(one.settle(first)), leaves(one.encode(x)), strict=True):
            assert torch.equal(p, q)
    assert set(arranged) == {"as it is", "mean", "sorted"}


@pytest.mark.parametrize("name", ["l1", "l2", "spatial", "mean", "spatial_mean", "cosine"])
def test_maps(name: str) -> None:
    """The distance is the mean of its map, and the map says where features differ."""
    comparison = configured(name)
    x, y = (torch.rand(3, 5, 4, 6) for _ in range(2))
    found = comparison.maps(comparison.encode(x), comparison.encode(y))
    assert found.shape == ((3, 1, 1, 1) if name == "mean" else (3, 1, 4, 6))
    torch.testing.assert_close(found.mean((1, 2, 3)), compared(comparison, x, y))
    if "mean" not in name:
        spoilt = x.clone()
        spoilt[:, :, 1, 2] = torch.rand(3, 5)
        where = comparison.maps(comparison.encode(x), comparison.encode(spoilt))
        assert (where[:, 0, 1, 2] > 0).all()
        assert where.count_nonzero() == 3


@pytest.mark.parametrize("name", ["sort", "spatial_sort", "dot"])
def test_no_maps(name: str) -> None:
    """A comparison without places says so."""
    comparison = configured(name)
    x = comparison.encode(torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="does not compare features place by place"):
        comparison.maps(x, x)


@pytest.mark.parametrize("name", MINE)
def test_leading_axes(name: str) -> None:
    """One against N, and further leading axes, are what a loop would give; features are not changed."""
    comparison = configured(name)
    x, y = torch.rand(6, 5, 4, 3), torch.rand(6, 5, 4, 3)
    kept = x.clone()
    singles = torch.cat([compared(comparison, x[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(compared(comparison, x, y), singles)
    folded = compared(comparison, x.unflatten(0, (2, 3)), y.unflatten(0, (2, 3)))
    torch.testing.assert_close(folded, singles.unflatten(0, (2, 3)))
    torch.testing.assert_close(compared(comparison, x[:1], y), compared(comparison, x[:1].expand_as(y), y))
    torch.testing.assert_close(compared(comparison, x[0], y[0]), singles[0])
    assert all(leaf.shape[0] == 6 and leaf.ndim == 4 for leaf in leaves(comparison.encode(x)))
    assert torch.equal(x, kept)


def test_what_is_blind_to_places() -> None:
    """`sort` and `mean` don't see where values lie, `spatial` does, and `mean` sees the first moment alone."""
    x = torch.rand(2, 5, 4, 3)
    moved = x.flatten(2)[..., torch.randperm(12)].reshape(x.shape)
    spread = x.mean((2, 3), keepdim=True) + 2 * (x - x.mean((2, 3), keepdim=True))
    for normalize in (True, False):
        assert (compared(Sort(normalize=normalize), x, moved) == 0).all()
        assert (compared(Mean(normalize=normalize), x, moved) < 1e-9).all()
        assert (compared(Mean(normalize=normalize), x, spread) < 1e-9).all()
        assert (compared(Sort(normalize=normalize), x, spread) > 1e-3).all()
        assert (compared(Spatial(normalize=normalize), x, moved) > 1e-3).all()


def test_means_are_kept_once() -> None:
    """The study's `mean` repeats each mean at every place, in the memory of the features."""
    assert Mean().encode(torch.rand(2, 5, 8, 8)).shape == (2, 5, 1, 1)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("l1", Spatial("l1", "mean", normalize=False)),
        ("l2", Spatial("l2", "mean", normalize=False)),
        ("spatial", Spatial("l2", "sum", normalize=True)),
        ("mean", Mean("l2", "sum", normalize=True)),
        ("sort", Sort("l2", "sum", normalize=True)),
        ("spatial_mean", Sum({"a": Spatial(), "b": Mean()}, {"a": 1.0, "b": 1.0})),
        ("spatial_sort", Sum({"a": Spatial(), "b": Sort()}, {"a": 1.0, "b": 1.0})),
        ("cosine", Cosine()),
        ("dot", Dot()),
    ],
)
def test_configs(name: str, same: Comparison[Any]) -> None:
    """Each YAML is the published comparison of its name, and `normalize` reaches those of the study alone."""
    assert configured(name).recipe() == same.recipe()
    off = configured(name, "normalize=false")
    assert (off.recipe() == same.recipe()) == (name in ("l1", "l2", "cosine", "dot"))


def test_wrong_words_are_refused() -> None:
    with pytest.raises(ValueError, match="norm is one of l1, l2 and channels one of sum, mean, got 'l3' and 'sum'"):
        Spatial("l3")
    with pytest.raises(ValueError, match="got 'l1' and 'max'"):
        Sort("l1", "max")
    with pytest.raises(ValueError, match="a vector of numbers from 0"):
        Spatial(weights=torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="a vector of numbers from 0"):
        Spatial(weights=torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match=r"a vector of numbers from 0, got \(2,\) from 1.0 to inf"):
        Spatial(weights=torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="3 weights for 2 channels"):
        Spatial(weights=torch.ones(3)).encode(torch.rand(1, 2, 2, 2))


@pytest.mark.parametrize("comparison", [Spatial(), Mean(), Sort(), Cosine(), Sum({"a": Sort()}, {"a": 1.0})])
def test_one_channel_is_not_normalised(comparison: Comparison[Any]) -> None:
    """Divided by its own size a number is its sign: all images would be alike after a ReLU."""
    with pytest.raises(ValueError, match="normalised features of one channel are their signs: take another layer"):
        comparison.encode(torch.rand(1, 1, 2, 2))
    assert compared(Spatial(normalize=False), torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)) > 0


@pytest.mark.parametrize("bad", ["half", "0.5", None, True, math.nan, math.inf, -0.5, 0, 1, 1.5])
def test_numbers_are_numbers_in_their_range(bad: Any) -> None:
    """A word, a switch, infinity or a number out of range is refused by one sentence; the range is named."""
    with pytest.raises(ValueError, match=r"^h is a number more than 0 and less than 1, got "):
        check_number("h", bad, above=0, below=1)
    check_number("h", 0.5, above=0, below=1)
    for end in (0, 1):
        check_number("h", end, least=0, most=1)
        with pytest.raises(ValueError, match=r"^h is a number from 0.25 and at most 0.75, got "):
            check_number("h", end, least=0.25, most=0.75)


@pytest.mark.parametrize("bad", ["two", "2", 2.5, 2.0, True, 0, -1, math.nan, None])
def test_whole_numbers(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^count is a whole number from 1, got "):
        check_whole("count", bad, 1)
    check_whole("count", 1, 1)


@pytest.mark.parametrize("word", ["no", "each", 1, None])
def test_switches_are_no_words(word: Any) -> None:
    """`normalize=no` must not count as true."""
    with pytest.raises(ValueError, match="normalize is true or false, got"):
        check_switch("normalize", word)


def test_the_study_knows_each_and_no_other_word() -> None:
    assert list(study(["sort"], normalize="each")) == ["sort", "sort, raw"]
    with pytest.raises(ValueError, match="normalize is true or false, got 'no'"):
        study(["spatial"], normalize="no")
    for names in ([], ["sort", "sort"], "sort"):
        with pytest.raises(ValueError, match="names is a list of some of spatial, mean, .*, each once, got"):
            study(names)
