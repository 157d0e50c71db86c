"""The list of layers has what a loss can read, and says what it leaves out."""

import runpy
import sys
from collections.abc import Callable

import pytest
from conftest import ROOT

SCRIPT = ROOT / "src" / "layers.py"

Show = Callable[..., list[str]]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Run the script in this process, and give the lines that it prints, also where it fails."""

    def run(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[1:]]


def test_all_layers_or_some(show: Show) -> None:
    """All up to the last child; with `layer=` those alone, however they are called, blocks inside a child too."""
    lines = show("network=resnet18", "side=64")
    assert names(lines)[:3] == ["conv1", "bn1", "relu"]
    assert names(lines)[-1] == "avgpool"
    some = show("network=resnet18", "side=64", "layer=[layer1.0,3]")
    assert some[0] == lines[0]
    assert names(some) == ["layer1.0", "layer2"]
    assert next(line for line in lines if line.startswith("layer2 ")) == some[2]
    assert names(show("network=vgg16", "side=16", "layer=each")) == ["relu1_2", "relu2_2", "relu3_3", "relu5_3"]


def test_channels_behind_are_left_out(show: Show) -> None:
    """ConvNeXt's normalisation and linear layers have height × width × channels: they are counted, not listed."""
    lines = show("network=torchvision", "network.architecture.name=convnext_tiny", "side=64")
    assert lines[-1] == "not listed: 102 nodes that are no maps of places, such as features.0.1.permute"
    assert {"features.0.0", "features.0.1.permute_1", "features.1.0.block.0"} < {*names(lines)}
    assert not {"features.0.1.layer_norm", "features.1.0.block.2", "features.1.0.block.3"} & {*names(lines)}


def test_what_no_rule_knows_has_a_question_mark(show: Show) -> None:
    """A block of timm that can't be traced does not keep the other layers from being listed."""
    pytest.importorskip("timm")
    lines = show("network=timm", "network.architecture.name=vgg11", "side=224")
    last, pooled = (next(line for line in lines if line.startswith(f"{name} ")) for name in
                    ("features.20", "head.global_pool.pool"))  # fmt: skip
    assert last.split()[-3:-1] == ["32", "150"]
    assert pooled.split()[-3:-1] == ["?", "?"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg16"], r"the words are network=NAME, .*got 'vgg16'"),
        (["network=vgg16", "loss=l2"], r"the words are network=NAME, .*got 'loss=l2'"),
        (["network=vgg16", "layer=relu9_1"], r"unknown layer 'relu9_1' of vgg16; did you mean"),
        (["network=resnet18", "layer=layer1.0.conv7"], r"unknown layer 'layer1\.0\.conv7' of resnet18; did you mean"),
        (["network=vgg16", "layer=4", "side=8"], r"images of 8 pixels are too small for relu5_3"),
        (["network=vgg16", "layer=pixels"], r"pixels is the image as the network is fed it"),
        (["network=torchvision", "network.architecture.name=convnext_tiny", "layer=features.0.1.permute"],
         r"features\.0\.1\.permute of convnext_tiny is no map of channels × height × width"),
        (["network=prewitt"], r"prewitt is no graph of layers; it has response, relu, pool"),
        (["network=torchvision"], r"network\.architecture\.name has no value: add network\.architecture\.name=\.\.\."),
        (["network=vgg16", "side=0"], r"side is a whole number from 1, got '0'"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_sentence(
    show: Show, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """It names what is wrong, and no table is begun."""
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        show(*words)
    assert not capsys.readouterr().out
