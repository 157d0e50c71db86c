"""BAPPS on disk: which files belong together, found by their names and checked before anything is decoded."""

import functools
import io
import math
import os
import tokenize
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losslab.data.pictures import first_of
from losslab.images import SUFFIXES

LONGEST = 4096
"""Bytes of a file with one number, at most: NumPy writes 132."""


@dataclass(frozen=True)
class Part:
    """One of the three parts of BAPPS, and what is known of it.

    Args:
        name: of its archive.
        folder: where it lies.
        subsets: names, with the number of judgements in each.
        rounded: how far those numbers were rounded.
        pictures: folders of what was shown, in the order of a distance's arguments.
        label: the folder of the shares of answers.
        votes: answers to each question.
        size: of the archive in bytes, rounded; also roughly that of its content, which is PNG.
        sha256: of the archive, where somebody has told it.
    """

    name: str
    folder: str
    subsets: Mapping[str, int]
    rounded: int
    pictures: tuple[str, ...]
    label: str
    votes: int
    size: int
    sha256: str | None


# Zhang et al., CVPR 2018, tables 1-3, rounded there to 0.1k; those of val make the published scores possible and add up
# to the 36,344 that are reported. Sizes: README of richzhang/PerceptualSimilarity. Checksums: a project that pins them.
VAL = Part(
    name="twoafc_val",
    folder="2afc/val",
    subsets={"traditional": 4720, "cnn": 4720, "superres": 10856, "deblur": 9440, "color": 4720, "frameinterp": 1888},
    rounded=0,
    pictures=("ref", "p0", "p1"),
    label="judge",
    votes=5,
    size=1_100_000_000,
    sha256="41486671b06de923e7ba277c4797d4d9d86d609863ba35ecdb576133f8b9d859",
)
TRAIN = Part(
    name="twoafc_train",
    folder="2afc/train",
    subsets={"cnn": 38_100, "mix": 56_600, "traditional": 56_600},
    rounded=50,
    pictures=("ref", "p0", "p1"),
    label="judge",
    votes=2,
    size=5_300_000_000,
    sha256="b4f5c772c7cd88ac44bcb4ff0741745d434c05f0094f2bfb262ddcd0055bf393",
)
JND = Part(
    name="jnd",
    folder="jnd/val",
    subsets={"traditional": 4800, "cnn": 4800},
    rounded=50,
    pictures=("p0", "p1"),
    label="same",
    votes=3,
    size=200_000_000,
    sha256=None,
)
PARTS = (VAL, TRAIN, JND)


