"""Pictures in a table: each file is decoded and brought to one size once, and mapped into memory from then on.

Files of equal content are one picture, whatever their names.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional

from losslab import images
from losslab.alone import alone
from losslab.files import part_of, replace
from losslab.types import Bytes

FORMAT = 2
"""Version of the kept tables; a change of what is in them makes new ones."""

BLOCK = 1024
"""Pictures that are decoded between two writes: 12 MB of 64×64 pixels."""

NAMED = 5
"""Bad files that a message lists; more are counted."""

log = logging.getLogger(__name__)


class Numbered(NamedTuple):
    """The distinct pictures of some files, (P, 3, size, size), in the order of first use; and which is each file's."""

    table: Bytes
    places: Int[Tensor, " files"]


@dataclass(frozen=True)
class PictureTable:
    """Picture files of any sizes as one tensor of bytes, in which those that are equal at the wanted size are one.

    A table is kept under a hash of what decides its bytes: the files' places, sizes and times, how they are brought to
    size, and the versions of the libraries that do it. It may be removed at any time.

    Args:
        size: side of the pictures in pixels; both sides of a file are scaled to it.
        antialias: True scales with the filter of PIL's BILINEAR, byte for byte: where it makes a picture smaller, it
            averages over what a new pixel covers. False takes the four nearest pixels alone, as torch does by default.
        cache: folder of the kept tables; None keeps none and decodes into memory.

    Raises:
        ValueError: a size that is none.

    Paper and code: the networks' training, LPIPS and the study of 2302.04032 scale with PIL's BILINEAR, so True is the
        default.

    Source: transforms.Scale in data/dataset/twoafc_dataset.py of richzhang/PerceptualSimilarity.
    """

    size: int = 64
    antialias: bool = True
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        """Check the size."""
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"data.size is a number of pixels from 1, got {self.size!r}")

    def read(self, paths: Sequence[Path]) -> Numbered:
        """Give the distinct pictures, and the place of each path's among them.

        Raises:
            UnreadableImageError: files can't be read; the message counts all and names the first ones with reasons.
            ValueError: there are no paths, a file changed meanwhile, or a kept table is damaged.
            OSError: a file is missing, or the cache's folder can't be written.
        """
        if not paths:
            raise ValueError("a table of pictures needs one file at least")
        if self.cache is None:
            distinct = _Distinct()
            return Numbered(torch.from_numpy(np.concatenate([*self._blocks(paths, distinct)])), distinct.places())
        kept = Path(self.cache).expanduser() / f"{self._key(paths)}.npy"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with alone(kept, "decodes pictures for"):
                if not kept.exists():
                    self._keep(paths, kept)
        return _mapped(kept, len(paths), (3, self.size, self.size))

    def _key(self, paths: Sequence[Path]) -> str:
        how = f"{FORMAT} {self.size} {self.antialias} {PIL.__version__} {torch.__version__}"
        digest = hashlib.sha256(how.encode())
        for path in paths:
            stat = path.stat()
            digest.update(os.fsencode(os.path.abspath(path)) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode())  # noqa: PTH100 - a link's own name
        return digest.hexdigest()[:32]

    def _keep(self, paths: Sequence[Path], kept: Path) -> None:
        log.info("decoding %d pictures once, kept in %s", len(paths), kept.parent)
        partial, distinct = part_of(kept), _Distinct()
        try:
            # Written, not mapped: on a full disk a mapped write kills the process.
            with partial.open("wb") as file:
                begin = self._write_header(file, len(paths))
                for block in self._blocks(paths, distinct):
                    file.write(block.data)
                np.lib.format.write_array(file, distinct.places().numpy(), (1, 0))
                file.seek(0)
                if self._write_header(file, len(distinct.numbers)) != begin:
                    raise AssertionError("NumPy leaves room in a header for any number of rows")
            if kept.stem != self._key(paths):
                raise ValueError(f"pictures such as {paths[0]} were changed while they were read: start again")
            replace(partial, kept)
        finally:
            partial.unlink(missing_ok=True)

    def _write_header(self, file: BinaryIO, count: int) -> int:
        """Write the head of a table of so many pictures, and tell where it ends."""
        shape = (count, 3, self.size, self.size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.tell()

    def _blocks(self, paths: Sequence[Path], distinct: "_Distinct") -> Iterator[NDArray[np.uint8]]:
        bad: list[str] = []
        with ThreadPoolExecutor() as pool:
            for begin in range(0, len(paths), BLOCK):
                found = list(pool.map(self._picture, paths[begin : begin + BLOCK]))
                bad += [str(one) for one in found if isinstance(one, images.UnreadableImageError)]
                if not bad and (new := [one for one in found if isinstance(one, Tensor) and distinct.is_new(one)]):
                    yield torch.stack(new).numpy()
        if bad:
            raise images.UnreadableImageError(f"{len(bad)} of {len(paths)} pictures are bad: {first_of(bad)}")

    def _picture(self, path: Path) -> Bytes | images.UnreadableImageError:
        try:
            picture = images.read(path)[None]
        except images.UnreadableImageError as error:
            return error
        side = (self.size, self.size)
        if self.antialias:  # torch's own filter differs by a grey level here and there
            scaled = Picture.fromarray(picture[0].permute(1, 2, 0).numpy()).resize(side, Picture.Resampling.BILINEAR)
            return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)
        return images.to_bytes(functional.interpolate(images.to_float(picture), side, mode="bilinear"))[0]


def first_of(found: Sequence[str]) -> str:
    """Name the first few of what was found, and count the others.

    Example:
        >>> first_of(["a", "b", "c", "d", "e", "f", "g"])
        'a; b; c; d; e; and 2 more'
    """
    more = len(found) - NAMED
    return "; ".join([*found[:NAMED], *([f"and {more} more"] if more > 0 else [])])


class _Distinct:
    """Numbers pictures by their content."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self._places: list[int] = []

    def is_new(self, picture: Bytes) -> bool:
        """Note down the next picture, and tell whether it is the first one of its content."""
        known = len(self.numbers)
        place = self.numbers.setdefault(hashlib.sha256(picture.contiguous().numpy().data).digest(), known)
        self._places.append(place)
        return place == known

    def places(self) -> Int[Tensor, " files"]:
        """Give the number of each picture that was noted down."""
        return torch.tensor(self._places)


def _mapped(kept: Path, count: int, shape: tuple[int, ...]) -> Numbered:
    """Open the table of `count` files: the pictures, and behind them the place of each file's."""
    try:
        # Copy on write: torch warns of memory that it may not write.
        found = np.load(kept, mmap_mode="c", allow_pickle=False)
        with kept.open("rb") as file:
            file.seek(found.offset + found.nbytes)
            places = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{kept} is no table of pictures ({error}); remove it to have it made again") from error
    shapes = found.shape[1:], places.shape
    if shapes != (shape, (count,)) or found.dtype != np.uint8 or places.dtype != np.int64:
        raise ValueError(f"{kept} holds {found.dtype} of shape {found.shape}, not bytes of {count} files: remove it")
    return Numbered(torch.from_numpy(found), torch.from_numpy(places))
