"""Weights of every source arrive bit for bit, with the range that they were made for."""

import hashlib
import io
import re
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from whole_networks import architecture, architecture_state, cut, same

from losslab.checksums import sha256_of
from losslab.download import DownloadError
from losslab.networks import vgg16_hed
from losslab.networks.pretrained import PretrainedWeights, checksum
from losslab.networks.weights import Architecture
from losslab.networks.weights_file import FileWeights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give torch's folder of downloads, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("LOSSLAB_OFFLINE", "1")
    return tmp_path / "torch" / "hub" / "checkpoints"


def publish(
    kind: Architecture,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Tensor]], Any] = len,
) -> Path:
    """Make a file as torchvision publishes them, named after its checksum, and let torchvision's enum ask for it."""
    state = dict(architecture_state(kind))
    change(state)
    content = io.BytesIO()
    torch.save(state, content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind.name}-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    path.write_bytes(content.getvalue())
    entry = models.get_model_weights(kind.name)["IMAGENET1K_V1"].value
    monkeypatch.setattr(entry, "url", f"https://example.invalid/models/{path.name}")
    return path


def test_published_weights_are_torchvisions_own(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit what torchvision loads, from the very file that torchvision would use."""
    path = publish(architecture(), hub, monkeypatch)
    kind = architecture()
    filled = cut(kind)
    name = PretrainedWeights().fill(filled, kind, 0)
    assert name == f"IMAGENET1K_V1 {path.stem[-8:]}"
    assert same(filled, models.squeezenet1_1(weights="IMAGENET1K_V1").state_dict())


def test_published_weights_are_fetched_once(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From torchvision's address into torch's folder."""
    path = publish(architecture(), tmp_path / "site", monkeypatch)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LOSSLAB_OFFLINE")
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(entry, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
    kind = architecture()
    for _ in range(2):
        filled = cut(kind)
        PretrainedWeights().fill(filled, kind, 0)
        assert same(filled, architecture_state("squeezenet1_1"))
    server.shutdown()
    server.server_close()
    assert asked == [f"/{path.name}"]
    assert [file.name for file in hub.iterdir()] == [path.name]


def test_published_file_is_named_offline(hub: Path) -> None:
    """Without a network: the exact file, its address, its checksum and its place."""
    kind = architecture("vgg16")
    words = rf"https://download\.pytorch\.org/models/vgg16-397923af\.pth .*397923af, .* {hub}/vgg16-397923af\.pth"
    with pytest.raises(DownloadError, match=words):
        PretrainedWeights().fill(cut(kind), kind, 0)


def test_damaged_file_in_torchs_folder_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(architecture(), hub, monkeypatch)
    path.write_bytes(path.read_bytes()[:-1])
    kind = architecture()
    with pytest.raises(ValueError, match=rf"{path.name} is not the file of .*remove it"):
        PretrainedWeights().fill(cut(kind), kind, 0)


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        (
            "vgg16",
            "IMAGENET1K_V3",
            "'IMAGENET1K_V3' for vgg16; it has IMAGENET1K_V1, IMAGENET1K_FEATURES; did you mean",
        ),
        ("squeezenet1_1", "IMAGENET1K_V2", "it has IMAGENET1K_V1; did you mean 'IMAGENET1K_V1'"),
        ("vgg16", "DEFAULT", "did you mean"),
    ],
)
def test_unknown_weights_are_refused(name: str, weights: str, words: str) -> None:
    """A name that the architecture does not have, or that changes its meaning with torchvision's version."""
    with pytest.raises(KeyError, match=words):
        PretrainedWeights(weights).own_input(architecture(name))


def test_every_published_file_tells_its_checksum() -> None:
    """Nothing is loaded unchecked, whatever architecture is asked for."""
    entries = [one.value.url for name in models.list_models(module=models) for one in models.get_model_weights(name)]
    assert len(entries) > 80
    assert all(len(checksum(url)) >= 8 for url in entries)
    assert len({Path(url).name for url in entries}) == len(set(entries))


def test_name_without_checksum_is_refused() -> None:
    with pytest.raises(ValueError, match="tells no sha256"):
        checksum("https://example.invalid/vgg16.pth")


