"""Files of weights, read without running what may hide in them, and matched to an architecture key by key."""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losslab.networks.weights import Architecture

State = dict[str, Tensor]

WRAPPERS = ("state_dict", "model")
"""Keys that training programs put a state dict under: Lightning and timm the one, torchvision's the other."""

BROKEN = (
    RuntimeError,
    OSError,
    EOFError,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    pickle.UnpicklingError,
)
"""What torch.load raises on files whose bits were changed at random."""

ZIP = b"PK\x03\x04"
"""How torch.save begins a file since torch 1.6; torch.load tells the formats apart by these bytes too."""

COUNTER = "num_batches_tracked"
"""Of batch norms: files from before torch 0.4.1 have none, and in eval mode nothing reads it."""


def read_state_dict(path: Path) -> State:
    """Read a state dict, as torch or safetensors write it, on the CPU.

    A state dict under one of `WRAPPERS`, and keys that all begin with the `module.` of DataParallel, are unwrapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no state dict, holds objects that may run code when they are read, or is of
            safetensors, which is not installed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path.absolute()}")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(one, Tensor) for one in found.values()):
        raise ValueError(f"{path} holds no state dict, names with a tensor each, but {_kind(found)}")
    is_parallel = all(key.startswith("module.") for key in found)
    return {_renamed(key.removeprefix("module.") if is_parallel else key): one for key, one in found.items()}


def fill_cut(cut: nn.Module, found: Mapping[str, Tensor], architecture: Architecture, source: str) -> None:
    """Copy a state dict's numbers into what was cut from an architecture, if it fits the whole of it.

    Every key of the state dict is one of the architecture's, with its shape. Keys may be missing only where a whole
    top-level child is, such as the classifier, that the cut has nothing of, and the counters of batch norms.

    Args:
        cut: whose keys are some of the architecture's.
        found: the state dict.
        architecture: the whole.
        source: names the file in messages.

    Raises:
        ValueError: a key is missing, unknown or of another shape, or a number is not finite; the first one is named.
    """
    shapes = architecture.shapes()
    own = {key: tensor for key, tensor in cut.state_dict().items() if key in shapes}  # no state: what never changes
    used = {_child(key) for key in own}
    troubles = [
        *_missing_or_shaped(found, shapes, used),
        *(("unknown", key) for key in found if key not in shapes),
    ]
    if troubles:
        raise ValueError(f"{source} does not fit {architecture.name}: {_told(troubles, found, shapes)}")
    for key, tensor in own.items():
        if key not in found:
            tensor.zero_()
            continue
        if found[key].is_floating_point() != tensor.is_floating_point() or not found[key].isfinite().all():
            raise ValueError(f"{source}: the numbers of {key} are not finite, or of {found[key].dtype}")
        tensor.copy_(found[key])


def _missing_or_shaped(
    found: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], used: set[str]
) -> Iterator[tuple[str, str]]:
    present = {_child(key) for key in found}
    for key, shape in shapes.items():
        if key not in found:
            if (_child(key) in present | used) and not key.endswith(COUNTER):
                yield "missing", key
        elif found[key].shape != shape:
            yield "shape", key


def _told(troubles: list[tuple[str, str]], found: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> str:
    """Describe the first trouble and count the others."""
    kind, key = troubles[0]
    if kind == "shape":
        first = f"{key} has the shape {tuple(found[key].shape)}, expected {tuple(shapes[key])}"
        first += " (the axes in another order)" if sorted(found[key].shape) == sorted(shapes[key]) else ""
    else:
        others = [name for name in (found if kind == "missing" else shapes) if name not in shapes or name not in found]
        near = get_close_matches(key, others, n=1)
        hint = f"; the nearest that {'it has' if kind == 'missing' else 'is missing'} is {near[0]}" if near else ""
        first = f"the key {key} is {kind}{hint}"
    rest = Counter(kind for kind, _ in troubles[1:])
    counts = ", ".join(f"{rest[name]} {words}" for name, words in _COUNTED.items() if rest[name])
    return first + (f" (and further keys: {counts})" if counts else "")


_COUNTED = {"missing": "missing", "unknown": "unknown", "shape": "of another shape"}


def _child(key: str) -> str:
    return key.partition(".")[0]


def _renamed(key: str) -> str:
    """Give the key of today for one of torchvision's published densenets, whose layers had a dot before the number."""
    # As torchvision.models.densenet does when it loads them.
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        begin = file.read(12)
    is_zip, is_pickle = begin.startswith(ZIP), begin.startswith(pickle.PROTO)
    if is_zip:
        _check_members(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle's newer protocols, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        if not is_zip and not is_pickle:
            raise ValueError(
                f"{path} is no file of weights: it begins with {begin!r}, as nothing does that torch.save writes, and "
                "files of safetensors end in .safetensors"
            ) from error
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise ValueError(
                f"{path} holds more than tensors ({asked[1]}), which could run code: it is refused; "
                "where you trust its author, read it in a program of your own and save its state_dict()"
            ) from error
        reason = re.search(r"WeightsUnpickler error: (.*)", str(error))  # what comes before is advice on torch.load
        raise ValueError(
            f"{path} can't be read as weights of torch: {reason[1] if reason else _first_line(error)}"
        ) from error


def _check_members(path: Path) -> None:
    """Compare the checksums that torch.save writes, and torch.load does not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, *BROKEN) as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: the checksum of {damaged} inside it is wrong")


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} needs safetensors: pip install 'losslab[weights]'") from error
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *BROKEN) as error:
        raise ValueError(f"{path} can't be read as safetensors: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        odd = [str(key) for key, one in found.items() if not isinstance(one, Tensor)]
        return f"a mapping with {', '.join(odd[:3])}" if odd else "nothing"
    return f"a {type(found).__name__}"
