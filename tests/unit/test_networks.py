"""Every architecture means the same thing by a layer: what torchvision's own forward pass has there."""

import re
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from losslab.config import CONF, build, load, plain
from losslab.networks.architectures import on_meta, timm_model, torchvision_model
from losslab.networks.cutting import Traced, smallest_side
from losslab.networks.graph import GraphNetwork
from losslab.networks.layers import canonical_layers, chosen_layers
from losslab.networks.random_cnn import random_cnn
from losslab.networks.receptive_field import fields
from losslab.networks.state_dicts import fill_cut
from losslab.networks.table import layer_rows
from losslab.networks.weights import Architecture, RandomWeights

# Pihlgren et al., arXiv 2302.04032: children, torchvision's names and, measured with torchvision 0.29.1 on images of 64
# pixels, channels and sides of the four layers that were studied
STUDY_TABLE = """
alexnet: 1 features.1 64 15, 4 features.4 192 7, 7 features.7 384 3, 11 features.11 256 3
vgg11: 1 features.1 64 64, 4 features.4 128 32, 9 features.9 256 16, 19 features.19 512 4
vgg16: 3 features.3 64 64, 8 features.8 128 32, 15 features.15 256 16, 29 features.29 512 4
vgg16_bn: 5 features.5 64 64, 12 features.12 128 32, 22 features.22 256 16, 42 features.42 512 4
vgg19: 3 features.3 64 64, 8 features.8 128 32, 17 features.17 256 16, 35 features.35 512 4
densenet121: 2 features.relu0 64 32, 4 features.denseblock1 256 16, 6 features.denseblock2 512 8, \
10 features.denseblock4 1024 2
resnet18: 2 relu 64 32, 4 layer1 64 16, 5 layer2 128 8, 7 layer4 512 2
resnet50: 2 relu 64 32, 4 layer1 256 16, 5 layer2 512 8, 7 layer4 2048 2
resnext50_32x4d: 2 relu 64 32, 4 layer1 256 16, 5 layer2 512 8, 7 layer4 2048 2
googlenet: 0 conv1 64 32, 5 inception3a 256 8, 8 inception4a 512 4, 15 inception5b 1024 2
inception_v3: 2 Conv2d_2b_3x3 64 29, 7 Mixed_5b 256 5, 9 Mixed_5d 288 5, 14 Mixed_6e 768 2
squeezenet1_1: 1 features.1 64 31, 3 features.3 128 15, 7 features.7 256 7, 12 features.12 512 3
efficientnet_b0: 0 features.0 32 32, 1 features.1 16 32, 4 features.4 80 4, 7 features.7 320 2
efficientnet_b7: 0 features.0 64 32, 1 features.1 32 32, 4 features.4 160 4, 7 features.7 640 2
"""
STUDY = {
    name: [
        (int(child), node, int(channels), int(side)) for child, node, channels, side in map(str.split, rows.split(","))
    ]
    for name, _, rows in (line.partition(": ") for line in STUDY_TABLE.strip().splitlines())
}
GRAPHS = sorted(path.stem for path in (CONF / "network").glob("*.yaml") if "base/graph" in path.read_text())
TORCHVISION = [name for name in GRAPHS if name in models.list_models()]


def config(name: str) -> dict[str, Any]:
    return config_of(name)


