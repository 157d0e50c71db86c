"""Which photographs sets are cut from, and what of each."""

from collections.abc import Sequence
from pathlib import Path

import skimage
from torch import Tensor

from losslab import images
from losslab.data.photos import PHOTOGRAPHS

TEXTURES = ("brick.png", "grass.png", "gravel.png")
"""Grey textures that scikit-image ships as files; they are taken where they are named."""


def chosen(root: Path | None, names: Sequence[str] | None) -> list[Path]:
    """List the files of some photographs.

    Args:
        root: a folder with pictures; None: photographs of the scikit-image wheel.
        names: file names in it, with or without their suffix, in the wanted order; None: all, and of the wheel those in
            colour.

    Raises:
        ValueError: no folder, no picture in it, or a name that is not there.
    """
    known = _of_wheel() if root is None else _in_folder(root)
    if names is None:
        return known[: len(PHOTOGRAPHS)] if root is None else known
    if isinstance(names, str) or not names:
        raise ValueError(f"data.names is a list of names, or null for all, got {names!r}")
    return [_named(name, known) for name in names]


def middle(picture: Tensor, zoom: float) -> Tensor:
    """Cut a share of the middle square out of a picture (*, H, W)."""
    side = int(min(picture.shape[-2:]) * zoom)
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    return picture[..., top : top + side, left : left + side]


def middle_square(path: Path, zoom: float, side: int, key: str) -> Tensor:
    """Give a share of the middle square of a photograph, scaled to so many pixels, (3, side, side) in [0, 1].

    Args:
        path: the photograph.
        zoom: the share.
        side: in pixels.
        key: what says how many they are.

    Raises:
        ValueError: the photograph has fewer pixels.
    """
    square = middle(images.read(path), zoom)
    if square.shape[-1] < side:
        raise ValueError(
            f"{path.name} has {square.shape[-1]} pixels to cut {side} from: lower data.{key}, or raise data.zoom"
        )
    return images.resize(images.to_float(square), side, side)


def _of_wheel() -> list[Path]:
    return [Path(skimage.__file__).parent / "data" / name for name in (*PHOTOGRAPHS, *TEXTURES)]


def _in_folder(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ValueError(f"data.root={root} is no folder")
    known = [path for path in sorted(root.iterdir()) if path.suffix.lower() in images.SUFFIXES and path.is_file()]
    if not known:
        raise ValueError(f"data.root={root} holds no picture ({' '.join(images.SUFFIXES)})")
    return known


def _named(name: str, known: list[Path]) -> Path:
    for path in known:
        if name in (path.name, path.stem):
            return path
    raise ValueError(f"data.names: there is no {name!r}; there are {', '.join(path.stem for path in known)}")
