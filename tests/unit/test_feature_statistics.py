"""Gram, contextual, CoBi, SWD and MMD on features: what each sees, in any batch, with finite gradients, in tiles."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from losslab.comparisons import cobi, contextual, pairs
from losslab.comparisons.base import Comparison
from losslab.comparisons.cobi import CoBi
from losslab.comparisons.contextual import Contextual
from losslab.comparisons.gram import Gram, GramTrace
from losslab.comparisons.mmd import MMD
from losslab.comparisons.sliced_wasserstein import SlicedWasserstein
from losslab.config import build, load, plain

Make = Callable[[], Comparison[Any]]

ALL: dict[str, Make] = {
    "gram": Gram,
    "gram l1 all": lambda: Gram("l1", "all"),
    "gram_trace": GramTrace,
    "contextual": Contextual,
    "contextual l1": lambda: Contextual(distance="l1"),
    "contextual l2": lambda: Contextual(distance="l2"),
    "cobi": CoBi,
    "cobi distances": lambda: CoBi(form="distances"),
    "swd": lambda: SlicedWasserstein(12),
    "swd l2": lambda: SlicedWasserstein(12, "l2"),
    "mmd": MMD,
    "mmd gaussian": lambda: MMD("gaussian"),
}
SETS = {name: ALL[name] for name in ALL if "cobi" not in name}
every = pytest.mark.parametrize("name", ALL)


def distance(comparison: Comparison[Any], a: Tensor, b: Tensor) -> Tensor:
    return comparison.compare(comparison.encode(a), comparison.encode(b))


def shuffled(features: Tensor) -> Tensor:
    order = torch.randperm(features.shape[-2:].numel())
    return features.flatten(-2)[..., order].reshape(features.shape)


@every
def test_a_batch_is_its_images(name: str) -> None:
    """N pairs at once are N single pairs, and one image stands against N."""
    comparison = ALL[name]()
    x, y = torch.randn(3, 5, 6, 7), torch.randn(3, 5, 6, 7)
    singles = torch.cat([distance(comparison, x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(distance(comparison, x, y), singles)
    first = torch.cat([distance(comparison, x[:1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(distance(comparison, x[:1], y), first)
    table = distance(comparison, x[:, None], y)
    assert table.shape == (3, 3)
    torch.testing.assert_close(table[0], first)
    assert distance(comparison, x[0], y[0]).shape == ()


@every
@pytest.mark.parametrize("case", ["zeros", "constant", "equal", "half dead"])
def test_finite_values_and_gradients(name: str, case: str) -> None:
    """Nothing divides by a norm, a distance or a spread that is zero."""
    x = torch.randn(2, 5, 4, 4)
    half = torch.cat([torch.zeros(2, 5, 2, 4), x[..., 2:, :]], dim=-2)
    a, b = {
        "zeros": (torch.zeros_like(x), torch.zeros_like(x)),
        "constant": (torch.full_like(x, 3.0), torch.full_like(x, 3.0)),
        "equal": (x, x),
        "half dead": (half, half.flip(-2)),
    }[case]
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = distance(ALL[name](), a, b)
    value.sum().backward()
    assert value.isfinite().all()
    for side in (a, b):
        assert side.grad is not None
        assert side.grad.isfinite().all()
        assert side.grad.abs().max() < 1e8


@every
def test_inputs_and_precision_are_kept(name: str) -> None:
    """Features are not written to, and 64 bits stay 64 bits."""
    x, y = torch.randn(2, 5, 4, 4, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    before = x.clone(), y.clone()
    assert distance(ALL[name](), x, y).dtype == torch.float64
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert distance(ALL[name](), x.float(), y.float()).dtype == torch.float32


@every
def test_gradients_are_those_of_differences(name: str) -> None:
    """Both sides' derivatives are right in 64 bits, also where tiles make them again."""
    comparison = ALL[name]()
    x, y = (torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: distance(comparison, a, b), (x, y))