def config_of(name: str, *overrides: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(load(f"network={name}", "loss=l2", *overrides))["network"]
    return found


def network(name: str, *overrides: str, select: Any = "all") -> GraphNetwork:
    node = plain(load("loss=l2", f"network={name}", *overrides))["network"]
    made: GraphNetwork = build(node)(select=select)
    return made


def same_model(loss_network: GraphNetwork) -> nn.Module:
    """Build torchvision's own model with our weights; what lies behind our cut has no numbers, and is not looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = on_meta(partial(models.get_model, loss_network.name, weights=None)).to_empty(device="cpu").eval()
    assert loss_network.extractor is not None
    assert not model.load_state_dict(loss_network.extractor.state_dict(), strict=False).unexpected_keys
    return model


def hooked(model: nn.Module, modules: list[str], x: Tensor) -> dict[str, Tensor]:
    """What hooks on some modules of torchvision's own forward pass see."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        seen[name] = output.clone()

    for name in modules:
        model.get_submodule(name).register_forward_hook(partial(keep, name))
    with torch.no_grad():
        model(x)
    return seen


def children(model: nn.Module) -> list[nn.Module]:
    """The list that the study of Pihlgren et al. indexes."""
    features = getattr(model, "features", None)
    return [*(features if isinstance(features, nn.Module) else model).children()]


@pytest.mark.parametrize("name", STUDY)
def test_study_layers(name: str) -> None:
    """All 56 layers of the study: slot, index, node, shape, torchvision's hooks bit for bit, the study's slices."""
    loss_network = network(name)
    settings = config(name)
    nodes = [node for _, node, _, _ in STUDY[name]]
    assert [*loss_network.nodes.values()] == nodes
    assert canonical_layers(settings, [f"child:{child}" for child, *_ in STUDY[name]]) == loss_network.layers
    assert canonical_layers(settings, nodes) == loss_network.layers
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = loss_network.read(x)
    assert [tuple(one.shape[1:]) for one in found.values()] == [(c, side, side) for _, _, c, side in STUDY[name]]

    model = same_model(loss_network)
    sliced, kept = 2 * x - 1, {}
    with torch.no_grad():
        for index, child in enumerate(children(model)[: STUDY[name][-1][0] + 1]):
            sliced = child(sliced)
            kept[index] = sliced.clone()
    for (index, *_), features in zip(STUDY[name], found.values(), strict=True):
        assert torch.equal(features, kept[index])

    larger = torch.rand(2, 3, 80, 80)  # the whole of Inception needs 75 pixels
    seen = hooked(model, nodes, 2 * larger - 1)
    with torch.no_grad():
        for node, features in zip(nodes, loss_network.read(larger).values(), strict=True):
            assert torch.equal(features, seen[node])


def test_channels_last() -> None:
    """Bit for bit torchvision's in that memory format too, near the other one, and whatever format images come in."""
    plain_order, side_by_side = network("vgg16"), network("vgg16", "network.channels_last=true")
    x = torch.rand(2, 3, 64, 64)
    turned = x.contiguous(memory_format=torch.channels_last)
    model = same_model(side_by_side).to(memory_format=torch.channels_last)
    seen = hooked(model, [*side_by_side.nodes.values()], 2 * turned - 1)
    for layer, features in side_by_side.read(x).items():
        assert torch.equal(features, seen[side_by_side.nodes[layer]])
        assert torch.equal(features, side_by_side.read(turned)[layer])
        assert torch.equal(plain_order.read(x)[layer], plain_order.read(turned)[layer])
        torch.testing.assert_close(features, plain_order.read(x)[layer], rtol=1e-3, atol=1e-5)


def test_there_are_the_57_of_the_study() -> None:
    """All classifiers that the study's code knows have a config."""
    assert len(TORCHVISION) == 57


@pytest.mark.parametrize("name", sorted({*GRAPHS} - {"timm", "torchvision"}))
def test_tables_are_true(name: str) -> None:
    """Each canonical name of each config is a node of its graph, in the graph's order, and the slots are among them."""
    settings = config(name)
    traced = Traced(build(settings["architecture"]))
    places = [[*traced.nodes.values()].index(traced.find(node)) for node in settings["layers"].values()]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert set(settings["slots"]) <= set(settings["layers"])
    assert canonical_layers(settings, settings["properties"]["default_layers"])


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["conv1", "bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.conv2"]),
        ("densenet121", ["features.norm0", "features.denseblock1.denselayer2.conv1"]),
        ("googlenet", ["conv1.bn", "inception3a.branch2.1.bn"]),
        ("mobilenet_v3_small", ["features.0.1", "features.4.block.0.1"]),
        ("squeezenet1_1", ["features.0", "features.3.expand1x1"]),
    ],
)
def test_layers_before_what_overwrites_them(name: str, layers: list[str]) -> None:
    """In-place ReLUs and sums, as modules, functions and operators, don't reach the output of the layer before."""
    loss_network = network(name, select=layers)
    x = torch.rand(1, 3, 64, 64)
    seen = hooked(same_model(loss_network), [*loss_network.nodes.values()], 2 * x - 1)
    found = loss_network.read(x)
    for layer, node in loss_network.nodes.items():
        assert torch.equal(found[layer], seen[node])
        assert found[layer].min() < 0


