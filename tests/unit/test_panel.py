"""A panel gives what its losses give alone, from one pass of each network over an image."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from conftest import Run
from torch import nn

from losslab.comparisons.contextual import Contextual
from losslab.comparisons.cosine import Cosine
from losslab.comparisons.mean import Mean
from losslab.comparisons.sort import Sort
from losslab.comparisons.spatial import Spatial
from losslab.comparisons.study import study
from losslab.comparisons.sum import Sum
from losslab.config import build, load, plain
from losslab.losses import panel as module
from losslab.losses.base import Loss
from losslab.losses.deep import Deep
from losslab.losses.lpips import LPIPS
from losslab.losses.mmd import RandomFeatureMMD
from losslab.losses.panel import Panel, each
from losslab.losses.pixel import L1, L2
from losslab.networks.architectures import on_meta
from losslab.networks.graph import GraphNetwork
from losslab.networks.weights import Architecture, RandomWeights


class Fork(nn.Module):
    """A block whose side branch is executed, and so drawn, after its main one."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + self.side(x)


def small() -> nn.Module:
    """Make a network as a VGG is, of a few channels, with a fork at its end."""
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)]
    blocks = [layer for one in convolutions for layer in (one, nn.ReLU(inplace=True), nn.MaxPool2d(2))]
    return nn.Sequential(*blocks, Fork()).eval()


LAYERS = {f"{kind}{k}": str(3 * (k - 1) + n) for k in (1, 2, 3) for n, kind in enumerate(("conv", "relu", "pool"))}
LAYERS["fork"] = "9"
SLOTS = ["relu1", "relu2", "relu3"]
ARCHITECTURE = Architecture("torchvision", "small", small, on_meta(small))


def network(**settings: Any) -> Callable[..., GraphNetwork]:
    """Give what makes a small network; a new call, with arguments equal by value only."""
    weights = RandomWeights(**{key: settings.pop(key) for key in ("seed", "redraw_every", "input") if key in settings})
    own = Architecture("torchvision", "small", small, ARCHITECTURE.whole)
    table: dict[str, Any] = {"layers": dict(LAYERS), "slots": list(SLOTS)}
    return partial(GraphNetwork, name="small", architecture=own, weights=weights, **table, **settings)


def deep(layers: Any, compare: Any = None, **settings: Any) -> Deep:
    over = {key: settings.pop(key) for key in ("over_layers", "layer_weights") if key in settings}
    return Deep(network(**settings), layers, Spatial() if compare is None else compare, **over)


def pairs(*batch: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(*batch, 3, side, side)
    return x, (x + 0.2 * torch.randn_like(x)).clamp(0, 1)


def found(panel: Panel, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    return panel.parts(panel.encode(x), panel.encode(y))


def passes(loss_network: nn.Module) -> list[int]:
    """Give a list that gets the number of images of each pass through a network's extractor."""
    seen: list[int] = []
    loss_network.extractor.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))  # type: ignore[union-attr]
    return seen


def test_each_is_what_the_losses_are_alone() -> None:
    """Three layers × five comparisons × normalised or not equal as many losses with a network each."""
    x, y = pairs(2)
    names = ["spatial", "mean", "sort", "spatial_mean", "spatial_sort"]
    both = study(names, normalize="each")
    panel = each(network(), [[one] for one in SLOTS], both)
    table = found(panel, x, y)
    assert list(table) == [
        f"{layer}, {name}{raw}" for layer in SLOTS for raw in ("", ", raw") for name in names
    ]  # fmt: skip
    for layer in SLOTS:
        for name, comparison in both.items():
            alone = Deep(network(), [layer], comparison)(x, y)
            torch.testing.assert_close(table[f"{layer}, {name}"], alone, rtol=1e-6, atol=0)
            assert (alone > 0).all()


def lpips() -> LPIPS:
    settings = plain(load("network=alexnet", "weights=random", "weights.input=imagenet"))["network"]
    return LPIPS(build(settings), settings["properties"]["lpips_layers"], "v0.1", "alexnet")