@pytest.mark.parametrize("name", ["contextual", "cobi", "mmd gaussian"])
def test_second_derivatives(name: str) -> None:
    """A gradient that is to be differentiated is made by autograd, of whole tables."""
    comparison = ALL[name]()
    x, y = (torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(lambda a, b: distance(comparison, a, b), (x, y))
    value = distance(comparison, x, y)
    once, again = (torch.autograd.grad(value, (x, y), retain_graph=True, create_graph=more) for more in (False, True))
    torch.testing.assert_close(once, again, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SETS)
def test_sees_which_features_there_are_and_not_where(name: str) -> None:
    """Places in another order change nothing; other features do."""
    comparison = SETS[name]()
    x, y = torch.randn(1, 5, 6, 6), torch.randn(1, 5, 6, 6)
    torch.testing.assert_close(distance(comparison, shuffled(x), y), distance(comparison, x, y))
    assert distance(comparison, x, y + 1) > distance(comparison, x, shuffled(x)) + 1e-3


def test_mmd_is_never_negative() -> None:
    """Rounding leaves no distance below zero where two maps have the same features at other places."""
    x = torch.randn(40, 5, 6, 6)
    found = distance(MMD("gaussian"), x, shuffled(x))
    assert found.min() >= 0
    torch.testing.assert_close(found, torch.zeros(40), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["similarities", "distances"])
def test_cobi_sees_where(form: str) -> None:
    """The spatial term is what makes an order of places better than another."""
    x = torch.randn(1, 5, 6, 6)
    for weight, differs in ((0.0, False), (0.1, True)):
        comparison = CoBi(weight, form)
        moved, same = (distance(comparison, one, x) for one in (shuffled(x), x))
        assert bool(moved > same + 1e-3) == differs
    torch.testing.assert_close(distance(CoBi(0.0), x, x.flip(1)), distance(Contextual(), x, x.flip(1)))


@every
def test_distance_of_equal_images(name: str) -> None:
    """It is zero, or -log(1 + 1e-5) where there is a logarithm; all places differ here."""
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    logarithm = name in {"contextual", "contextual l1", "contextual l2", "cobi"}
    expected = torch.full((2,), -1e-5 if logarithm else 0.0, dtype=torch.float64)
    torch.testing.assert_close(distance(ALL[name](), x, x.clone()), expected, rtol=0, atol=1e-9)


def test_contextual_of_a_flat_map_is_its_bound() -> None:
    """Places that are all alike match nothing surely: log(places), the most there is."""
    flat = torch.ones(1, 5, 6, 6, dtype=torch.float64)
    found = distance(Contextual(floor=0), flat, flat)
    torch.testing.assert_close(found, torch.tensor([36.0], dtype=torch.float64).log())


def test_contextual_is_not_symmetric() -> None:
    """If all of a's places match one of b's, the others of b lack a match, not so the other way."""
    b = torch.randn(1, 5, 6, 6)
    a = b[..., :1, :1].expand(-1, -1, 6, 6) + 1e-3 * torch.randn(1, 5, 6, 6)
    assert distance(Contextual(), a, b) > distance(Contextual(), b, a) + 0.1


def test_contextual_depends_on_its_own_pair_only() -> None:
    """The mean that is taken off is each target's own, whatever else is in the batch."""
    x, y = torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4)
    found = distance(Contextual(), x.repeat(2, 1, 1, 1), torch.cat([y, y + 5]))
    torch.testing.assert_close(found[:1], distance(Contextual(), x, y))


def test_max_places_halves_both_maps() -> None:
    """Maps are averaged over 2×2 places until they fit; odd rows go, a thin map stays, None keeps all."""
    x, y = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    assert Contextual(max_places=72).encode(x).shape == (2, 3, 9, 8)
    halves = [torch.nn.functional.avg_pool2d(one, 2) for one in (x, y)]
    torch.testing.assert_close(distance(Contextual(max_places=71), x, y), distance(Contextual(), *halves))
    assert CoBi(max_places=4).encode(x[0]).shape == (3, 2, 2)
    assert Contextual(max_places=4).encode(x[..., :1, :]).shape == (2, 3, 1, 4)
    assert Contextual(max_places=None).encode(torch.zeros(1, 2, 128, 129)).shape[-2:] == (128, 129)
    assert Contextual().encode(torch.zeros(1, 2, 128, 128)).shape[-2:] == (64, 64)


TILED: dict[str, Make] = {
    "contextual": Contextual,
    "contextual l1": lambda: Contextual(distance="l1"),
    "cobi": CoBi,
    "cobi distances": lambda: CoBi(form="distances"),
    "mmd": lambda: MMD("gaussian"),
}