def test_a_block_and_its_last_node_are_the_same() -> None:
    """Two names of one node can be asked for together."""
    found = network("resnet18", select=["layer1", "layer1.1.relu_1"]).read(torch.rand(1, 3, 32, 32))
    assert torch.equal(*found.values())


def test_images_stay_as_they_are_and_take_gradients() -> None:
    """The original normalises its caller's tensor in place, so that a second call differs."""
    loss_network = network("resnet18", select="relu")
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    before = x.detach().clone()
    first = loss_network.read(x)["relu"]
    first.sum().backward()
    assert torch.equal(x, before)
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert torch.equal(first, loss_network.read(x)["relu"])


def test_batch_norm_statistics_never_move() -> None:
    """A parent's .train() and ten passes leave every number of the network as it was."""
    loss_network = network("resnet18", select="layer1")
    before = {key: value.clone() for key, value in loss_network.extractor.state_dict().items()}  # type: ignore[union-attr]
    nn.Sequential(loss_network).train()
    for _ in range(10):
        loss_network.read(torch.rand(4, 3, 32, 32))
    after = loss_network.extractor.state_dict()  # type: ignore[union-attr]
    assert any("running_mean" in key for key in before)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("name", "select", "side"), [("alexnet", 4, 31), ("inception_v3", 4, 43), ("vgg16", "pool5", 32)]
)
def test_smallest_side_is_exact(name: str, select: Any, side: int) -> None:
    """The side that is said up front works, and one pixel less fails."""
    loss_network = network(name, select=select)
    assert loss_network.min_side == side
    assert all(one.isfinite().all() for one in loss_network.read(torch.rand(1, 3, side, side)).values())
    with pytest.raises(RuntimeError):
        loss_network.read(torch.rand(1, 3, side - 1, side - 1))


def test_too_small_an_image_is_said_up_front() -> None:
    loss = build(plain(load("loss=deep", "network=alexnet", "layer=4"))["loss"])
    with pytest.raises(ValueError, match="31 pixels"):
        loss(torch.rand(1, 3, 30, 64), torch.rand(1, 3, 30, 64))


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "maxvit_t"])
def test_models_of_tokens_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} works on tokens"):
        torchvision_model(name)


def test_any_convolutional_model_of_timm() -> None:
    """Its nodes are layers, with any of our weights; models of tokens are refused by name."""
    pytest.importorskip("timm")
    loss_network = network("timm", "network.architecture.name=resnet10t", select=["layer1", "act1"])
    found = loss_network.read(torch.rand(1, 3, 64, 64))
    assert [tuple(one.shape[1:]) for one in found.values()] == [(64, 32, 32), (64, 16, 16)]
    for name in ("vit_tiny_patch16_224", "beit_base_patch16_224", "maxvit_rmlp_pico_rw_256"):
        with pytest.raises(ValueError, match=f"{name} works on tokens"):
            timm_model(name)
    with pytest.raises(KeyError, match="did you mean 'resnet10t'"):
        timm_model("resnet10tt")
    with pytest.raises(ValueError, match="no layers of timm_resnet10t are known beforehand"):
        network("timm", "network.architecture.name=resnet10t", select=[])


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [
        ("levit_128", "stages.1", r"timm_levit_128 works on tokens, not on maps of places: .*1024 pixels"),
        (
            "convnext_atto",
            "stem.1.permute",
            r"no map of features at places, channels × height × width: .*\(256, 256, 40\)",
        ),
        ("convnext_atto", "head.flatten", r"no map of features .* its shape is \(320,\)"),
    ],
)
def test_what_is_no_map_of_timm(name: str, layer: str, said: str) -> None:
    """Tokens, windows of one size and channels behind are found by what they are, not by the class that makes them."""
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=said):
        network("timm", f"network.architecture.name={name}", "weights=random_library", select=layer)


