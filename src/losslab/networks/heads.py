"""The published channel weights of LPIPS, read from the packages that ship them, and files of the same form."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from losslab.checksums import difference
from losslab.networks.state_dicts import read_state_dict

VERSIONS = ("v0.1", "v0.0")

KEY = "lin{}.model.1.weight"
"""Name of the weights of the k-th layer, (1, C, 1, 1): NetLinLayer of richzhang/PerceptualSimilarity."""

INPUT = {"v0.1": "imagenet", "v0.0": "signed"}
"""What networks were fed when heads were trained: ScalingLayer of lpips/lpips.py, which version 0.0 goes without."""


@dataclass(frozen=True)
class Published:
    """What belongs to one network.

    Args:
        file: its name in the packages, without suffix.
        nodes: torchvision's names of the layers, from the image upwards.
        sha256: of the file, by version.
    """

    file: str
    nodes: tuple[str, ...]
    sha256: dict[str, str]


def _features(*indices: int) -> tuple[str, ...]:
    return tuple(f"features.{index}" for index in indices)


# Layers: the slices in lpips/pretrained_networks.py of richzhang/PerceptualSimilarity; hashes: lpips/weights/v0.1 and
# v0.0 there, the former byte for byte in torchmetrics/functional/image/lpips_models
PUBLISHED = {
    "alexnet": Published(
        "alex",
        _features(1, 4, 7, 9, 11),
        {
            "v0.1": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            "v0.0": "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5",
        },
    ),
    "squeezenet1_1": Published(
        "squeeze",
        _features(1, 4, 7, 9, 10, 11, 12),
        {
            "v0.1": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
            "v0.0": "c27abd3a0145541baa50990817df58d3759c3f8154949f42af3b59b4e042d0bf",
        },
    ),
    "vgg16": Published(
        "vgg",
        _features(3, 8, 15, 22, 29),
        {
            "v0.1": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            "v0.0": "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c",
        },
    ),
}


def published_heads(version: str, net: str) -> list[Tensor]:
    """Give LPIPS' weights of each layer of a network, (C,), at least 0.

    Args:
        version: "v0.1" (of torchmetrics, which losslab needs anyway) or "v0.0" (of lpips: `losslab[lpips]`).
        net: "alexnet", "squeezenet1_1" or "vgg16".

    Raises:
        ValueError: another version or network, or a file that is missing or not the published one.

    Example:
        >>> [len(weights) for weights in published_heads("v0.1", "alexnet")]
        [64, 192, 384, 256, 256]
    """
    if version not in VERSIONS or net not in PUBLISHED:
        raise ValueError(
            f"LPIPS {' and '.join(VERSIONS)} have heads for {', '.join(PUBLISHED)}, got {version!r} for {net!r}"
        )
    path = _shipped(version, PUBLISHED[net].file)
    return heads_of(path, PUBLISHED[net].sha256[version])


def heads_of(path: Path, sha256: str | None = None) -> list[Tensor]:
    """Give the weights of each layer, (C,), that a file holds.

    Args:
        path: of a state dict with nothing but `lin{k}.model.1.weight`, (1, C, 1, 1), k = 0, 1, ..., no number below 0.
        sha256: of the file, or its first 8 digits or more; None takes any.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not the one that the hash is of, or holds something else; the message names the first
            difference.
    """
    state = read_state_dict(path)
    if sha256 is not None and (differs := difference(path, sha256)):
        raise ValueError(f"{path} is not the file of heads that was asked for: {differs}")
    wanted = [KEY.format(k) for k in range(len(state))]
    unknown = [key for key in state if key not in wanted]
    if unknown:
        missing = next(key for key in wanted if key not in state)
        raise ValueError(f"{path} holds no heads of LPIPS: expected the key {missing}, found {unknown[0]}")
    return [_head(path, key, state[key]) for key in wanted]


def heads_file(heads: Sequence[Tensor]) -> bytes:
    """Give the content of a file that `heads_of` reads, and so does the `lpips` package as its `model_path`.

    Args:
        heads: the weights of each layer, (C,), from 0, the layer that is nearest to the image first.

    Raises:
        ValueError: a weight is below 0, or no number.
    """
    for k, head in enumerate(heads):
        if head.ndim != 1 or not bool((head.isfinite() & (head >= 0)).all()):
            raise ValueError(f"heads are vectors of numbers from 0; the {k}. has the shape {tuple(head.shape)} and the "
                             f"minimum {head.min():.3g}")  # fmt: skip
    state = {KEY.format(k): head.detach().float().cpu()[None, :, None, None].clone() for k, head in enumerate(heads)}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _head(path: Path, key: str, head: Tensor) -> Tensor:
    if head.ndim != 4 or (head.shape[0], *head.shape[2:]) != (1, 1, 1):
        raise ValueError(f"{path}: {key} should have the shape (1, C, 1, 1), got {tuple(head.shape)}")
    if not bool((head >= 0).all()):  # also where a number is none
        raise ValueError(f"{path}: {key} has a weight of {head.min():.3g}; LPIPS' heads are at least 0")
    return head.flatten().float()


def _shipped(version: str, file: str) -> Path:
    """Find a file in an installed package without importing it."""
    package, inside = {
        "v0.1": ("torchmetrics", f"functional/image/lpips_models/{file}.pth"),
        "v0.0": ("lpips", f"weights/v0.0/{file}.pth"),
    }[version]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"heads {version} come with the package {package}: pip install 'losslab[lpips]'")
    path = Path(found.origin).parent / inside
    if not path.is_file():
        raise ValueError(f"heads {version} should lie in {path}, but this release of {package} does not have them")
    return path
