"""LPIPS against the package of its authors and against torchmetrics, with one trunk on both sides."""

import copy
import functools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lpips
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from torchvision import models

from losslab import images
from losslab.comparisons.spatial import unit
from losslab.config import build, load, plain
from losslab.losses.deep import size_of
from losslab.losses.lpips import LPIPS

NETS = {"alexnet": "alex", "squeezenet1_1": "squeeze", "vgg16": "vgg"}
INPUT = {"v0.1": "imagenet", "v0.0": "signed", "none": "imagenet"}

SIZES = {"alexnet": (32, 40), "squeezenet1_1": (32, 40), "vgg16": (16, 24)}
"""Height and width of the images, in pixels: little more than a network needs."""

SQUEEZENET = "435cedb387e95bc8291893f61a3a64f0345b8c23a05139aceef43947efb3d52d"
"""Of torchvision's squeezenet1_1().features with ImageNet's weights, as delldu/LPIPS has it."""

pytestmark = pytest.mark.filterwarnings("ignore:.*align_corners:UserWarning")


@functools.cache
def network(net: str, range_: str, *overrides: str) -> Any:
    """A network as the configs have it, made once for all tests that ask for it."""
    settings = plain(load(f"network={net}", *(overrides or ["weights=random"]), f"weights.input={range_}"))["network"]
    return build({**settings, "_partial_": False}, select=settings["properties"]["lpips_layers"])


def ours(net: str, heads: str, *overrides: str) -> LPIPS:
    made = network(net, INPUT[heads], *overrides)
    return LPIPS(lambda select: copy.deepcopy(made), made.layers, heads, net)


def trunk(loss: LPIPS, net: str) -> nn.Module:
    """The layers of torchvision with our weights, which both packages cut into slices."""
    with torch.device("meta"):
        features: nn.Module = models.get_model(net, weights=None).features
    state = {name.removeprefix("features."): one for name, one in loss.deep.network.extractor.state_dict().items()}  # type: ignore[union-attr]
    missing = features.to_empty(device="cpu").load_state_dict(state, strict=False)
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    return features


