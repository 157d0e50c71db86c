"""The deep loss reads the layers it says, from a network that stays as it is."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from losslab.checks import check_weights
from losslab.comparisons.base import Comparison
from losslab.comparisons.contextual import Contextual
from losslab.comparisons.cosine import Cosine
from losslab.comparisons.mean import Mean
from losslab.comparisons.sort import Sort
from losslab.comparisons.spatial import Spatial
from losslab.config import build, load, plain
from losslab.losses.deep import Deep, by_layer, size_of
from losslab.losses.weighted_sum import WeightedSum
from losslab.networks.base import LossNetwork
from losslab.networks.layers import canonical_layers
from losslab.types import map_encoding


def deep(*overrides: str) -> Deep:
    loss: Deep = build(plain(load("loss=deep", *overrides))["loss"])
    return loss


class Pools(LossNetwork):
    """A stand-in whose layers are images at half, a quarter and an eighth of their size."""

    min_side = 8

    def __init__(self, select: list[str]) -> None:
        super().__init__()
        self.layers = select

    def read(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        sides = {"half": 2, "quarter": 4, "eighth": 8}
        flat = images.reshape(-1, *images.shape[-3:])
        found = {layer: functional.avg_pool2d(flat, sides[layer]) for layer in self.layers}
        return {layer: one.reshape(*images.shape[:-3], *one.shape[1:]) for layer, one in found.items()}


class Redrawn(Comparison[torch.Tensor]):
    """A stand-in with random state: it scales L1 by the step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def settle(self, arranged: torch.Tensor) -> torch.Tensor:
        return arranged * (1 + self.step)

    def compare(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((-3, -2, -1))

    def draw(self, step: int) -> str:
        self.step = step // 5
        return f"draw {self.step}"


LAYERS = ["half", "quarter", "eighth"]
L1 = Spatial("l1", "mean", normalize=False)


def convolutions(loss: Deep) -> list[nn.Conv2d]:
    return [layer for layer in loss.network.modules() if isinstance(layer, nn.Conv2d)]


@pytest.fixture
def vgg16() -> dict[str, Any]:
    network: dict[str, Any] = plain(load())["network"]
    return network


def test_first_filters_have_zero_mean() -> None:
    """The recipe that lifts a random VGG-16 from .691 to .736 on BAPPS: only the first convolution's filters."""
    first, second, *_ = convolutions(deep())
    assert first.weight.mean(dim=(2, 3)).abs().max() < 1e-7
    assert second.weight.mean(dim=(2, 3)).abs().max() > 1e-3
    assert all((layer.bias == 0).all() for layer in convolutions(deep()) if layer.bias is not None)


@pytest.mark.parametrize(("choice", "first_mean", "second_mean"), [("all", 0, 0), ("none", 1, 1)])
def test_zero_mean_switch(choice: str, first_mean: int, second_mean: int) -> None:
    first, second, *_ = convolutions(deep(f"weights.zero_mean={choice}"))
    assert (first.weight.mean(dim=(2, 3)).abs().max() > 1e-6) == bool(first_mean)
    assert (second.weight.mean(dim=(2, 3)).abs().max() > 1e-6) == bool(second_mean)


@pytest.mark.parametrize(("network", "choice"), [("cnn_channels", "first"), ("squeezenet1_1", "all")])
def test_filters_of_one_pixel_keep_their_mean(network: str, choice: str) -> None:
    """Without it they are zero, and so is every distance."""
    for mean in ("none", choice):
        words = [f"network={network}", "weights=random", f"weights.zero_mean={mean}"]
        make = build(plain(load("loss=deep", *words))["loss"]["network"])
        if mean == "none":
            assert make(select=2).layers
    with pytest.raises(ValueError, match=f"zero_mean={choice} leaves nothing of filters of one pixel, which .* of "):
        make(select=2)


def test_kaiming_scale() -> None:
    """Weights are N(0, 2 / fan_in)."""
    third = convolutions(deep())[2]
    assert float(third.weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_stays_in_eval_mode_and_frozen() -> None:
    """A parent's .train() must not reach the loss network, nor its optimiser the weights."""
    loss = deep()
    loss.train()
    assert not any(module.training for module in loss.network.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not any(module.training for module in nn.Sequential(loss).train()[0].network.modules())  # type: ignore[union-attr]


def test_leaves_nothing_in_a_checkpoint() -> None:
    """The weights are a function of the config; a strict load neither misses them nor changes them."""
    holder = nn.ModuleDict({"loss": deep("layer=1"), "head": nn.Linear(2, 2)})
    before = convolutions(holder["loss"])[0].weight.clone()  # type: ignore[arg-type]
    state = holder.state_dict()
    assert set(state) == {"head.weight", "head.bias"}
    holder.load_state_dict(state, strict=True)
    assert torch.equal(convolutions(holder["loss"])[0].weight, before)  # type: ignore[arg-type]


def test_features_equal_torchvision_hooks() -> None:
    """Named layers are what hooks on torchvision's own network see, before the ReLU that overwrites them there."""
    loss = deep()
    network = models.vgg16(weights=None).eval()
    missing = network.load_state_dict(loss.network.extractor.state_dict(), strict=False).missing_keys  # type: ignore[union-attr]
    assert all(key.startswith("classifier") for key in missing)
    seen: dict[int, torch.Tensor] = {}
    for index in (2, 7, 14, 21, 28):
        network.features[index].register_forward_hook(
            lambda _, __, output, index=index: seen.__setitem__(index, output.clone())
        )
    x = torch.rand(2, 3, 32, 32)
    network(2 * x - 1)
    found = loss.network.read(x)
    assert list(found) == ["pixels", "conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"]
    torch.testing.assert_close(found["pixels"], 2 * x - 1)
    for index, (name, features) in zip(seen, list(found.items())[1:], strict=True):
        torch.testing.assert_close(features, seen[index], msg=name)
        assert features.min() < 0


def test_distance_is_the_mean_of_level_l1() -> None:
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss = deep()
    a, b = loss.network.read(x), loss.network.read(y)
    expected = torch.stack([(a[layer] - b[layer]).abs().mean(dim=(1, 2, 3)) for layer in a]).mean(0)
    torch.testing.assert_close(loss(x, y), expected)


def test_cut_after_the_deepest_layer() -> None:
    """What lies behind costs neither time nor memory."""
    assert len(convolutions(deep("layer=2"))) == 4
    assert convolutions(deep("layer=pixels")) == []


@pytest.mark.parametrize(
    ("layer", "canonical"),
    [
        (2, ["relu2_2"]),
        ("features.15", ["relu3_3"]),
        ("conv3_3", ["conv3_3"]),
        ("pixels", ["pixels"]),
        ("all", ["relu1_2", "relu2_2", "relu3_3", "relu5_3"]),
        ([4, "pixels", "conv1_1"], ["pixels", "conv1_1", "relu5_3"]),
    ],
)
def test_layer_names(vgg16: dict[str, Any], layer: Any, canonical: list[str]) -> None:
    """Slots, graph nodes and aliases become one name each, in the order of the network."""
    assert canonical_layers(vgg16, layer) == canonical


def test_wrong_layers_name_the_nearest(vgg16: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match=r"unknown layer 'relu9_1' of vgg16; did you mean 'relu\d_1'"):
        canonical_layers(vgg16, "relu9_1")
    with pytest.raises(ValueError, match="slot from 1 to 4"):
        canonical_layers(vgg16, 5)
    with pytest.raises(ValueError, match="named twice"):
        canonical_layers(vgg16, [1, "relu1_2"])


def test_smallest_side_follows_the_layers() -> None:
    for layer, side in (("conv1_1", 1), ("conv2_2", 2), ("conv4_3", 8), ("pool5", 32)):
        loss = deep(f"layer={layer}")
        assert loss.min_side == side
        assert loss(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)).isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121"])
def test_other_architectures_get_all_their_weights(name: str) -> None:
    """Nothing of a network stays as memory happened to be, batch norm included."""
    x = torch.rand(2, 3, 64, 64)
    (found,) = deep(f"network={name}", "layer=2").network.read(x).values()
    assert found.isfinite().all()
    assert found.std() > 1e-6
    assert torch.equal(found, next(iter(deep(f"network={name}", "layer=2").network.read(x).values())))


def test_sum_needs_a_weight_for_each_term() -> None:
    with pytest.raises(ValueError, match="each term needs one weight"):
        WeightedSum({"deep": deep("layer=1")}, {"dep": 1.0})


def test_mean_or_sum_over_layers() -> None:
    """VGGPerceptualLoss divides by the number of layers, whatever their weights; the study adds up."""
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    each = torch.stack([Deep(Pools, [layer], L1)(x, y) for layer in LAYERS])
    weights = torch.tensor([1.0, 0.0, 4.0])[:, None]
    torch.testing.assert_close(Deep(Pools, LAYERS, L1)(x, y), each.mean(0))
    torch.testing.assert_close(Deep(Pools, LAYERS, L1, "sum")(x, y), each.sum(0))
    torch.testing.assert_close(Deep(Pools, LAYERS, L1, "sum", [1, 0, 4])(x, y), (weights * each).sum(0))
    named = Deep(Pools, LAYERS, L1, "mean", {"eighth": 4.0, "quarter": 0.0, "half": 1.0})
    torch.testing.assert_close(named(x, y), (weights * each).sum(0) / 3)
    parts = named.parts(named.encode(x), named.encode(y))
    assert list(parts) == LAYERS
    torch.testing.assert_close(torch.stack(list(parts.values())), weights * each / 3)


def test_a_comparison_for_each_layer() -> None:
    """A list is in the network's order, a mapping by name; the terms are each layer's own."""
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    own = {"eighth": Sort(), "half": L1, "quarter": Mean()}
    loss = Deep(Pools, LAYERS, own, "sum")
    parts = loss.parts(loss.encode(x), loss.encode(y))
    for layer, comparison in own.items():
        torch.testing.assert_close(parts[layer], Deep(Pools, [layer], comparison)(x, y))
    assert torch.equal(Deep(Pools, LAYERS, [L1, Mean(), Sort()], "sum")(x, y), loss(x, y))
    assert loss.per_layer == {layer: own[layer] for layer in LAYERS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over_layers": "max"}, "over_layers is one of mean, sum, got 'max'"),
        ({"layer_weights": [1.0, 2.0]}, "layer_weights has 2 entries for 3 layers: half, quarter, eighth"),
        ({"layer_weights": {"half": 1.0, "relu1": 2.0}}, "layer_weights is for the layers half, relu1, but"),
        ({"compare": [L1]}, "compare has 1 entries for 3 layers"),
        ({"layer_weights": [1.0, -1.0, 2.0]}, "layer_weights of quarter is a number from 0, got -1.0"),
        ({"layer_weights": [1.0, 2.0, float("inf")]}, "layer_weights of eighth is a number from 0, got inf"),
        ({"layer_weights": [float("nan"), 1.0, 2.0]}, "layer_weights of half is a number from 0, got nan"),
        ({"layer_weights": [0, 0.0, 0]}, "layer_weights are all 0, so that nothing is compared: half, quarter, eighth"),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_layers(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deep(Pools, LAYERS, **{"compare": L1, **arguments})


def test_refused_features_name_their_layer() -> None:
    """Among several layers, the one that a comparison can't take."""
    loss = Deep(Pools, LAYERS, Contextual())
    assert loss(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)).isfinite().all()
    with pytest.raises(ValueError, match="^layer eighth: contextual looks for the best of several places, but"):
        loss.encode(torch.rand(2, 3, 8, 8))


def test_words_are_no_weights() -> None:
    """A word is one value for all layers, not a list of letters."""
    with pytest.raises(ValueError, match="layer_weights of half is a number from 0, got 'abc'"):
        check_weights("layer_weights", by_layer("layer_weights", "abc", LAYERS))


def test_maps() -> None:
    """Each layer's map, scaled up to the images' size as LPIPS does it, and added up with the layers' weights."""
    x, y = torch.rand(2, 3, 3, 16, 24), torch.rand(2, 3, 3, 16, 24)
    loss = Deep(Pools, LAYERS, [L1, Cosine(), Mean()], layer_weights=[1.0, 2.0, 3.0])
    a, b = loss.encode(x), loss.encode(y)
    found, each = loss.maps(a, b), loss.layer_maps(a, b)
    assert found.shape == (2, 3, 1, 16, 24)
    assert list(each) == LAYERS
    torch.testing.assert_close(sum(each.values()), found)
    half = (a.value["layers"]["half"] - b.value["layers"]["half"]).abs().mean(-3, keepdim=True)
    expected = nn.Upsample(size=(16, 24), mode="bilinear", align_corners=False)(half.flatten(0, 1)) / 3
    torch.testing.assert_close(each["half"].flatten(0, 1), expected)
    constant = loss.parts(a, b)["eighth"]
    torch.testing.assert_close(each["eighth"], constant[..., None, None, None].expand(2, 3, 1, 16, 24))
    one = map_encoding(lambda tensor: tensor[:1], a)
    torch.testing.assert_close(loss.maps(one, b)[0], found[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="place by place"):
        Deep(Pools, LAYERS, Sort()).maps(*(Deep(Pools, LAYERS, Sort()).encode(one) for one in (x, y)))
    with pytest.raises(ValueError, match="different sizes"):
        loss.maps(a, loss.encode(y[..., :16, :16]))


def test_features_that_were_read_once() -> None:
    """A panel reads a network once, for several losses: `keep` is what follows, and takes what it needs."""
    x = torch.rand(2, 3, 16, 16)
    loss = Deep(Pools, ["half", "quarter"], L1)
    kept = loss.keep(Pools(LAYERS).read(x), size_of(x))
    whole = loss.encode(x)
    assert kept.draw == whole.draw
    assert torch.equal(loss.compare(kept, whole), torch.zeros(2))
    assert list(kept.value["layers"]) == ["half", "quarter"]
    assert loss.deep is loss
    assert loss.make_network is Pools


def test_random_comparisons_are_drawn() -> None:
    """Encodings of two draws of a comparison are refused, as those of a network's are."""
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss = Deep(Pools, LAYERS, [L1, Redrawn(), L1])
    first, old = loss(x, y), loss.encode(x)
    loss.draw(4)
    assert torch.equal(loss.compare(old, loss.encode(y)), first)
    loss.draw(5)
    assert not torch.equal(loss(x, y), first)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(y))


def test_published_defaults() -> None:
    """`loss=deep` alone is VGGPerceptualLoss: L1 as a mean over channels, layers averaged, no normalisation."""
    loss = deep()
    assert {one.recipe() for one in loss.per_layer.values()} == {L1.recipe()}
    assert set(loss.factors.values()) == {1 / 6}
    assert set(deep("loss.over_layers=sum", "loss.layer_weights=[1,1,1,1,1,2]").factors.values()) == {1.0, 2.0}
    assert set(deep("+loss.layer_weights.conv1_2=2", "layer=conv1_2").factors.values()) == {2.0}