@pytest.mark.parametrize("tile", [1, 100, 3000])
@pytest.mark.parametrize("name", TILED)
def test_tiles_do_not_matter(name: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a tile, several rows, several pairs: one value to 1e-12, one gradient to 1e-10, broadcasting included."""
    comparison = TILED[name]()
    x = torch.randn(3, 1, 5, 5, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, 5, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for size in (2**20, tile):
        monkeypatch.setattr(pairs, "TILE", {True: size, False: size})
        value = distance(comparison, x, y)
        found.append((value.detach(), *torch.autograd.grad(value.square().sum(), (x, y))))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-12, atol=1e-12)
    for one, other in zip(found[1][1:], found[0][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """Note the size of the largest tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [one for one in (made if isinstance(made, (tuple, list)) else [made]) if isinstance(one, Tensor)]
        self.numbers = max(self.numbers, *(one.numel() for one in tensors), 0)
        return made


@pytest.mark.parametrize("name", TILED)
def test_no_table_is_ever_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither way, forward or backward, holds more numbers at once than a tile or a few images have."""
    monkeypatch.setattr(pairs, "TILE", {True: 2**14, False: 2**14})
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    with Largest() as largest:
        distance(TILED[name](), x, torch.randn(1, 4, 32, 32)).sum().backward()
    assert 1024 * 4 <= largest.numbers <= 2**14  # the table has 2**20


def test_a_target_without_a_gradient_gets_none() -> None:
    """Half of the backward pass is left out where the target is fixed."""
    x, y = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randn(1, 5, 4, 4, requires_grad=True)
    both = torch.autograd.grad(distance(Contextual(), x, y).sum(), (x, y))
    (alone,) = torch.autograd.grad(distance(Contextual(), x, y.detach()).sum(), x)
    torch.testing.assert_close(alone, both[0])


@pytest.mark.parametrize("name", ["gram", "gram l1 all", "gram_trace", "mmd", "mmd gaussian", "contextual"])
def test_maps_of_two_sizes(name: str) -> None:
    """Statistics and sets have a distance whatever the numbers of places; repeated rows change no statistic."""
    x, y = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 6, 3)
    found = distance(ALL[name](), x, y)
    assert found.shape == (2,)
    if "l1 all" not in name and name != "contextual":
        torch.testing.assert_close(distance(ALL[name](), x.repeat(1, 1, 2, 1), y), found)


def test_what_needs_equal_sizes_says_so() -> None:
    x, y = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 5)
    with pytest.raises(ValueError, match="one number of places, got 16 and 20"):
        distance(SlicedWasserstein(), x, y)
    with pytest.raises(ValueError, match=r"maps of one size, place by place, got \(4, 4\) and \(4, 5\)"):
        distance(CoBi(), x, y)


def test_gram_trace_never_makes_the_matrix() -> None:
    """No more numbers than the features have, where the matrix has 100 times as many."""
    with Largest() as largest:
        distance(GramTrace(), torch.randn(1, 400, 2, 2), torch.randn(1, 400, 2, 2))
    assert largest.numbers == 1600


def test_directions_are_a_function_of_seed_draw_and_features() -> None:
    """Two instances agree, also after other features came first; seeds, draws and redraws differ; none in a file."""
    x, y = torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4)
    swd, other = SlicedWasserstein(seed=3, redraw_every=2), SlicedWasserstein(seed=3, redraw_every=2)
    swd.encode(torch.randn(1, 7, 4, 4))
    first = distance(swd, x, y)
    assert torch.equal(first, distance(other, x, y))
    assert first != distance(SlicedWasserstein(seed=4), x, y)
    names = [swd.draw(step) for step in (0, 1, 2, 1)]
    assert names[0] == names[1] == names[3] != names[2]
    swd.draw(2)
    assert first != distance(swd, x, y)
    swd.draw(1)
    assert torch.equal(first, distance(swd, x, y))
    assert swd.state_dict() == {}


def test_directions_are_unit_vectors_as_many_as_asked_for() -> None:
    """Five a feature without a number; made under inference mode, they still serve a gradient later."""
    swd = SlicedWasserstein()
    with torch.inference_mode():
        assert swd.encode(torch.randn(2, 5, 4, 4)).shape == (2, 1, 25, 16)
    x = torch.randn(2, 5, 4, 4, requires_grad=True)
    swd.encode(x).sum().backward()
    (directions,) = swd.buffers()
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(25))
    assert SlicedWasserstein(7).encode(x).shape[-2] == 7
    assert next(swd.to(torch.float64).buffers()).dtype == torch.float64


def test_recipes() -> None:
    """Equal arguments are equal comparisons, before and after their first features; other arguments are others."""
    used = SlicedWasserstein(7)
    used.encode(torch.randn(1, 5, 4, 4))
    assert used.recipe() == SlicedWasserstein(7).recipe() != SlicedWasserstein(8).recipe()
    recipes = [make().recipe() for make in ALL.values()]
    assert len(set(recipes)) == len(recipes)
    assert recipes == [make().recipe() for make in ALL.values()]


@pytest.mark.parametrize("name", ["gram", "gram_trace", "l1_gram", "contextual", "cobi", "swd", "mmd"])
def test_configs_build_the_defaults(name: str) -> None:
    """A YAML spells out the arguments that the class has, and l1_gram is what its name says."""
    comparison: Comparison[Any] = build(plain(load(f"compare={name}"))["compare"])
    x, y = torch.randn(2, 5, 6, 6), torch.randn(2, 5, 6, 6)
    if name == "l1_gram":
        expected = (x - y).abs().mean(dim=(1, 2, 3)) + 0.5 * distance(Gram(), x, y)
        torch.testing.assert_close(distance(comparison, x, y), expected)
    else:
        assert comparison.recipe() == type(comparison)().recipe()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gram("l3"), "norm is one of l1, l2, got 'l3'"),
        (lambda: GramTrace(divisor="half"), "divisor is one of places, all, none, got 'half'"),
        (lambda: Contextual(distance="l3"), "distance is one of cosine, l1, l2, got 'l3'"),
        (lambda: Contextual(0), "bandwidth is a number more than 0, got 0"),
        (lambda: Contextual(math.inf), "bandwidth is a number more than 0, got inf"),
        (lambda: Contextual(eps=0), "eps is a number more than 0, got 0"),
        (lambda: Contextual(max_places=1), "max_places is a whole number from 2, got 1"),
        (lambda: Contextual(max_places=True), "max_places is a whole number from 2, got True"),
        (lambda: Contextual(floor=-1), "floor is a number from 0 and at most 1, got -1"),
        (lambda: Contextual(floor=1e9), "floor is a number from 0 and at most 1, got 1000000000.0"),
        (lambda: CoBi(form="both"), "form is one of similarities, distances, got 'both'"),
        (lambda: CoBi(1), "spatial_weight is a number from 0 and less than 1, got 1"),
        (lambda: CoBi(-1, "distances"), "spatial_weight is a number from 0, got -1"),
        (lambda: CoBi(math.inf, "distances"), "spatial_weight is a number from 0, got inf"),
        (lambda: CoBi(floor=-1), "floor is a number from 0 and at most 1, got -1"),
        (lambda: CoBi(grid=0), "grid is a number more than 0, got 0"),
        (lambda: CoBi(max_places=1), "max_places is a whole number from 2, got 1"),
        (lambda: SlicedWasserstein(0), "projections is a whole number from 1, got 0"),
        (lambda: SlicedWasserstein(redraw_every=-1), "redraw_every is a number of steps"),
        (lambda: SlicedWasserstein(norm="l3"), "norm is one of l1, l2, got 'l3'"),
        (lambda: MMD("cubic"), "kernel is one of linear, gaussian, got 'cubic'"),
        (lambda: MMD(sigma=0), "sigma is a number more than 0, got 0"),
        (lambda: MMD("gaussian", math.inf), "sigma is a number more than 0, got inf"),
    ],
)
def test_arguments_are_checked(make: Make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [Contextual, CoBi, MMD, SlicedWasserstein])
def test_words_are_no_numbers(kind: type[Comparison[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A config may have a word anywhere; annotations are not checked here, as they are not for users."""
    for module in (contextual, cobi):
        monkeypatch.setattr(module, "checked", inspect.unwrap(contextual.checked))
    names = [name for name, one in inspect.signature(kind).parameters.items() if name not in ("seed", "redraw_every")]
    make = inspect.unwrap(kind.__init__)
    for name in names:
        with pytest.raises(ValueError, match=f"^{name} is (a number|a whole number|one of) .*, got 'half'$"):
            make(kind.__new__(kind), **{name: "half"})


@pytest.mark.parametrize(
    "make",
    [Contextual, lambda: Contextual(distance="l2"), CoBi, lambda: CoBi(distance="l1"), lambda: CoBi(form="distances")],
)
def test_one_place_is_refused(make: Make) -> None:
    """Its best match is the only one there is, so that all images would be alike."""
    name = type(make()).__name__.lower()
    with pytest.raises(ValueError, match=f"^{name} .* of features of 1×1: give a layer nearer to the image, or larger"):
        make().encode(torch.randn(2, 5, 1, 1))
    comparison: Any = make()
    comparison.max_places = 3
    with pytest.raises(ValueError, match="of features of 3×2: give a larger max_places"):
        comparison.encode(torch.randn(5, 3, 2))
    x, y, z = torch.randn(3, 5, 1, 2)
    assert not torch.allclose(distance(make(), x, y), distance(make(), x, z), rtol=1e-3)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_one_place_has_distances(kind: str) -> None:
    """Where nothing is relative to other places, one is enough."""
    x, y = torch.randn(2, 5, 1, 1), torch.randn(2, 5, 1, 1)
    expected = (x - y).abs().pow(int(kind[1])).sum((1, 2, 3))
    torch.testing.assert_close(distance(CoBi(form="distances", distance=kind), x, y), expected)


@pytest.mark.parametrize("make", [Contextual, CoBi, lambda: CoBi(form="distances")])
def test_cosines_need_two_channels(make: Make) -> None:
    """The cosine of two numbers is that of their signs; their differences are compared as ever."""
    with pytest.raises(ValueError, match="cosine of features of one channel is their sign: take distance=l1 or"):
        make().encode(torch.randn(2, 1, 4, 4))
    x, y = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert (distance(Contextual(distance="l1"), x, y) > 0.01).all()