def theirs(loss: LPIPS, net: str, heads: str, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> nn.Module:
    """The package's own class."""
    model = SimpleNamespace(features=trunk(loss, net))
    monkeypatch.setattr(lpips.pretrained_networks.tv, net, lambda **_: model)
    version = "0.1" if heads == "none" else heads[1:]
    return lpips.LPIPS(
        net=NETS[net], version=version, lpips=heads != "none", pnet_rand=True, verbose=False, **arguments
    )


def as_rounded(loss: LPIPS, package: Any) -> LPIPS:
    """Ours in 64 bits, with the package's mean and deviation, which it keeps in 32 bits: they differ by 1e-8."""
    double = copy.deepcopy(loss).double()
    if package.version == "0.1":
        double.deep.network.mean.copy_((1 + package.scaling_layer.shift[0]) / 2)  # type: ignore[operator]
        double.deep.network.std.copy_(package.scaling_layer.scale[0] / 2)  # type: ignore[operator]
    return double


def pairs(net: str, count: int = 1) -> tuple[Tensor, Tensor]:
    """Near pairs, 1/255 and 0.03 apart, and far ones, of numbers that 32 bits hold exactly."""
    x = torch.rand(4, count, 3, *SIZES[net])
    noise = torch.randn(x[0].shape)
    y = torch.stack([x[0] + noise / 255, x[1] + 0.03 * noise, torch.rand_like(x[2]), x[3].square()]).clamp(0, 1)
    return x.flatten(0, 1).double(), y.flatten(0, 1).double()


def call(package: nn.Module, x: Tensor, y: Tensor, **switches: bool) -> Any:
    with torch.no_grad():
        return package(x, y, **switches)


def error(value: Tensor, right: Tensor) -> float:
    """Mean relative error, of enough numbers that chance evens out."""
    return float((value.double().flatten() / right.flatten() - 1).abs().mean())


@pytest.mark.parametrize("heads", ["v0.1", "v0.0", "none"])
@pytest.mark.parametrize("net", NETS)
def test_the_package(net: str, heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near and far, per layer and in total, from [0, 1] and [-1, 1], its distances to 1e-10 in 64 bits."""
    loss = ours(net, heads)
    package = theirs(loss, net, heads, monkeypatch).double()
    x, y = pairs(net)
    exact, layers = call(package, x, y, retPerLayer=True, normalize=True)
    double = as_rounded(loss, package)
    with torch.no_grad():
        a, b = double.encode(x), double.encode(y)
        torch.testing.assert_close(double.compare(a, b), exact.flatten(), rtol=1e-10, atol=0)
        for mine, expected in zip(double.parts(a, b).values(), layers, strict=True):
            torch.testing.assert_close(mine, expected.flatten(), rtol=1e-10, atol=0)
    signed = call(package, 2 * x[:1] - 1, 2 * y[:1] - 1)
    torch.testing.assert_close(double.compare(a, b)[:1], signed.flatten(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("heads", ["v0.1", "v0.0", "none"])
@pytest.mark.parametrize("net", NETS)
def test_digits_of_32_bits(net: str, heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same features of 32 bits on, one and a half times the package's own error at most."""
    loss = ours(net, heads)
    package: Any = theirs(loss, net, heads, monkeypatch)
    x, y = (one.float() for one in pairs(net))
    _, layers = call(package, x, y, retPerLayer=True, normalize=True)
    features = []
    for one in (x, y):
        fed = package.scaling_layer(2 * one - 1) if package.version == "0.1" else 2 * one - 1
        features.append(dict(zip(loss.deep.network.layers, package.net(fed), strict=True)))
    exact, found = (
        loss.parts(
            *(loss.deep.keep({name: one.to(kind) for name, one in each.items()}, size_of(x)) for each in features)
        )
        for kind in (torch.float64, torch.float32)
    )
    errors = [
        sum(error(one, right) for one, right in zip(each, exact.values(), strict=True))
        for each in (found.values(), layers)
    ]
    assert errors[0] <= 1.5 * errors[1] + 1e-7


@pytest.mark.parametrize("heads", ["v0.1", "v0.0", "none"])
@pytest.mark.parametrize("net", NETS)
def test_digits_of_32_bits_from_the_images_on(net: str, heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own error thrice, and what a faster memory layout of the convolutions adds."""
    loss = ours(net, heads)
    package = theirs(loss, net, heads, monkeypatch)
    x, y = pairs(net, 2 if net == "vgg16" else 8)
    found = call(package, x.float(), y.float(), normalize=True)
    exact = call(package.double(), x, y, normalize=True)
    with torch.no_grad():
        mine = loss(x.float(), y.float())
    assert error(mine, exact) <= 3 * error(found, exact)


@pytest.mark.parametrize("heads", ["v0.1", "v0.0"])
@pytest.mark.parametrize("net", NETS)
def test_maps_of_the_package(net: str, heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its spatial output, layer by layer and added up, to 1e-10 in 64 bits; in 32 as its distances."""
    loss = ours(net, heads)
    package = theirs(loss, net, heads, monkeypatch, spatial=True)
    x, y = pairs(net)
    single = call(package, x.float(), y.float(), normalize=True)
    exact, layers = call(package.double(), x, y, retPerLayer=True, normalize=True)
    double = as_rounded(loss, package)
    with torch.no_grad():
        a, b = double.encode(x), double.encode(y)
        torch.testing.assert_close(double.maps(a, b), exact, rtol=1e-10, atol=0)
        for mine, expected in zip(double.deep.layer_maps(a, b).values(), layers, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-10, atol=0)
        found = loss.maps(loss.encode(x.float()), loss.encode(y.float()))
    assert error(found, exact) <= 3 * error(single, exact)


def test_gradient_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is the package's, to 1e-9."""
    loss = ours("alexnet", "v0.1")
    package: Any = theirs(loss, "alexnet", "v0.1", monkeypatch).double()
    double = as_rounded(loss, package)
    x, y = pairs("alexnet")
    x.requires_grad_()
    mine, expected = (torch.autograd.grad(one.sum(), x)[0] for one in (double(x, y), package(x, y, normalize=True)))
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_a_place_without_features_has_a_gradient_here_alone() -> None:
    """The package's norm has the gradient NaN at a zero vector, ours zero; elsewhere the two are one."""
    x = torch.randn(1, 4, 2, 2).double()
    x[..., 0, 1] = 0
    leaf = x.requires_grad_()
    mine, expected = unit(leaf), lpips.normalize_tensor(leaf)
    torch.testing.assert_close(mine, expected, rtol=1e-14, atol=0)
    gradients = [torch.autograd.grad(one.square().sum(), leaf)[0] for one in (mine[..., 0, :], expected[..., 0, :])]
    assert (gradients[0][..., 0, 1] == 0).all()
    assert gradients[1][..., 0, 1].isnan().all()


@pytest.mark.parametrize("net", NETS)
def test_torchmetrics(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy adds 1e-8 inside the root, which features of a trunk's size feel by less than 1e-5."""
    loss = ours(net, "v0.1")
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda net, pretrained: trunk(loss, net))
    metric = torchmetrics_lpips._NoTrainLpips(net=NETS[net], pnet_rand=True).double()  # type: ignore[arg-type]
    x, y = pairs(net)
    with torch.no_grad():
        expected = torchmetrics_lpips._lpips_update(x, y, metric, normalize=True)
        torch.testing.assert_close(copy.deepcopy(loss).double()(x, y), expected, rtol=1e-5, atol=0)


@pytest.mark.skipif("LOSSLAB_DATA" not in os.environ, reason="LOSSLAB_DATA names no folder of real data")
def test_real_weights_on_the_examples_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ImageNet's SqueezeNet, the package's pictures are 0.711 and 0.148 apart, as it says itself."""
    data = Path(os.environ["LOSSLAB_DATA"])
    file = data / "weights_squeezenet1_1_features" / "squeeze.backbone.pth"
    overrides = ("weights=file", f"weights.path={file}", f"weights.sha256={SQUEEZENET}", "weights.prefix=features.")
    loss = ours("squeezenet1_1", "v0.1", *overrides)
    names = ("ref", "p0", "p1")
    examples = data / "2afc_example_triples"
    ref, *others = (images.to_float(images.read(examples / f"lpips_ex_{name}.png"))[None] for name in names)
    with torch.no_grad():
        found = loss(ref, torch.cat(others))
    torch.testing.assert_close(found, torch.tensor([0.711, 0.148]), rtol=0, atol=5e-4)
    package = theirs(loss, "squeezenet1_1", "v0.1", monkeypatch).double()
    expected = call(package, ref.double(), torch.cat(others).double(), normalize=True).flatten()
    double = as_rounded(loss, package)
    torch.testing.assert_close(double(ref.double(), torch.cat(others).double()), expected, rtol=1e-10, atol=0)
    shifted = copy.deepcopy(loss).double()(ref.double(), torch.cat(others).double())
    torch.testing.assert_close(shifted, expected, rtol=1e-6, atol=0)  # mean and deviation as published
