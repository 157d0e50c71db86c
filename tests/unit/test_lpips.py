"""LPIPS loads its heads whole, gives them to the network they belong to, and is a deep loss otherwise."""

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.comparisons.spatial import Spatial
from losslab.config import build, load, plain
from losslab.losses.deep import Deep
from losslab.losses.lpips import LPIPS
from losslab.networks import heads as heads_module
from losslab.networks.heads import KEY, PUBLISHED, heads_of, published_heads
from losslab.runs.cell import identify

# Sums of the published files, layer by layer, in the order of the network
SUMS = {
    ("v0.1", "alexnet"): (2.3495, 16.1430, 39.2684, 27.1972, 20.3172),
    ("v0.1", "squeezenet1_1"): (5.6901, 1.1853, 16.3266, 71.0126, 37.3707, 24.2629, 17.5906),
    ("v0.1", "vgg16"): (6.9260, 8.8583, 17.5150, 51.5213, 47.0349),
    ("v0.0", "alexnet"): (2.5659, 10.2574, 22.4343, 16.3139, 13.9345),
    ("v0.0", "squeezenet1_1"): (5.3018, 1.1452, 8.8851, 38.1125, 22.9905, 15.4387, 13.0548),
    ("v0.0", "vgg16"): (3.6416, 1.9601, 1.1231, 20.1063, 25.6896),
}
CHANNELS = {
    "alexnet": [64, 192, 384, 256, 256],
    "squeezenet1_1": [64, 128, 256, 384, 384, 512, 512],
    "vgg16": [64, 128, 256, 512, 512],
}


@functools.cache
def settings(net: str, range_: str = "imagenet") -> dict[str, Any]:
    found: dict[str, Any] = plain(load(f"network={net}", "weights=random", f"weights.input={range_}"))["network"]
    return found


def lpips(
    heads: str = "v0.1", net: str = "alexnet", range_: str = "imagenet", layers: Any = None, **more: Any
) -> LPIPS:
    declared = settings(net, range_)
    layers = layers or declared["properties"]["lpips_layers"]
    return LPIPS(build(declared), layers, heads, more.pop("of", net), **more)


def written(path: Path, **changes: Tensor | None) -> Path:
    """Write a file of heads for AlexNet's layers, with some keys changed or (None) removed."""
    torch.manual_seed(1)
    state: dict[str, Any] = {KEY.format(k): torch.rand(1, c, 1, 1) for k, c in enumerate(CHANNELS["alexnet"])}
    state |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


@pytest.mark.parametrize(("version", "net"), SUMS)
def test_published_heads(version: str, net: str) -> None:
    """The numbers are those of the published files, none of them random or below zero."""
    found = published_heads(version, net)
    assert [len(one) for one in found] == CHANNELS[net]
    assert [float(one.double().sum()) for one in found] == pytest.approx(SUMS[version, net], abs=6e-5)
    assert all((one >= 0).all() for one in found)
    assert all(one.dtype == torch.float32 for one in found)


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A release that ships other heads under the same name must not pass for the published ones."""
    monkeypatch.setattr(heads_module, "_shipped", lambda version, file: written(tmp_path / "alex.pth"))
    with pytest.raises(ValueError, match=r"alex\.pth is not the file of heads that was asked for: .*sha256"):
        published_heads("v0.1", "alexnet")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.0 comes with a package that losslab does not need otherwise."""
    monkeypatch.setattr(heads_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"heads v0\.0 come with the package lpips: pip install 'losslab\[lpips\]'"):
        published_heads("v0.0", "alexnet")