def mix() -> dict[str, Loss[Any]]:
    return {
        "l2": L2(),
        "mmd": RandomFeatureMMD(features=8),
        "layers": deep(["pixels", "conv1", "relu3"], Cosine(), layer_weights=[1.0, 2.0, 0.5]),
        "list": deep(
            ["relu1", "pool2"], [Sum({"a": Sort(), "b": Mean(), "c": Sort()}, {"a": 2.0, "b": 0.5, "c": 1.0}), Sort()]
        ),
        "sum": deep(["relu1", "relu3"], over_layers="sum"),
        "lpips": lpips(),
    }


def test_mix_is_what_the_losses_are_alone() -> None:
    """Losses with and without networks, weights of layers, lists and sums of comparisons; 1 against N broadcasts."""
    x, y = pairs(2, 2, side=48)
    alone = {name: loss(x[:1], y) for name, loss in mix().items()}
    panel = Panel(mix())
    table = found(panel, x[:1], y)
    assert list(table) == list(alone)
    assert [type(one).__name__ for one in panel.networks] == ["GraphNetwork", "GraphNetwork"]
    for name, distance in alone.items():
        assert table[name].shape == (2, 2)
        torch.testing.assert_close(table[name], distance, rtol=1e-6, atol=0, msg=name)
    assert panel.min_side == 32  # the MMD's window


