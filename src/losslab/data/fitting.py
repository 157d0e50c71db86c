"""How pictures of any size are brought to one, and what an unreadable one does."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from losslab import images
from losslab.seeds import generator
from losslab.types import Bytes

FITS = ("center", "random", "stretch", "crop", "random_crop")
ON_BAD = ("error", "skip")


class Fitting:
    """Reads picture files at one size.

    Args:
        size: side of the images in pixels.
        fit: how a picture gets there: "center" scales its shorter side to `size` and keeps the middle, "random" keeps a
            place drawn by `crop_seed`; "stretch" scales both sides; "crop" and "random_crop" keep the middle, or a
            drawn place, of the picture as it is.
        on_bad: what an unreadable picture does: "error" stops and names it, "skip" leaves it out.
        crop_seed: of the places, with the number of the picture.

    Raises:
        ValueError: unknown word.
    """

    def __init__(self, size: int, fit: str, on_bad: str, crop_seed: int) -> None:
        """Check the words."""
        if fit not in FITS:
            raise ValueError(f"data.fit is one of {', '.join(FITS)}, got {fit!r}")
        if on_bad not in ON_BAD:
            raise ValueError(f"data.on_bad is 'error' or 'skip', got {on_bad!r}")
        self.size, self.fit, self.on_bad, self.crop_seed = size, fit, on_bad, crop_seed

    def read(self, paths: Sequence[Path]) -> list[Bytes | images.UnreadableImageError]:
        """Read pictures, several at a time; what can't be read and may be skipped is its error.

        Raises:
            ValueError: an unreadable picture, or one that is smaller than a crop.
        """
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self._read, range(len(paths)), paths))

    def _read(self, number: int, path: Path) -> Bytes | images.UnreadableImageError:
        try:
            picture = images.to_float(images.read(path))
        except images.UnreadableImageError as error:
            if self.on_bad == "error":
                raise
            return error
        return images.to_bytes(self._fitted(picture, number, path))

    def _fitted(self, picture: Tensor, number: int, path: Path) -> Tensor:
        height, width = picture.shape[-2:]
        if self.fit == "stretch":
            return images.resize(picture, self.size, self.size)
        if self.fit in ("center", "random"):
            scale = self.size / min(height, width)
            picture = images.resize(
                picture, max(round(height * scale), self.size), max(round(width * scale), self.size)
            )
        height, width = picture.shape[-2:]
        if min(height, width) < self.size:
            raise ValueError(f"{path} has {height}×{width} pixels, too small for a crop of {self.size}: see data.fit")
        place = torch.tensor([0.5, 0.5])
        if self.fit.startswith("random"):
            place = torch.rand(2, generator=generator(self.crop_seed, number))
        top, left = (place * torch.tensor([height - self.size, width - self.size])).round().int().tolist()
        return picture[:, top : top + self.size, left : left + self.size]


def pictures_below(folder: Path) -> list[Path]:
    """List the pictures in a folder and the folders inside it, in order; what is hidden does not count.

    Raises:
        ValueError: there are none.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    seen = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    paths = [folder / path for path in seen if path.suffix.lower() in images.SUFFIXES]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise ValueError(f"{folder} holds no picture ({' '.join(images.SUFFIXES)})")
    return paths


def readable(found: Sequence[Bytes | images.UnreadableImageError], folder: Path) -> tuple[Bytes, list[str]]:
    """Stack the pictures that could be read, (N, 3, H, W), beside what the others said.

    Raises:
        ValueError: none could.
    """
    good = [picture for picture in found if isinstance(picture, Tensor)]
    bad = [str(error) for error in found if isinstance(error, images.UnreadableImageError)]
    if not good:
        raise ValueError(f"none of the {len(found)} pictures in {folder} can be read; first: {bad[0]}")
    return torch.stack(good), bad