def test_a_release_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = type("Found", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(heads_module, "find_spec", lambda name: found)
    with pytest.raises(ValueError, match="this release of torchmetrics does not have them"):
        published_heads("v0.1", "alexnet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lin1__model__1__weight": None}, r"expected the key lin1\.model\.1\.weight, found lin4\.model\.1\.weight"),
        ({"lin0__model__0__weight": torch.rand(1, 64, 1, 1)}, r"lin5\.model\.1\.weight, found lin0\.model\.0\.weight"),
        ({"lin2__model__1__weight": torch.rand(384)}, r"lin2\.model\.1\.weight should have the shape \(1, C, 1, 1\)"),
        ({"lin2__model__1__weight": torch.full((1, 384, 1, 1), -0.5)}, r"lin2\.model\.1\.weight has a weight of -0\.5"),
        ({"lin3__model__1__weight": torch.full((1, 256, 1, 1), torch.nan)}, r"lin3\.model\.1\.weight has .* nan"),
    ],
)  # fmt: skip
def test_files_of_heads_are_read_whole(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What does not fit is refused and named: a head that stays random gives negative distances."""
    with pytest.raises(ValueError, match=message):
        heads_of(written(tmp_path / "heads.pth", **changes))


def test_files_that_are_none(tmp_path: Path) -> None:
    """Neither code nor something else than tensors is read."""
    torch.save({"lin0.model.1.weight": PUBLISHED}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="could run code"):
        heads_of(tmp_path / "code.pth")
    with pytest.raises(OSError, match="nowhere"):
        heads_of(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match=r"heads is one of v0\.1, v0\.0, none, file, got 'v0\.2'"):
        lpips("v0.2")


def test_heads_of_a_file(tmp_path: Path) -> None:
    """A file's heads weigh the differences as published ones do; its hash is checked where it is given."""
    path = written(tmp_path / "heads.pth")
    x, y = torch.rand(2, 3, 40, 40), torch.rand(2, 3, 40, 40)
    loss = lpips("file", heads_path=str(path))
    a, b = (loss.deep.network.read(one) for one in (x, y))
    for (layer, part), weights in zip(loss.parts(loss.encode(x), loss.encode(y)).items(), heads_of(path), strict=True):
        p, q = (one[layer] / (one[layer].norm(dim=1, keepdim=True) + 1e-10) for one in (a, b))
        expected = (weights[:, None, None] * (p - q) ** 2).sum(1).mean((1, 2))
        torch.testing.assert_close(part, expected)
    with pytest.raises(ValueError, match="not the file of heads that was asked for"):
        lpips("file", heads_path=str(path), sha256="0" * 64)
    with pytest.raises(ValueError, match="heads_path is that of heads=file, got None for heads='file'"):
        lpips("file")
    with pytest.raises(ValueError, match="heads_path is that of heads=file, got 'x' for heads='none'"):
        lpips("none", heads_path="x")
    with pytest.raises(ValueError, match="heads have 384 weights for layer relu4, of 256 channels"):
        lpips("file", heads_path=str(path), layers=["relu1", "relu2", "relu4", "conv5", "relu5"])
    with pytest.raises(ValueError, match="there are 5 heads for 2 layers: relu1, relu2"):
        lpips("file", heads_path=str(path), layers=["relu1", "relu2"])


def test_without_heads_it_is_the_study() -> None:
    """`heads=none` is the baseline: the study's `spatial`, added up over layers; any network and layers will do."""
    x, y = torch.rand(2, 3, 40, 40), torch.rand(2, 3, 40, 40)
    loss = lpips("none", range_="signed", layers=["relu1", "relu3"])
    declared = settings("alexnet", "signed")
    assert torch.equal(loss(x, y), Deep(build(declared), ["relu1", "relu3"], Spatial(), "sum")(x, y))


def test_published_heads_belong_to_their_layers() -> None:
    """Layers of as many channels, such as those before the ReLUs, take heads without a word, and are refused."""
    layers = ["relu1", "relu2", "relu3", "conv4", "conv5"]
    with pytest.raises(
        ValueError, match=r"heads v0\.1 of alexnet belong to the layers features\.1, .*not to features\.1"
    ):
        lpips(layers=layers)
    with pytest.raises(ValueError, match="not to features.1, features.4"):
        lpips(layers=["relu1", "relu2"])
    with pytest.raises(ValueError, match=r"of vgg16 belong to the layers features\.3, "):
        lpips(of="vgg16")
    with pytest.raises(ValueError, match=r"heads for alexnet, squeezenet1_1, vgg16, got 'v0\.1' for 'resnet18'"):
        lpips(of="resnet18")
    gabor = plain(load("loss=gabor"))["loss"]["network"]
    with pytest.raises(ValueError, match="not to pool"):
        LPIPS(build(gabor), ["pool"])


@pytest.mark.parametrize(("heads", "wrong", "right"), [("v0.1", "signed", "imagenet"), ("v0.0", "imagenet", "signed")])
def test_published_heads_want_their_range(heads: str, wrong: str, right: str) -> None:
    """The wrong range changes all numbers and looks like LPIPS: it is refused, with the setting that is right."""
    with pytest.raises(ValueError, match=f"heads {heads} .* give weights.input={right}"):
        lpips(heads, range_=wrong)
    assert torch.equal(lpips(heads, range_=right).deep.network.mean, lpips(heads, range_="own").deep.network.mean)  # type: ignore[arg-type]
    x, y = torch.rand(2, 1, 3, 32, 32)
    assert torch.equal(lpips(heads, range_=right)(x, y), lpips(heads, range_="own")(x, y))
    again = lpips(heads, range_="own").deep.make_network(select=["relu1"])
    torch.testing.assert_close(again.mean, lpips(heads, range_=right).deep.network.mean)


def test_heads_count_by_content(tmp_path: Path) -> None:
    """A file of heads may lie anywhere; what is in it makes the cell."""
    paths = [written(tmp_path / "a"), Path(shutil.copy(tmp_path / "a", tmp_path / "b"))]
    paths.append(written(tmp_path / "c", lin0__model__1__weight=torch.ones(1, 64, 1, 1)))
    words = ("loss=lpips", "weights=random", "loss.heads=file")
    configs = [plain(load(*words, f"loss.heads_path={path}")) for path in paths]
    ids = [identify(one, "").id for one in configs]
    assert configs[0]["loss"]["sha256"] == configs[1]["loss"]["sha256"] != configs[2]["loss"]["sha256"]
    assert ids[0] == ids[1] != ids[2]


def test_is_a_deep_loss() -> None:
    """Parts go by layer and add up, maps have the images' size, a panel finds the deep loss and its network's maker."""
    loss = lpips()
    x, y = torch.rand(2, 3, 40, 48), torch.rand(2, 3, 40, 48)
    a, b = loss.encode(x), loss.encode(y)
    parts = loss.parts(a, b)
    assert list(parts) == ["relu1", "relu2", "relu3", "relu4", "relu5"]
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), loss(x, y))
    assert torch.equal(loss(x, x), torch.zeros(2))
    found = loss.maps(a, b)
    assert found.shape == (2, 1, 40, 48)
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y), rtol=0.1, atol=0)
    assert isinstance(loss.deep, Deep)
    again = loss.deep.make_network(select=list(parts))
    assert again is not loss.deep.network
    assert torch.equal(loss.compare(loss.deep.keep(again.read(x), a.value["size"]), a), torch.zeros(2))
    assert loss.name == "lpips"
    assert loss.min_side == loss.deep.min_side