def test_one_pass_and_one_sort_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many layers and comparisons: the network reads an image once, and each layer is sorted once."""
    sorted_layers: list[int] = []
    arrange = Sort.arrange

    def counted(own: Sort, features: torch.Tensor) -> torch.Tensor:
        sorted_layers.append(features.shape[-3])
        return arrange(own, features)

    monkeypatch.setattr(Sort, "arrange", counted)
    panel = each(network(), [[one] for one in SLOTS], study(["spatial", "sort", "spatial_sort"], normalize="each"))
    (shared,) = panel.networks
    seen = passes(shared)
    x, y = pairs(2)
    panel.parts(panel.encode(x), panel.encode(y))
    assert seen == [2, 2]
    assert sorted(sorted_layers) == [8, 8, 16, 16, 16, 16]
    assert len(panel._terms) == 12  # 3 layers × (spatial, sort) × 2; sums add nothing


def test_losses_built_apart_share_their_network() -> None:
    """Equal settings are enough; what lies behind the deepest layer is not computed, and weights are in memory once."""
    one, two = deep(1), deep(["conv2", "relu3"])
    panel = Panel({"one": one, "two": two, "again": deep(2, Sort())})
    (shared,) = panel.networks
    assert shared.layers == ["relu1", "conv2", "relu2", "relu3"]
    seen = passes(shared)
    own = passes(one.network)
    panel.encode(pairs(2)[0])
    assert (seen, own) == ([2], [])
    first = [dict(some.named_parameters())["extractor.0.weight"] for some in (shared, one.network, two.network)]
    assert first[0] is first[1] is first[2]


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"pooling": "average"}, {"precision": "bf16"}, {"input": "raw"}, {"redraw_every": 1}]
)
def test_other_networks_are_not_shared(other: dict[str, Any]) -> None:
    """Losses over networks that differ in anything have their own, and their own numbers."""
    panel = Panel({"one": deep(2), "two": deep(2, **other)})
    assert len(panel.networks) == 2
    x, y = pairs(2)
    torch.testing.assert_close(found(panel, x, y)["two"], deep(2, **other)(x, y))
    assert len(Panel({"one": deep(2, **other), "two": deep(2, **other)}).networks) == 1


def test_numbers_count_not_settings_alone() -> None:
    """A network whose draw depends on where it is cut, or that someone has changed or moved, is not shared."""
    x, y = pairs(2)
    alone = deep("9.side", redraw_every=1)
    panel = Panel({"side": deep("9.side", redraw_every=1), "main": deep("9.main", redraw_every=1)})
    for step in (0, 1):
        alone.draw(step)
        panel.draw(step)
        assert torch.equal(found(panel, x, y)["side"], alone(x, y))
    raw = Spatial(normalize=False)
    changed = deep(2, raw)
    with torch.no_grad():
        next(changed.network.parameters()).mul_(2)
    expected = changed(x, y)
    panel = Panel({"changed": changed, "as it was": deep(2, raw)})
    assert torch.equal(found(panel, x, y)["changed"], expected)
    assert torch.equal(found(panel, x, y)["as it was"], deep(2, raw)(x, y))
    assert len(Panel({"double": deep(1).double(), "single": deep(2)}).networks) == 2


@pytest.mark.parametrize("others", [1, 2])
def test_measure_is_parts_in_small_batches(monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    """The same numbers, never more pixels at a time than allowed, each reference read once, and no gradient."""
    panel = Panel({"deep": deep(2), "l1": L1(), "sort": deep(3, Sort())})
    (shared,) = panel.networks
    references, *images = (torch.rand(7, 3, 16, 24, requires_grad=True) for _ in range(1 + others))
    expected = [found(panel, references, some) for some in images]
    widest: float = shared.widest  # type: ignore[assignment]
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 6 * 16 * 24 * widest)
    seen = passes(shared)
    table = panel.measure(references, *images)
    assert max(seen) == 6
    assert sum(seen) == 7 * (1 + others)
    for some, right in zip(table, expected, strict=True):
        assert list(some) == ["deep", "l1", "sort"]
        for name, distance in some.items():
            assert distance.shape == (7,)
            assert not distance.requires_grad
            torch.testing.assert_close(distance, right[name], rtol=1e-5, atol=1e-7)


def test_one_large_pair_is_measured() -> None:
    """An image that alone has more pixels than allowed is a batch of its own."""
    panel = Panel({"l2": L2()})
    (table,) = panel.measure(torch.zeros(2, 3, 400, 400), torch.ones(2, 3, 400, 400))
    assert table["l2"].tolist() == [1.0, 1.0]


def test_what_does_not_fit_is_refused() -> None:
    """Sizes, draws, panels, and images that are too small for one of the losses."""
    means = {f"slot{slot}": deep(slot, Mean(), redraw_every=1) for slot in (1, 3)}
    panel = Panel({**means, "l1": L1()})
    x, y = pairs(2)
    old = panel.encode(x)
    with pytest.raises(ValueError, match="different sizes"):  # which means over places don't show
        panel.parts(old, panel.encode(y[..., :16, :16]))
    with pytest.raises(ValueError, match="batches"):
        panel.parts(panel.encode(torch.cat([x, y])), panel.encode(torch.cat([x, y])[:3]))
    with pytest.raises(ValueError, match="images of one shape"):
        panel.measure(x, y, y[:1])
    with pytest.raises(ValueError, match="deep needs images of at least 4×4 pixels, got 3×3"):
        panel.encode(x[..., :3, :3])
    with pytest.raises(ValueError, match="not of the panel of slot1, slot3, l1"):
        panel.parts(Panel({"l1": L1()}).encode(x), Panel({"l1": L1()}).encode(y))
    panel.draw(1)
    with pytest.raises(ValueError, match="two draws"):
        panel.parts(old, panel.encode(y))
    with pytest.raises(ValueError, match="a loss at least"):
        Panel({})
    with pytest.raises(ValueError, match="named twice: relu1, relu1"):
        each(network(), [["relu1"], ["relu1"]], Spatial())


def test_all_members_are_drawn_alike() -> None:
    """A redraw reaches the shared network, the members alone, and comparisons, as in losses with a network each."""
    x, y = pairs(2)
    panel = Panel({"one": deep(1, redraw_every=1), "two": deep(3, Sort(), redraw_every=1)})
    before = found(panel, x, y)
    panel.draw(3)
    for name, alone in {"one": deep(1, redraw_every=1), "two": deep(3, Sort(), redraw_every=1)}.items():
        alone.draw(3)
        for distance in (found(panel, x, y)[name], panel.losses[name](x, y)):
            assert torch.equal(distance, alone(x, y))
        assert not torch.equal(found(panel, x, y)[name], before[name])
    panel.draw(0)
    assert torch.equal(found(panel, x, y)["one"], before["one"])
    for others in ({}, {"two": deep(3, redraw_every=1)}):
        late = deep(1, redraw_every=1)
        late.draw(5)
        beginning = Panel({"late": late, **others})
        assert len(beginning.networks) == 1
        assert torch.equal(found(beginning, x, y)["late"], before["one"])


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_shared_is_drawn_once(monkeypatch: pytest.MonkeyPatch, moved: bool) -> None:
    """A redraw fills tensors that losses have in common once, also by a member alone, and in copies; all name it."""
    filled: list[nn.Module] = []
    fill = RandomWeights.fill

    def counted(own: RandomWeights, cut: nn.Module, architecture: Architecture, step: int) -> str:
        filled.append(cut)
        return fill(own, cut, architecture, step)

    panel = Panel({f"{slot}{k}": deep(slot, Sort(), redraw_every=2) for slot in (1, 2, 3) for k in range(2)})
    if moved:
        panel = deepcopy(panel).double()
    whole: Any = panel.networks[0]
    monkeypatch.setattr(RandomWeights, "fill", counted)
    names = []
    for step in (0, 1, 2, 3, 7, 0):
        panel.draw(step)
        names.append({one.deep.draw_name for one in panel.losses.values() if isinstance(one, Deep)} | {whole.draw_name})
        assert all(len(some) == 1 for some in names)
    assert names[0] == names[1] == names[5]
    assert len(set(map(str, names))) == 3
    assert filled == [whole.extractor] * 3
    x, y = (one.double() if moved else one for one in pairs(2))
    panel.losses["10"].draw(2)
    assert len(filled) == 4
    panel.draw(2)
    assert len(filled) == 4
    alone = deep(3, Sort(), redraw_every=2)
    alone.draw(2)
    alone = alone.double() if moved else alone
    for distance in (found(panel, x, y)["31"], panel.losses["31"](x, y)):
        torch.testing.assert_close(distance, alone(x, y), rtol=1e-6, atol=0)


def test_a_member_that_has_left_is_drawn_alone() -> None:
    """A loss whose tensors have become its own, here by a move to a device that has none, leaves the others alone."""
    panel = Panel({"one": deep(1, redraw_every=1), "two": deep(3, redraw_every=1)})
    gone: Any = deepcopy(panel.losses["one"])
    gone.network.extractor = deepcopy(gone.network.extractor)
    x, y = pairs(2)
    alone = deep(1, redraw_every=1)
    for step in (1, 4):
        gone.draw(step)
        alone.draw(step)
        assert torch.equal(gone(x, y), alone(x, y))


def test_refused_features_name_their_layer() -> None:
    """In a panel too, where a comparison is given what another one may have arranged."""
    panel = each(network(), [["relu1"], ["relu3"]], Contextual())
    with pytest.raises(ValueError, match="^layer relu3: contextual looks for the best of several places"):
        panel.encode(torch.rand(1, 3, 4, 4))


def test_gradient_is_that_of_the_losses() -> None:
    """An image gets the sum of the gradients that single losses give it; the network gets none."""
    x, y = (one.double() for one in pairs(2))
    losses: dict[str, Callable[[], Loss[Any]]] = {
        "deep": lambda: deep([1, 3], Sort()), "spatial": lambda: deep(3), "l2": L2,
    }  # fmt: skip
    panel = Panel({name: make() for name, make in losses.items()}).double()
    image = x.clone().requires_grad_()
    targets = panel.encode(y)
    torch.stack([one.sum() for one in panel.parts(panel.encode(image), targets).values()]).sum().backward()
    expected = torch.zeros_like(x)
    for make in losses.values():
        alone = x.clone().requires_grad_()
        make().double()(alone, y).sum().backward()
        assert alone.grad is not None
        expected += alone.grad
    torch.testing.assert_close(image.grad, expected, rtol=1e-9, atol=1e-12)
    assert all(parameter.grad is None for parameter in panel.parameters())


def test_panel_is_no_loss() -> None:
    """It has no single number to train with, and says so."""
    panel = Panel({"one": L1(), "two": L2()})
    x, y = pairs(2)
    for call in (panel, panel.compare):
        with pytest.raises(ValueError, match="a panel has 2 distances, not one: train with one of one, two"):
            call(x, y)


def test_members_work_alone() -> None:
    """In a panel a loss keeps its numbers, its smallest images and its cost."""
    shallow, deepest = deep(1), deep("pool3")
    sides = shallow.min_side, deepest.min_side
    panel = Panel({"shallow": shallow, "deepest": deepest})
    (shared,) = panel.networks
    seen = passes(shared)
    assert (shallow.min_side, deepest.min_side) == sides == (1, 8)
    x, y = pairs(2, side=4)
    assert torch.equal(panel.losses["shallow"](x, y), deep(1)(x, y))
    assert seen == []
    with pytest.raises(ValueError, match="8×8"):
        deepest(x, y)


def test_panel_of_a_panel() -> None:
    """Losses of a panel can go into another one, and still share."""
    x, y = pairs(2)
    first = each(network(), [["relu1"], ["relu2"]], {"a": Spatial(), "b": Sort()})
    panel = Panel({**first.losses, "l1": L1(), "twice": first.losses["relu1, a"]})
    assert len(panel.networks) == 1
    table = found(panel, x, y)
    for name, distance in found(first, x, y).items():
        assert torch.equal(table[name], distance)
    assert torch.equal(table["twice"], table["relu1, a"])


def test_copies_and_types_are_whole() -> None:
    """A copy, a panel of 64 bits and one in training mode give the same numbers, before and after a redraw."""
    x, y = pairs(2)

    def make() -> Panel:
        return Panel({"one": deep(1, redraw_every=1), "two": deep([1, 3], Sort(), redraw_every=1), "l1": L1()})

    changed: Sequence[Panel] = [deepcopy(make()), make().double(), make().train(), deepcopy(make().double())]
    original = make()
    for step in (0, 1):
        for panel in (original, *changed):
            panel.draw(step)
        for panel in changed:
            dtype = next(panel.networks[0].parameters()).dtype
            for name, distance in found(panel, x.to(dtype), y.to(dtype)).items():
                torch.testing.assert_close(distance.float(), found(original, x, y)[name], rtol=1e-5, atol=0)
    doubles = [make() for _ in range(2)]
    together = Panel({"a": doubles[0].double().losses["one"], "b": deep(2, redraw_every=1).double()})
    assert len(together.networks) == 1
    assert found(together, x.double(), y.double())["b"].dtype == torch.float64


def test_no_tensor_stays_on_another_device() -> None:
    panel = Panel({"one": deep(1), "two": deep([1, 3]), "lpips": lpips()}).to("meta")
    tensors = [*panel.parameters(), *panel.buffers()]
    assert len(tensors) > 10
    assert all(one.is_meta for one in tensors)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["layer=each"], ["relu1", "fire2", "fire5", "fire9"]),
        (["layer=[[1,2],[3]]"], ["relu1+fire2", "fire5"]),
        (["layer=2", "compare=each"], [f"fire2, {one}" for one in ("spatial", "mean", "sort", "spatial_mean",
                                                                    "spatial_sort")]),
        (["layer=[1,2]", "compare=each", "compare.names=[sort]", "normalize=false"], ["relu1+fire2, sort, raw"]),
    ],
)  # fmt: skip
def test_words_build_panels(words: list[str], names: list[str]) -> None:
    """What asks for several layers or comparisons builds a panel with these names."""
    panel = build(plain(load("loss=deep", "network=squeezenet1_1", *words))["loss"])
    assert isinstance(panel, Panel)
    assert panel.names == names


def test_the_whole_panel() -> None:
    """Four slots × five comparisons × both normalisations: 40 losses, one network, 24 terms."""
    words = ["network=squeezenet1_1", "layer=each", "compare=each", "normalize=each"]
    panel = build(plain(load("loss=deep", *words))["loss"])
    assert len(panel.names) == len(set(panel.names)) == 40
    assert panel.names[7] == "relu1, sort, raw"
    assert len(panel.networks) == 1
    assert len(panel._terms) == 24
    x, y = pairs(1, side=64)
    cell = build(plain(load("loss=deep", "network=squeezenet1_1", "layer=3", "compare=spatial_sort"))["loss"])
    torch.testing.assert_close(found(panel, x, y)["fire5, spatial_sort"], cell(x, y), rtol=1e-5, atol=0)


def test_training_needs_one_loss(train: Run) -> None:
    """The command ends with a sentence and exit code 1."""
    small_run = ["trainer=fast", "data.train_count=16", "data.val_count=4", "data.batch_size=8", "logger=csv",
                 "task.generator.widths=[16,16,16,16]"]  # fmt: skip
    done = train("task=glo", "loss=deep", "layer=each", "network=squeezenet1_1", *small_run)
    assert done.returncode == 1
    assert "error: this loss is a panel of several, and GLO takes one: choose one layer and one compar" in done.stderr
    assert "Traceback" not in done.stderr
