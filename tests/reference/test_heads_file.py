"""Files of trained heads, and the ranking net, against the package of LPIPS' authors."""

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lpips
import pytest
import torch
from torch import nn
from torchvision import models

from losslab.config import build, load, plain
from losslab.losses.learned import Learned
from losslab.losses.lpips import LPIPS
from losslab.models.ranking import LargeRanking

NETS = {"alexnet": "alex", "squeezenet1_1": "squeeze", "vgg16": "vgg"}

pytestmark = pytest.mark.filterwarnings("ignore:.*align_corners:UserWarning")


@functools.cache
def network(net: str) -> Any:
    """A random network, made once for all losses of a test."""
    settings = plain(load("loss=l2", f"network={net}", "weights=random", "weights.input=imagenet"))["network"]
    return build({**settings, "_partial_": False}, select=settings["properties"]["lpips_layers"])


def loss_of(net: str, heads: str, path: Path | None = None) -> LPIPS:
    made = network(net)
    return LPIPS(lambda select: made, made.layers, heads, net, heads_path=None if path is None else str(path))


def package(net: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's metric with our trunk, and heads from our file."""
    with torch.device("meta"):
        features: nn.Module = models.get_model(net, weights=None).features
    state = {name.removeprefix("features."): one for name, one in network(net).extractor.state_dict().items()}
    features.to_empty(device="cpu").load_state_dict(state, strict=False)
    monkeypatch.setattr(lpips.pretrained_networks.tv, net, lambda **_: SimpleNamespace(features=features))
    return lpips.LPIPS(net=NETS[net], pnet_rand=True, model_path=str(path), verbose=False)


@pytest.mark.parametrize("net", NETS)
def test_one_file_for_all(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric that was trained, heads=file and the package with the saved heads agree to 1e-6, and not by chance."""
    metric = Learned(loss_of(net, "none"), "uniform", seed=3)
    for name, content in metric.files().items():
        (tmp_path / name).write_bytes(content)
    x, y = torch.rand(2, 3, 3, 32, 40)
    with torch.no_grad():
        right = metric.eval()(x, y)
        torch.testing.assert_close(loss_of(net, "file", tmp_path / "heads.pth")(x, y), right, rtol=1e-6, atol=1e-6)
        theirs = package(net, tmp_path / "heads.pth", monkeypatch)(x, y, normalize=True).flatten()
        torch.testing.assert_close(theirs, right, rtol=1e-6, atol=1e-6)
        assert float((loss_of(net, "v0.1")(x, y) / right - 1).abs().min()) > 0.01


def test_package_clips_a_frozen_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `MetricTraining` says of the package: its clamp reaches 16 convolutions of a SqueezeNet that it freezes."""
    (tmp_path / "heads.pth").write_bytes(Learned(loss_of("squeezenet1_1", "none")).files()["heads.pth"])
    model = package("squeezenet1_1", tmp_path / "heads.pth", monkeypatch)
    assert not any(one.requires_grad for one in model.net.parameters())
    before = {name: one.clone() for name, one in model.net.named_parameters()}
    lpips.Trainer.clamp_weights(SimpleNamespace(net=model))
    assert sum(not torch.equal(one, before[name]) for name, one in model.net.named_parameters()) == 16


def test_ranking_net() -> None:
    """Its published form, weight by weight: 1 × 1 convolutions on the same five numbers."""
    theirs, ours = lpips.lpips.Dist2LogitLayer(), LargeRanking()
    for name, layer in theirs.model.named_children():
        if isinstance(layer, nn.Conv2d):
            state = {
                key: tensor.flatten(1) if key == "weight" else tensor for key, tensor in layer.state_dict().items()
            }
            ours.layers[int(name)].load_state_dict(state)
    d0, d1 = torch.rand(2, 50)
    given = [one[:, None, None, None] for one in (d0, d1)]
    torch.testing.assert_close(ours(d0, d1).sigmoid(), theirs(*given).flatten())