def test_draws_reach_the_network() -> None:
    """A trunk of random weights may be redrawn, and encodings of two draws are refused."""
    declared = plain(load("network=alexnet", "weights=random", "weights.redraw_every=5"))["network"]
    loss = LPIPS(build(declared), ["relu1"], "none")
    x = torch.rand(1, 3, 32, 32)
    old = loss.encode(x)
    loss.draw(5)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(x))


def test_heads_are_no_parameters() -> None:
    """They move with the loss, take no gradient, and are a function of the config: nothing is left in a checkpoint."""
    loss = lpips()
    weights = [one for name, one in loss.named_buffers() if name.endswith(".weights")]
    assert [len(one) for one in weights] == CHANNELS["alexnet"]
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("overrides", "network", "weights"),
    [
        ([], "alexnet", "PretrainedWeights"),
        (["network=vgg16"], "vgg16", "PretrainedWeights"),
        (["network=vgg16", "weights=random"], "vgg16", "RandomWeights"),
    ],
)
def test_config(overrides: list[str], network: str, weights: str) -> None:
    """`loss=lpips` alone is version 0.1 with a trained AlexNet; the command line's network and weights count."""
    found = plain(load("loss=lpips", *overrides))["loss"]
    assert (found["network"]["name"], found["net"], found["heads"]) == (network, network, "v0.1")
    assert found["network"]["weights"]["_target_"].endswith(weights)
    assert found["layers"] == found["network"]["properties"]["lpips_layers"]


def test_offline_settings() -> None:
    """Tests without trained weights build it by the settings that the YAML declares."""
    declared = plain(load("loss=lpips"))["loss"]["properties"]
    loss = build(plain(load("loss=lpips", *declared["offline"]))["loss"])
    assert loss.min_side == declared["min_side"]
