"""DISTS is what its authors' package says."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import DISTS_pytorch
import pytest
import torch
from torch import nn
from torchvision import models

from losslab.config import build, load, plain
from losslab.losses import dists as dists_module
from losslab.losses.dists import DISTS, published


def ours(*overrides: str) -> DISTS:
    words = ("loss=dists", "weights=random", "weights.input=imagenet", *overrides)
    loss: DISTS = build(plain(load(*words))["loss"])
    return loss


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the package's class without its download and its place for the weights, on our random VGG-16."""
    bare = models.vgg16
    monkeypatch.setattr(models, "vgg16", lambda **_: bare(weights=None))
    made = DISTS_pytorch.DISTS(load_weights=False)
    trunk = ours().network.extractor.state_dict()  # type: ignore[union-attr]
    convolutions = [module for module in made.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for module, key in zip(convolutions, [key for key in trunk if key.endswith("weight")], strict=True):
            module.weight.copy_(trunk[key])
            module.bias.copy_(trunk[key.replace("weight", "bias")])  # type: ignore[union-attr]
        alpha, beta = published()
        made.alpha.copy_(alpha[None, :, None, None])
        made.beta.copy_(beta[None, :, None, None])
    return made.double()


@pytest.mark.parametrize("near", [True, False])
def test_the_package(package: Any, near: bool) -> None:
    """Near and far pairs, to 1e-9 in 64 bits, and the gradient."""
    x = torch.rand(2, 3, 48, 40, dtype=torch.float64)
    y = (x + 0.02 * torch.randn_like(x)).clamp(0, 1) if near else torch.rand_like(x)
    x.requires_grad_()
    loss = ours().double()
    expected, found = package(x, y, require_grad=True), loss(x, y)
    torch.testing.assert_close(found, expected.flatten(), rtol=1e-7, atol=1e-9)
    gradients = [torch.autograd.grad(one.sum(), x)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-10)


def test_parts_are_the_layers() -> None:
    """The image is one of them, and they add up."""
    loss = ours()
    x, y = torch.rand(2, 1, 3, 32, 32)
    parts = loss.parts(loss.encode(x), loss.encode(y))
    assert list(parts) == ["image", "relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), loss(x, y))


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"DISTS has weights for features\.3, .* of vgg16, not for"):
        DISTS(build(plain(load("network=vgg19"))["network"]), "all")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(dists_module, "files", missing)
    with pytest.raises(ValueError, match=r"pip install 'losslab\[dists\]'"):
        published()


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"alpha": torch.rand(1475), "beta": torch.rand(1475)}, tmp_path / "weights.pt")

    class Found:
        name = "weights.pt"

        def locate(self) -> Path:
            return tmp_path / "weights.pt"

    monkeypatch.setattr(dists_module, "files", lambda _: [Found()])
    with pytest.raises(ValueError, match="is not the file of weights of DISTS 0.1: .*sha256"):
        published()
