"""Files of weights that are damaged, of another network or hostile are refused by name, never read in part."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from losslab.checksums import sha256_of
from losslab.networks.state_dicts import read_state_dict
from losslab.networks.weights import Architecture
from losslab.networks.weights_file import FileWeights


class Classifier(nn.Module):
    """Two layers to cut, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3))
        self.classifier = nn.Linear(5, 2)


def architecture() -> Architecture:
    with torch.device("meta"):
        whole = Classifier()
    return Architecture("torchvision", "classifier", Classifier, whole)


def cut() -> nn.Module:
    """Give the first two layers, as they are cut out: numbers undefined."""
    found = nn.Module()
    found.features = Classifier().features[:2]
    for tensor in found.state_dict().values():
        tensor.fill_(77)
    return found


def fill(path: Path) -> nn.Module:
    target = cut()
    FileWeights(str(path), sha256_of(path)).fill(target, architecture(), 0)
    return target


State = dict[str, Tensor]


def saved(path: Path, change: Callable[[State], object], *, legacy: bool = False) -> Path:
    state = dict(Classifier().state_dict())
    change(state)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "one missing": (lambda state: state.pop("features.0.bias"), r"the key features\.0\.bias is missing$"),
    "one missing behind the cut": (
        lambda state: state.pop("features.3.bias"),
        r"the key features\.3\.bias is missing$",
    ),
    "one of an unused child missing": (
        lambda state: state.pop("classifier.bias"),
        r"the key classifier\.bias is missing$",
    ),
    "one extra": (
        lambda state: state.update({"features.4.weight": torch.zeros(3)}),
        r"the key features\.4\.weight is unknown$",
    ),
    "one under another name": (
        lambda state: state.update({"features.0.wieght": state.pop("features.0.weight")}),
        r"the key features\.0\.weight is missing; the nearest that it has is features\.0\.wieght "
        r"\(and further keys: 1 unknown\)$",
    ),
    "one transposed": (
        lambda state: state.update({"features.0.weight": state["features.0.weight"].permute(2, 3, 1, 0)}),
        r"features\.0\.weight has the shape \(3, 3, 3, 4\), expected \(4, 3, 3, 3\) \(the axes in another order\)$",
    ),
    "one of another width": (
        lambda state: state.update({"classifier.weight": torch.zeros(10, 5)}),
        r"classifier\.weight has the shape \(10, 5\), expected \(2, 5\)$",
    ),
    "the used child missing": (
        lambda state: [state.pop(key) for key in list(state) if key.startswith("features")],
        r"the key features\.0\.weight is missing \(and further keys: 7 missing\)$",
    ),
    "a prefix on each": (
        lambda state: [state.update({f"net.{key}": state.pop(key)}) for key in list(state)],
        r"the key features\.0\.weight is missing; the nearest that it has is net\.features\.0\.weight "
        r"\(and further keys: 7 missing, 11 unknown\)$",
    ),
    "one not finite": (
        lambda state: state["features.0.weight"].fill_(torch.nan),
        r"features\.0\.weight are not finite",
    ),
    "one of whole numbers": (
        lambda state: state.update({"features.0.bias": torch.ones(4, dtype=torch.int64)}),
        r"features\.0\.bias are not finite, or of torch\.int64",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_state_dict_of_another_network_is_refused(name: str, tmp_path: Path) -> None:
    """Every difference is an error that names the file and the first key that differs, and counts the others."""
    change, words = CHANGES[name]
    path = saved(tmp_path / "weights.pt", change)
    with pytest.raises(ValueError, match=rf"weights\.pt.*{words}"):
        fill(path)


def test_nothing_is_filled_in_part(tmp_path: Path) -> None:
    """A refused file leaves the network as it was."""
    path = saved(tmp_path / "weights.pt", lambda state: state.update({"extra": torch.zeros(3)}))
    target = cut()
    with pytest.raises(ValueError, match="extra is unknown"):
        FileWeights(str(path), sha256_of(path)).fill(target, architecture(), 0)
    assert all((tensor == 77).all() for tensor in target.state_dict().values())


@pytest.mark.parametrize(
    "content", [b"", b"<html><body>Not found</body></html>", b"PK\x03\x04" + b"\0" * 100, b"\x80\x02."]
)
def test_what_is_no_file_of_torch_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt"):
        fill(path)


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(ValueError, match=r"weights\.pt can't be read as weights of torch"):
        fill(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_file_is_refused(legacy: bool, tmp_path: Path) -> None:
    """At whatever byte a copy stopped."""
    path = saved(tmp_path / "whole.pt", lambda state: None, legacy=legacy)
    content = path.read_bytes()
    for length in random.Random(0).sample(range(len(content)), 60):
        (tmp_path / "weights.pt").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"weights\.pt"):
            fill(tmp_path / "weights.pt")


def test_flipped_bit_is_refused(tmp_path: Path) -> None:
    """One wrong bit is found by the checksums in the file, even where the config's was made of the damaged one.

    Bits that mean nothing (times, padding) may be wrong: then the numbers are right.
    """
    path = saved(tmp_path / "whole.pt", lambda state: None)
    content, right = path.read_bytes(), fill(path).state_dict()
    refused = 0
    for place in random.Random(0).sample(range(len(content)), 200):
        wrong = bytearray(content)
        wrong[place] ^= 1 << place % 8
        (tmp_path / "weights.pt").write_bytes(wrong)
        try:
            found = fill(tmp_path / "weights.pt").state_dict()
        except ValueError as error:
            assert "weights.pt" in str(error)  # noqa: PT017 - what is asked of those that are refused
            refused += 1
        else:
            assert all(torch.equal(found[key], right[key]) for key in right)
    assert refused > 20


def test_flipped_bit_in_the_old_format_is_refused_by_the_checksum(tmp_path: Path) -> None:
    """That format has no checksums inside: there the config's own counts."""
    path = saved(tmp_path / "weights.pt", lambda state: None, legacy=True)
    sha256 = sha256_of(path)
    wrong = bytearray(path.read_bytes())
    wrong[-3] ^= 1
    path.write_bytes(wrong)
    with pytest.raises(ValueError, match=rf"weights\.pt is not the file of the config: .*expected {sha256}"):
        FileWeights(str(path), sha256).fill(cut(), architecture(), 0)


def test_noise_in_the_old_format_is_a_typed_error(tmp_path: Path) -> None:
    """Whatever torch raises on a broken pickle, the user reads the file's name."""
    content = saved(tmp_path / "whole.pt", lambda state: None, legacy=True).read_bytes()
    numbers = random.Random(0)
    for _ in range(200):
        wrong = bytearray(content)
        for _ in range(3):
            wrong[numbers.randrange(1000)] = numbers.randrange(256)
        (tmp_path / "weights.pt").write_bytes(wrong)
        try:
            fill(tmp_path / "weights.pt")
        except ValueError as error:
            assert "weights.pt" in str(error)  # noqa: PT017 - some changes do no harm


class Payload:
    """What a hostile file would run when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Say how to be rebuilt."""
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("inside", ["alone", "in a state dict", "beside a state dict"])
def test_payload_is_refused(legacy: bool, inside: str, tmp_path: Path) -> None:
    """A stranger's file runs nothing of its choice."""
    payload, state = Payload(tmp_path / "mark"), Classifier().state_dict()
    content = {
        "alone": payload,
        "in a state dict": {**state, "more": payload},
        "beside a state dict": {"state_dict": state, "optimizer": payload},
    }
    path = tmp_path / "weights.pt"
    torch.save(content[inside], path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"weights\.pt holds more than tensors \(\w+\.mkdir\), which could run code"):
        fill(path)
    assert not (tmp_path / "mark").exists()


def test_bare_pickle_payload_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "mark")))
    with pytest.raises(ValueError, match=r"weights\.pt"):
        fill(path)
    assert not (tmp_path / "mark").exists()


def test_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    """The original study keeps its networks so; what to do is said."""
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"weights\.pt .*\(torch\.nn\.modules\.container\.Sequential\).*state_dict\(\)"
    ):
        fill(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ([torch.zeros(3)], "a list"),
        ({}, "nothing"),
        ({"a": 3, "b": torch.zeros(1)}, "a mapping with a"),
        (3, "an? int"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: object, kind: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=rf"weights\.pt holds no state dict, .*but {kind}"):
        fill(tmp_path / "weights.pt")


def test_missing_file_is_named(tmp_path: Path) -> None:
    weights = FileWeights(str(tmp_path / "weights.pt"), "0" * 64)
    with pytest.raises(FileNotFoundError, match=rf"there is no file of weights {tmp_path}/weights\.pt"):
        weights.fill(cut(), architecture(), 0)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/weights\.pt"):
        read_state_dict(tmp_path / "weights.pt")