def test_old_densenet_keys(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of torchvision's densenets have `norm.1` where the layers are called `norm1`, and no counters."""

    def age(state: dict[str, Tensor]) -> None:
        for key in list(state):
            tensor = state.pop(key)
            if not key.endswith("num_batches_tracked"):
                state[re.sub(r"(denselayer.*(?:norm|conv))([12])", r"\1.\2", key)] = tensor

    kind = architecture("densenet121", partial(models.DenseNet, 4, (2, 1), 8))  # the real one's blocks, but few
    path = publish(kind, hub, monkeypatch, age)
    assert "features.denseblock1.denselayer1.norm.1.weight" in torch.load(path, weights_only=True)
    filled = cut(kind, "features.denseblock1")
    PretrainedWeights().fill(filled, kind, 0)
    assert same(filled, architecture_state(kind))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transform_input_is_part_of_the_range(name: str) -> None:
    """The forward pass and the preset of torchvision together feed these two (x - .5) / .5."""
    mean, std = PretrainedWeights().own_input(architecture(name))
    images = torch.rand(2, 3, 8, 8)
    model = models.get_model(name, weights=None, init_weights=False, transform_input=True)
    preset = models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    by_torchvision = model._transform_input((images - column(preset.mean)) / column(preset.std))
    torch.testing.assert_close((images - column(mean)) / column(std), by_torchvision, rtol=0, atol=1e-6)


def column(numbers: Any) -> Tensor:
    return torch.tensor(numbers)[:, None, None]


def test_range_is_that_of_the_weights() -> None:
    """ImageNet's preset where torchvision has it; Caffe's for the VGG-16 that came from there."""
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert PretrainedWeights().own_input(architecture("resnet18")) == imagenet
    mean, std = PretrainedWeights("IMAGENET1K_FEATURES").own_input(architecture("vgg16"))
    assert mean == (0.48235, 0.45882, 0.40784)
    assert std == pytest.approx((1 / 255,) * 3)


State = dict[str, Tensor]

LAYOUTS: dict[str, tuple[Callable[[State], Any], dict[str, Any]]] = {
    "torchvision": (lambda state: state, {}),
    "Lightning": (lambda state: {"state_dict": state, "epoch": 3}, {}),
    "torchvision's training": (lambda state: {"model": state}, {}),
    "DataParallel": (lambda state: {f"module.{key}": one for key, one in state.items()}, {}),
    "features alone": (lambda state: {key: one for key, one in state.items() if key.startswith("features")}, {}),
    "features without their name": (
        lambda state: {key[len("features.") :]: one for key, one in state.items() if key.startswith("features")},
        {"prefix": "features."},
    ),
    "another head": (
        lambda state: {key.replace("classifier", "head"): one for key, one in state.items()},
        {"rename": {"head.": None}},
    ),
    "another name": (
        lambda state: {f"backbone.{key}": one for key, one in state.items()} | {"fc.bias": torch.ones(1)},
        {"rename": {"backbone.": "", "fc": None}},
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_arrives_bit_for_bit(layout: str, legacy: bool, tmp_path: Path) -> None:
    """Whatever program wrote the state dict."""
    change, arguments = LAYOUTS[layout]
    state = architecture_state("squeezenet1_1")
    path = tmp_path / "weights.pt"
    torch.save(change(state), path, _use_new_zipfile_serialization=not legacy)
    kind = architecture()
    filled = cut(kind)
    sha256 = sha256_of(path)
    assert FileWeights(str(path), sha256, **arguments).fill(filled, kind, 0) == f"file {sha256[:16]}"
    assert same(filled, state)


def test_two_keys_under_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a.weight": torch.ones(1), "b.weight": torch.ones(1)}, path)
    weights = FileWeights(str(path), sha256_of(path), rename={"a.": "", "b.": ""})
    with pytest.raises(ValueError, match="two keys are renamed to weight"):
        weights.fill(cut(architecture()), architecture(), 0)


def test_half_precision_is_widened_and_counters_may_be_missing(tmp_path: Path) -> None:
    """A half number is a float exactly; a missing counter of a batch norm is 0."""
    state = {key: one.half() if one.is_floating_point() else one for key, one in architecture_state("resnet18").items()}
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    for key in counters:
        del state[key]
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    kind = architecture("resnet18")
    filled = cut(kind, "bn1")
    FileWeights(str(path), sha256_of(path)).fill(filled, kind, 0)
    assert same(filled, {**state, **{key: torch.tensor(0) for key in counters}})
    assert filled.state_dict()["conv1.weight"].dtype == torch.float32


@pytest.mark.parametrize("sha256", ["", "0" * 63, "A" * 64])
def test_identity_needs_the_whole_checksum(sha256: str) -> None:
    """One content has one identity, so a checksum is written in one way only."""
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        FileWeights("x", sha256)


def test_ranges_of_files() -> None:
    """A file tells no range: ImageNet's unless the user says otherwise."""
    kind = architecture()
    assert FileWeights("x", "0" * 64).range(kind)[0] == (0.485, 0.456, 0.406)
    assert FileWeights("x", "0" * 64, input="own").range(kind)[0] == (0.485, 0.456, 0.406)
    assert FileWeights("x", "0" * 64, input="signed").range(kind)[0] == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="input is one of"):
        FileWeights("x", "0" * 64, input="imagnet")


def test_safetensors_arrive_bit_for_bit_or_are_refused(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = architecture_state("squeezenet1_1")
    path = tmp_path / "model.safetensors"
    safetensors.save_file(state, path)
    kind = architecture()
    filled = cut(kind)
    FileWeights(str(path), sha256_of(path)).fill(filled, kind, 0)
    assert same(filled, state)
    for wrong in (path.read_bytes()[:-1], b"<html>", b""):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"model\.safetensors can't be read as safetensors"):
            FileWeights(str(path), sha256_of(path)).fill(filled, kind, 0)


@pytest.mark.parametrize("package", ["safetensors", "h5py", "timm"])
def test_missing_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an optional package, a sentence says how to get it."""
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    uses = {
        "safetensors": lambda: FileWeights(str(path), sha256_of(path)).fill(nn.Module(), architecture(), 0),
        "h5py": lambda: vgg16_hed.state_dict(b"", "hed.h5"),
        "timm": lambda: PretrainedWeights("a1_in1k").own_input(timm_architecture()),
    }
    with pytest.raises(ValueError, match=r"pip install 'losslab\[\w+\]'"):
        uses[package]()


def timm_architecture(name: str = "squeezenet1_1") -> Architecture:
    ours = architecture()
    return Architecture("timm", name, ours.make, ours.whole)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Put a small timm in the place of the real one, and tell what was asked of it."""
    asked: dict[str, Any] = {}
    constants = types.ModuleType("huggingface_hub.constants")
    constants.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]
    stand_in = types.ModuleType("timm")

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        asked.update(name=name, pretrained=pretrained, offline=constants.HF_HUB_OFFLINE)
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError("not in the cache")
        model: nn.Module = models.squeezenet1_1()
        model.load_state_dict(architecture_state("squeezenet1_1"))
        return model

    config = types.SimpleNamespace(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), hf_hub_id="timm/squeezenet", url="")
    stand_in.list_pretrained = lambda pattern: [pattern.replace("*", tag) for tag in ("one", "two")]  # type: ignore[attr-defined]
    stand_in.get_pretrained_cfg = lambda name: config  # type: ignore[attr-defined]
    stand_in.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    asked["config"] = config
    yield asked
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("name", ["squeezenet1_1", "squeezenet1_1.one"])
def test_weights_of_timm(name: str, timm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Timm's own loader is asked for architecture and tag, and its config for the range."""
    monkeypatch.delenv("LOSSLAB_OFFLINE", raising=False)
    kind = timm_architecture(name)
    filled = cut(kind)
    assert PretrainedWeights("two").fill(filled, kind, 0) == "two of timm"
    assert same(filled, architecture_state("squeezenet1_1"))
    assert (timm["name"], timm["pretrained"], timm["offline"]) == ("squeezenet1_1.two", True, False)
    assert PretrainedWeights("two").own_input(kind) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    with pytest.raises(KeyError, match=rf"timm has no weights 'three' for {name}; it has one, two"):
        PretrainedWeights("three").own_input(kind)


def test_timm_stays_offline(timm: dict[str, Any], hub: Path) -> None:
    """Under LOSSLAB_OFFLINE the Hugging Face hub is told so, and torch's loader is not called."""
    kind = timm_architecture()
    with pytest.raises(DownloadError, match=r"squeezenet1_1\.one from timm/squeezenet \(LOSSLAB_OFFLINE"):
        PretrainedWeights("one").fill(cut(kind), kind, 0)
    assert timm["offline"] is True
    del timm["offline"]
    timm["config"].hf_hub_id, timm["config"].url = None, "https://example.invalid/net-01234567.pth"
    with pytest.raises(
        DownloadError, match=rf"put https://example\.invalid/net-01234567\.pth at {hub}/net-01234567\.pth"
    ):
        PretrainedWeights("one").fill(cut(kind), kind, 0)
    assert "offline" not in timm
