"""The deep loss reads the layers it says, from a network that stays as it is."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from losslab.config import build, load, plain
from losslab.losses.deep import Deep
from losslab.losses.weighted_sum import WeightedSum
from losslab.networks.layers import canonical_layers
from losslab.networks.torchvision import TorchvisionNetwork
from losslab.networks.weights import RandomWeights


def deep(*overrides: str) -> Deep:
    loss: Deep = build(plain(load("loss=deep", *overrides))["loss"])
    return loss


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
    x = torch.rand(2, 3, 64, 64)
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
    node = {"resnet18": "layer2", "efficientnet_b0": "features.4", "densenet121": "features.denseblock2"}[name]

    def network() -> TorchvisionNetwork:
        return TorchvisionNetwork(name, {"deep": node}, {}, ["deep"], RandomWeights(), "deep")

    x = torch.rand(2, 3, 64, 64)
    found = network().read(x)["deep"]
    assert found.isfinite().all()
    assert found.std() > 1e-6
    assert torch.equal(found, network().read(x)["deep"])


def test_sum_needs_a_weight_for_each_term() -> None:
    with pytest.raises(ValueError, match="each term needs one weight"):
        WeightedSum({"deep": deep("layer=1")}, {"dep": 1.0})