def test_convolutional_networks_with_patches() -> None:
    """FasterNet calls its first convolution a patch embedding, and is one of convolutions all the same."""
    pytest.importorskip("timm")
    made = network("timm", "network.architecture.name=fasternet_t0", select="stages.1")
    assert made.read(torch.rand(1, 3, 64, 64))["stages.1"].shape == (1, 80, 8, 8)


def test_sizes_that_a_network_does_not_take() -> None:
    """One that needs multiples says so, and its smallest size is one that works."""
    pytest.importorskip("timm")
    made = network("timm", "network.architecture.name=tresnet_m", "weights=random_library", select="body.layer1")
    assert not made.takes_all
    assert made.min_side == 4
    assert made.read(torch.rand(1, 3, 8, 8))["body.layer1"].isfinite().all()
    with pytest.raises(ValueError, match="timm_tresnet_m can't be run on images of 9×9 pixels: RuntimeError"):
        made.read(torch.rand(1, 3, 9, 9))


@pytest.mark.parametrize("weights", ["random_library", "random"])
def test_tensors_that_are_no_weights(weights: str) -> None:
    """Blurred pooling has its binomials, which no state dict holds, and a file of weights leaves them alone."""
    pytest.importorskip("timm")
    made = network("timm", "network.architecture.name=resnetblur18", f"weights={weights}", select="maxpool")
    assert made.extractor is not None
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    found = next(one for name, one in made.extractor.named_buffers() if name == "maxpool.1.filt")
    assert torch.equal(found, (binomial[:, None] * binomial).expand_as(found))
    whole = made.architecture.whole.state_dict()
    state = {name: torch.zeros(one.shape, dtype=one.dtype) for name, one in whole.items()}
    fill_cut(made.extractor, state, made.architecture, "a file")
    assert not made.extractor.get_parameter("conv1.weight").any()
    assert found.any()


class Scaled(nn.Module):
    """A classifier with numbers that are neither weights nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1)
        self.scale = torch.tensor([2.0, 3.0])[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) * self.scale


@pytest.mark.parametrize("init", ["library", "kaiming"])
def test_numbers_beside_the_weights(init: str) -> None:
    """They are the architecture's own, drawn weights and a file of weights leave them alone."""
    kind = Architecture("losslab", "scaled", Scaled, on_meta(Scaled))
    made = GraphNetwork("scaled", kind, {}, [], RandomWeights(init, "none", input="raw"), ["features", "mul"])
    for _ in range(2):
        found = made.read(torch.rand(1, 3, 4, 4))
        assert torch.equal(found["mul"], found["features"] * Scaled().scale)
        state = {name: torch.ones(one.shape) for name, one in kind.whole.state_dict().items()}
        assert made.extractor is not None
        fill_cut(made.extractor, state, kind, "a file")


def test_any_other_model_of_torchvision() -> None:
    """What has no table of its own goes by the nodes of its graph."""
    words = ("network.architecture.name=convnext_tiny", "weights=random_library")
    found = network("torchvision", *words, select=["features.1"]).read(torch.rand(1, 3, 64, 64))
    assert found["features.1"].shape == (1, 96, 16, 16)


def test_no_gradient_reaches_the_weights() -> None:
    """Even where a parent has asked for one."""
    loss_network = network("resnet18", select="relu")
    nn.ModuleList([loss_network]).requires_grad_(requires_grad=True)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss_network.read(x)["relu"].sum().backward()
    assert all(one.grad is None and not one.requires_grad for one in loss_network.parameters())


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (1.5, r"layer is a name, a depth slot 1\.\.4, child:INDEX, a list .*, got 1\.5"),
        (True, r"layer is a name, .*, got true"),
        ([1, False], r"layer is a name, .*, got \[1, False\]"),
        ([None], r"layer is a name, .*, got \[None\]"),
        ({"conv1": 1}, r"layer is a name, .*, got \{'conv1': 1\}"),
        ([[1], 2.5], r"layer is a name, .*, got 2\.5"),
        ([], r"which layers of resnet18\? layer= names none: give a name, .*, such as layer=layer4"),
        (None, r"which layers of resnet18\?"),
        ("", r"which layers of resnet18\?"),
        ([["layer1"], []], r"which layers of resnet18\?"),
    ],
)
def test_what_is_no_layer(layer: Any, said: str) -> None:
    """A switch is no slot, and nothing is not unknown beforehand where there is a table."""
    with pytest.raises(ValueError, match=said):
        chosen_layers(config("resnet18"), layer)