@dataclass(frozen=True)
class Listed:
    """The files of a part's chosen subsets, in their order and that of the stems.

    Args:
        part: what they are of.
        pictures: of all judgements, one after the other: those of the first, then those of the second.
        labels: one a judgement.
        counts: judgements of each subset.
    """

    part: Part
    pictures: list[Path]
    labels: list[Path]
    counts: dict[str, int]

    def shares(self) -> Float[Tensor, " judgements"]:
        """Read the shares of answers.

        Raises:
            ValueError: files that don't hold one number from 0 to 1; all are counted, the first ones named.
        """
        found = [_share(path) for path in self.labels]
        bad = [f"{path} {share}" for path, share in zip(self.labels, found, strict=True) if isinstance(share, str)]
        if bad:
            raise ValueError(f"{len(bad)} of {len(found)} files in {self.part.label} are bad: {first_of(bad)}")
        return torch.tensor(found, dtype=torch.float32)

    def subset(self) -> Tensor:
        """Give the place of each judgement's subset among the names, (T,)."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(list(self.counts.values())))

    def differences(self) -> list[str]:
        """Tell which subsets have not as many judgements as is known of them."""
        return [
            f"{name} has {count} of {self.part.subsets[name]}"
            for name, count in self.counts.items()
            if abs(count - self.part.subsets[name]) > self.part.rounded
        ]


def check_subsets(part: Part, subsets: Sequence[str], key: str = "subsets") -> tuple[str, ...]:
    """Refuse what is no choice of a part's subsets.

    Raises:
        ValueError: an unknown name, one that comes twice, or none at all.
    """
    for name in subsets:
        if name not in part.subsets:
            near = get_close_matches(str(name), part.subsets, n=1, cutoff=0)[0]
            raise ValueError(f"data.{key} has {name!r}; did you mean {near!r}? There are {', '.join(part.subsets)}")
    if not subsets or isinstance(subsets, str) or len(set(subsets)) != len(subsets):
        raise ValueError(f"data.{key} is a list of some of {', '.join(part.subsets)}, each once; got {subsets!r}")
    return tuple(subsets)


def list_part(home: Path, part: Part, subsets: Sequence[str]) -> Listed:
    """Find the files of some subsets, paired by their stems.

    Args:
        home: the folder that has `2afc` and `jnd`.
        part: what is wanted.
        subsets: the chosen names.

    Raises:
        ValueError: folders are missing; or files are: all are counted by what is wrong, the first ones named.
    """
    bad: dict[str, list[str]] = defaultdict(list)
    pictures: list[Path] = []
    labels: list[Path] = []
    counts = {}
    for name in subsets:
        columns = [_stems(home / part.folder / name, one, part, bad) for one in (*part.pictures, part.label)]
        stems = sorted(set().union(*columns))
        _compare(columns, stems, home / part.folder / name, part, bad)
        whole = [stem for stem in stems if all(stem in column for column in columns)]
        pictures += [column[stem] for stem in whole for column in columns[:-1]]
        labels += [columns[-1][stem] for stem in whole]
        counts[name] = len(whole)
    if bad:
        told = ", ".join(f"{len(found)} {reason} ({first_of(found)})" for reason, found in bad.items())
        raise ValueError(f"files in {home / part.folder} don't belong together: {told}")
    return Listed(part, pictures, labels, counts)


def _stems(subset: Path, name: str, part: Part, bad: dict[str, list[str]]) -> dict[str, Path]:
    """Give the files of one folder by their stems."""
    folder, suffixes = subset / name, (".npy",) if name == part.label else SUFFIXES
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}: {part.folder} has <subset>/{'|'.join((*part.pictures, part.label))}"
        )
    found: dict[str, Path] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - of hundreds of thousands of names
            if entry.name.startswith("."):
                continue
            if suffix.lower() not in suffixes or stem in found or not entry.is_file():
                bad["extra"].append(_shown(folder / entry.name))
            else:
                found[stem] = folder / entry.name
    if not found:
        bad["empty folders"].append(str(folder))
    return found


def _compare(
    columns: Sequence[Mapping[str, Path]], stems: Sequence[str], subset: Path, part: Part, bad: dict[str, list[str]]
) -> None:
    names = (*part.pictures, part.label)
    if all(len(column) == len(stems) for column in columns):
        return
    for stem in stems:
        there = [name for name, column in zip(names, columns, strict=True) if stem in column]
        if len(there) == 1:
            bad["extra"].append(_shown(columns[names.index(there[0])][stem]))
        elif len(there) < len(names):
            bad["missing"] += [_shown(subset / name / stem) + ".*" for name in names if name not in there]


def _shown(path: Path) -> str:
    """Spell a path in letters, also one that is no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _share(path: Path) -> float | str:
    """Read the one number of a file, or say what is wrong with it."""
    with open(path, "rb") as file:  # noqa: PTH123 - hundreds of thousands of them
        return _number(file.read(LONGEST + 1))


@functools.lru_cache(maxsize=1024)
def _number(content: bytes) -> float | str:
    """Read a .npy of one number without NumPy's loader, which runs pickles; few contents ever differ."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, kind = read(file)
    except (ValueError, KeyError, EOFError, SyntaxError, tokenize.TokenError):
        return "is empty" if not content else "is no .npy"
    if kind.kind not in "fiu":
        return f"holds {kind}, expected a number"
    if math.prod(shape) != 1:
        return f"has the shape {shape}, expected one number"
    if len(content) != file.tell() + kind.itemsize:
        return "breaks off, or has more than its number"
    share = float(np.frombuffer(content, kind, 1, file.tell())[0])
    return share if 0 <= share <= 1 else f"holds {share:g}, expected a share from 0 to 1"