def test_inputs_that_are_none() -> None:
    for given in ({"mean": [0, 0, 0], "std": [1, 1, 0]}, {"mean": [0.0], "std": [1.0, 1.0]}, {"mean": [0.0]}):
        with pytest.raises(ValueError, match="input has a mean and a std above 0 for each channel"):
            RandomWeights(input=given)


def test_layers_that_are_no_maps_are_refused() -> None:
    traced = Traced(torchvision_model("alexnet"))
    with pytest.raises(ValueError, match="'classifier.1' of alexnet is no map of features"):
        smallest_side(traced.cut(["classifier.1"]), "alexnet")


def test_wrong_names_name_the_nearest() -> None:
    with pytest.raises(KeyError, match="unknown torchvision model 'vgg17'; did you mean 'vgg1"):
        torchvision_model("vgg17")
    with pytest.raises(KeyError, match=r"unknown layer 'layer1.0.conv7' of resnet18; did you mean 'layer1.0.conv\d'"):
        network("resnet18", select="layer1.0.conv7")
    with pytest.raises(KeyError, match="unknown layer 'layer9' of resnet18; did you mean 'layer"):
        network("resnet18", select="layer9")
    with pytest.raises(ValueError, match="layer 'child:9' of resnet18: the children are counted from 0 to 8"):
        network("resnet18", select="child:9")
    with pytest.raises(ValueError, match="a depth slot from 1 to 4"):
        network("resnet18", select=5)


@pytest.mark.parametrize(
    ("layer", "canonical"),
    [
        ("denseblock1", "denseblock1"),
        ("features.denseblock1", "denseblock1"),
        ("denseblock1.denselayer2.conv1", "features.denseblock1.denselayer2.conv1"),
        ("features.denseblock1.denselayer2.conv1", "features.denseblock1.denselayer2.conv1"),
    ],
)
def test_nodes_inside_a_named_block(layer: str, canonical: str) -> None:
    """A node inside a child has one name, however the child is called."""
    assert canonical_layers(config("densenet121"), layer) == [canonical]


def test_the_order_of_layers_is_the_networks() -> None:
    """Whatever order they are asked for in, an id has one."""
    wanted = ["layer2", "layer1.10.relu", "layer1", "layer1.2.relu", "pixels"]
    expected = ["pixels", "layer1.2.relu", "layer1.10.relu", "layer1", "layer2"]
    assert canonical_layers(config("resnet18"), wanted) == expected
    assert canonical_layers(config("resnet18"), wanted[::-1]) == expected


@pytest.mark.parametrize(("pooling", "kind"), [("average", "AvgPool2d"), ("blur", "MaxBlurPool"), ("l2", "L2Pool")])
def test_poolings(pooling: str, kind: str) -> None:
    """Another pooling takes the place of every max pooling, at the same stride."""
    select = ["pool2", "relu3_3"]
    other, own = network("vgg16", f"network.pooling={pooling}", select=select), network("vgg16", select=select)
    assert [type(one).__name__ for one in other.modules() if "Pool" in type(one).__name__] == [kind] * 2
    x = torch.rand(1, 3, 64, 64)
    found, usual = other.read(x), own.read(x)
    assert [one.shape for one in found.values()] == [one.shape for one in usual.values()]
    assert not torch.allclose(found["relu3_3"], usual["relu3_3"])


def test_average_pooling_averages() -> None:
    found = network("vgg16", "network.pooling=average", select=["relu1_2", "pool1"]).read(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(found["pool1"], nn.functional.avg_pool2d(found["relu1_2"], 2))


def test_bfloat16_is_near_and_of_32_bits() -> None:
    """Half precision inside, features of 32 bits outside, and the loss still moves as a whole."""
    fine, coarse = network("vgg16"), network("vgg16", "precision=bf16")
    x = torch.rand(2, 3, 64, 64)
    for one, other in zip(fine.read(x).values(), coarse.read(x).values(), strict=True):
        assert other.dtype == torch.float32
        assert 1e-4 < ((one - other).norm() / one.norm()) < 0.03
    loss = build(plain(load("loss=deep", "layer=1", "precision=bf16"))["loss"])
    assert loss(x, x.flip(0)).dtype == torch.float32
    assert loss.double()(x.double(), x.flip(0).double()).dtype == torch.float64


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="pooling is one of max, average, blur, l2"):
        network("vgg16", "network.pooling=min")
    with pytest.raises(ValueError, match="init is one of kaiming, conv2d, library"):
        RandomWeights(init="xavier")
    with pytest.raises(ValueError, match="input is one of imagenet, signed, raw, own"):
        RandomWeights(input="0..255")
    with pytest.raises(ValueError, match="needs images of 3 channels, got 1"):
        network("vgg16").read(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize(("name", "shift", "scale"), [("raw", 0, 1), ("signed", -1, 2)])
def test_inputs(name: str, shift: float, scale: float) -> None:
    """The network is fed the range that is asked for; `pixels` shows it."""
    x = torch.rand(1, 3, 8, 8)
    found = network("vgg16", f"weights.input={name}", select="pixels").read(x)["pixels"]
    torch.testing.assert_close(found, scale * x + shift)
    own = network("vgg16", "weights.input={mean: [.1, .2, .3], std: [1, 1, 2]}", select="pixels").read(x)["pixels"]
    torch.testing.assert_close(
        own, (x - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([1, 1, 2])[:, None, None]
    )


def first_two(*overrides: str) -> tuple[nn.Conv2d, nn.Conv2d]:
    made = [one for one in network("alexnet", *overrides).modules() if isinstance(one, nn.Conv2d)]
    return made[0], made[1]


def test_four_random_inits_are_four_things() -> None:
    """Kaiming with zero-mean first filters, Kaiming, Conv2d's own default, and the architecture's constructor."""
    inits = [first_two(f"weights={name}")[1] for name in ("random_kaiming", "random_conv2d", "random_library")]
    fan = 64 * 5 * 5
    kaiming, conv2d, library = inits
    assert float(kaiming.weight.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.02)
    assert float(conv2d.weight.abs().max()) == pytest.approx(fan**-0.5, rel=0.01)
    assert float(conv2d.weight.std()) == pytest.approx((3 * fan) ** -0.5, rel=0.02)
    assert kaiming.bias is not None
    assert conv2d.bias is not None
    assert kaiming.bias.abs().max() == 0
    assert 0.8 * fan**-0.5 < conv2d.bias.abs().max() <= fan**-0.5
    assert torch.equal(library.weight, conv2d.weight)  # AlexNet's constructor leaves Conv2d's own numbers as they are
    assert first_two("weights=random")[0].weight.mean((2, 3)).abs().max() < 1e-6
    assert first_two("weights=random_kaiming")[0].weight.mean((2, 3)).abs().max() > 1e-3


def test_the_librarys_init_is_the_constructors() -> None:
    """The same numbers as torchvision's constructor under the same seed, and torch's generator stays as it was."""
    before = torch.get_rng_state()
    made = network("resnet18", "weights=random_library", "weights.seed=3", select="layer1")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3 * 1_000_003)
        expected = models.resnet18(weights=None)
    key = "layer1.1.conv2.weight"
    assert torch.equal(made.extractor.state_dict()[key], expected.state_dict()[key])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "some", "layer"),
    [
        ("squeezenet1_1", ["fire2"], "features.3.expand3x3"),
        ("resnet18", ["layer2"], "layer2.0.downsample"),
        ("inception_v3", ["Mixed_5b"], "Mixed_5b.branch_pool"),
    ],
)
def test_draws_don_t_depend_on_the_cut(name: str, some: list[str], layer: str) -> None:
    """A side branch alone has the numbers that it has with its siblings, so that a panel agrees with its members."""
    alone, together = network(name, select=layer), network(name, select=[*some, layer])
    assert alone.extractor is not None
    assert together.extractor is not None
    state, whole = alone.extractor.state_dict(), together.extractor.state_dict()
    assert 0 < len(state) < len(whole)
    assert all(torch.equal(tensor, whole[key]) for key, tensor in state.items())


def test_what_is_not_drawn_is_the_constructors() -> None:
    """Scales of channels and the norms of channels keep their constants, and convolutions are Kaiming's."""
    words = ("network.architecture.name=convnext_tiny", "weights=random")
    made = network("torchvision", *words, select="features.1.0")
    assert made.extractor is not None
    state = made.extractor.state_dict()
    scale = next(one for name, one in state.items() if name == "features.1.0.layer_scale")
    assert (scale == 1e-6).all()  # torchvision.models.convnext, layer_scale of CNBlock
    assert (state["features.0.1.weight"] == 1).all()
    assert not state["features.0.1.bias"].any()
    assert float(state["features.1.0.block.0.weight"].std()) == pytest.approx((2 / 49) ** 0.5, rel=0.05)
    assert made.read(torch.rand(1, 3, 64, 64))["features.1.0"].isfinite().all()


def test_what_the_constructor_draws_is_refused() -> None:
    """Its layer and class are named, and the choice that works."""
    pytest.importorskip("timm")
    words = ("network.architecture.name=swiftformer_xs",)
    said = r"known for stages\.0\.blocks\.\d\.attn\.w_g, of a EfficientAdditiveAttention: weights=random_library"
    with pytest.raises(ValueError, match=said):
        network("timm", *words, select="stages.0")
    assert network("timm", *words, "weights=random_library", select="stages.0").layers == ["stages.0"]


@pytest.mark.parametrize("init", ["random", "random_conv2d", "random_library"])
def test_draws_are_functions_of_seed_and_step(init: str) -> None:
    """Redrawn weights come back at their step, and encodings of two draws have two names."""
    made = network("alexnet", f"weights={init}", "weights.redraw_every=2", select=1)
    first = made.extractor.state_dict()["features.0.weight"].clone()  # type: ignore[union-attr]
    names = [made.draw(step) for step in (0, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert not torch.equal(made.extractor.state_dict()["features.0.weight"], first)  # type: ignore[union-attr]
    made.draw(1)
    assert torch.equal(made.extractor.state_dict()["features.0.weight"], first)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "layer", "side"), [("alexnet", "relu3", 255), ("squeezenet1_1", "fire3", 127), ("resnet18", "layer1", 127)]
)
def test_receptive_fields_are_what_gradients_reach(name: str, layer: str, side: int) -> None:
    """The part of the image that has a say in a place in the middle is as large as the table says."""
    rows = {row.name: row for row in layer_rows(torchvision_model(name), config(name), side)}
    cut = network(
        name, "network.pooling=average", select=layer
    ).extractor  # a maximum's gradient goes to one place only
    assert cut is not None
    for tensor in [*cut.parameters(), *cut.buffers()]:
        tensor.data.fill_(1)
    x = torch.ones(1, 3, side, side, requires_grad=True)
    (features,) = cut(x).values()
    middle = features.shape[-1] // 2
    features[0, :, middle, middle].sum().backward()
    assert x.grad is not None
    reached = (x.grad[0].abs().sum(0) > 0).any(0).nonzero().flatten()
    assert int(reached[-1] - reached[0]) + 1 == rows[layer].field.size
    assert rows[layer].field.stride == pytest.approx(side / features.shape[-1], rel=0.12)


def test_table_of_layers() -> None:
    """Cost grows with depth and is torch's count; squeeze-and-excitation sees the whole image."""
    rows = {row.name: row for row in layer_rows(torchvision_model("vgg16"), config("vgg16"), 64)}
    assert rows["relu1_2"].slot == 1
    assert rows["relu1_2"].child == 3
    assert rows["relu3_3"].shape == (256, 16, 16)
    # VGG-16: Simonyan and Zisserman, 13 convolutions of 3 × 3; two operations a multiplication and addition
    assert rows["conv1_2"].flops == 2 * 64 * 64 * 9 * 64 * (3 + 64)
    assert rows["conv1_2"].field.size == 5
    assert rows["pool5"].field.size == 212
    assert rows["pool5"].field.stride == 32
    small = [row.name for row in layer_rows(torchvision_model("vgg16"), config("vgg16"), 8)]
    assert small[-1] == "relu4_3"
    excited = layer_rows(torchvision_model("efficientnet_b0"), config("efficientnet_b0"), 64)
    wholes = {row.name: row.field.whole for row in excited}
    assert not wholes["features.0"]
    assert wholes["features.1"]


def test_fields_behind_an_unknown_block_are_not_known() -> None:
    """A block with windows of its own that can't be traced, and a convolution whose window its tensor tells."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    graph = torch.fx.Graph()
    image = graph.placeholder("x")
    first = graph.call_module("first", (image,))
    unknown = {"odd": graph.call_module("odd", (first,)), "call": graph.call_function(torch.conv2d, (first, first))}
    graph.output({"first": first, **unknown, "sum": graph.call_function(torch.add, (first, unknown["odd"]))})
    seen = fields(torch.fx.GraphModule({"first": nn.Conv2d(3, 3, 5), "odd": Odd()}, graph))
    assert {name: field.known for name, field in seen.items()} == {
        "first": True, "odd": False, "call": False, "sum": False
    }  # fmt: skip


def test_mean_over_places_sees_the_whole_image() -> None:
    """As timm's squeeze-and-excitation has it; a mean over channels does not."""
    graph = torch.fx.Graph()
    image = graph.placeholder("x")
    graph.output({name: graph.call_method("mean", (image, axes)) for name, axes in
                  (("places", (2, 3)), ("channels", 1))})  # fmt: skip
    assert {name: field.whole for name, field in fields(torch.fx.GraphModule({}, graph)).items()} == {
        "places": True, "channels": False
    }  # fmt: skip


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the command that installs it is named."""
    import builtins

    own = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "timm":
            raise ModuleNotFoundError(name)
        return own(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=re.escape("pip install 'losslab[timm]'")):
        timm_model("resnet18")


def test_small_random_networks() -> None:
    """CNN1 and CNN2: convolution, ReLU, convolution of one pixel, ReLU, windows of 32 at steps of 16, on [0, 1]."""
    made = network("cnn2", select=["relu2", "pool"])
    first, second = (one for one in made.modules() if isinstance(one, nn.Conv2d))
    x = torch.rand(2, 3, 50, 66)
    expected = second(first(x).relu()).relu()
    found = made.read(x)
    torch.testing.assert_close(found["relu2"], expected)
    torch.testing.assert_close(found["pool"], nn.functional.avg_pool2d(expected, 32, 16))
    assert found["relu2"].shape[1:] == (32, 48, 64)
    assert float(first.weight.abs().max()) == pytest.approx(27**-0.5, rel=0.01)
    assert torch.equal(network("cnn1").read(x)["relu2"], found["relu2"])


@pytest.mark.parametrize("channels", [4, 128])
def test_channel_and_kernel_studies(channels: int) -> None:
    """Any number of channels without a window, and any kernel at the images' size."""
    x = torch.rand(1, 3, 9, 11)
    made = network("cnn_channels", f"network.architecture.channels=[{channels},{channels},{channels}]")
    first = next(one for one in made.modules() if isinstance(one, nn.Conv2d))
    torch.testing.assert_close(made.read(x)["gelu1"], nn.functional.gelu(first(x)))
    assert made.read(x)["gelu3"].shape == (1, channels, 9, 11)
    assert network("cnn_kernel", "network.architecture.kernels=[9]").read(x)["conv1"].shape == (1, 128, 9, 11)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channels": [4], "kernels": [3, 1]}, "as many as convolutions"),
        ({"channels": [4], "kernels": [3], "activation": "tanh"}, "activation is one of relu, gelu"),
        ({"channels": [4], "kernels": [3], "padding": "reflect"}, "padding is 'valid' or 'same'"),
    ],
)
def test_random_cnns_that_are_none(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        random_cnn(**arguments)


def test_equal_weights_are_equal() -> None:
    """Panels share a network where its weights are equal, and where they are not they don't."""
    assert RandomWeights(seed=1) == RandomWeights(seed=1)
    assert len({RandomWeights(seed=1), RandomWeights(seed=1), RandomWeights(seed=2)}) == 2
    assert RandomWeights() != RandomWeights(input="raw")
    assert torchvision_model("alexnet") == torchvision_model("alexnet") != torchvision_model("vgg11")
