"""Distortions of pictures, each a pure function with strengths at named levels."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import remap
from PIL import Image as Pillow
from torch import Generator, Tensor
from torch.nn import functional

from losslab import images

Picture: TypeAlias = Float[Tensor, "3 height width"]
"""One picture with values in [0, 1]."""

Field: TypeAlias = Float[Tensor, "2 height width"]
"""Displacements down and right, in pixels."""

Distortion: TypeAlias = Callable[[Picture, float, Generator], Picture]
"""What makes a picture worse: it, a strength and what is random give the distorted picture."""

LEVELS = ("unseen", "faint", "clear", "strong", "extreme")
"""Names of the strengths of a family: at the first nobody sees a difference, at the others everyone does."""

WAVES = 5
"""Places a side at which smooth fields are drawn; cubic interpolation fills them in between."""

REACH = 3
"""Standard deviations of a Gaussian to each side, of which its kernel has 99.7 %."""


def noise(picture: Picture, strength: float, random: Generator) -> Picture:
    """Add the same Gaussian noise at every strength, its standard deviation, in parts of the range of values."""
    return picture + strength * torch.randn(picture.shape, generator=random)


def blotches(picture: Picture, strength: float, random: Generator) -> Picture:
    """Add the same smooth coloured noise at every strength, its standard deviation, in parts of the range of values."""
    field = _smooth(len(picture), picture.shape[-2:], random)
    return picture + strength * field / field.std(correction=0)


def blur(picture: Picture, strength: float, _: Generator) -> Picture:
    """Blur by a Gaussian whose standard deviation is the strength, in pixels."""
    side = 2 * max(1, round(REACH * strength)) + 1
    return gaussian_blur2d(picture[None], (side, side), (strength, strength))[0]


def jpeg(picture: Picture, strength: float, _: Generator) -> Picture:
    """Compress as JPEG, of quality 100 less the strength, with colours at full resolution."""
    content = io.BytesIO()
    pixels = images.to_bytes(picture).permute(1, 2, 0).numpy()
    Pillow.fromarray(pixels).save(content, "JPEG", quality=100 - round(strength), subsampling=0)
    return images.to_float(torch.from_numpy(np.array(Pillow.open(content)))).permute(2, 0, 1)


def brightness(picture: Picture, strength: float, _: Generator) -> Picture:
    """Make a dark picture brighter or a bright one darker by the strength, in parts of the range of values."""
    return picture + (strength if picture.mean() < 0.5 else -strength)  # where there is room: values are clipped


def contrast(picture: Picture, strength: float, _: Generator) -> Picture:
    """Take the strength's share off each value's difference from the mean."""
    return picture.lerp(picture.mean().expand_as(picture), strength)


def tint(picture: Picture, strength: float, random: Generator) -> Picture:
    """Shift all colours the same way, which leaves the mean of the channels, by the strength, in parts of the range."""
    thirds = torch.arange(3) / 3
    return picture + strength * torch.cos(2 * torch.pi * (thirds + torch.rand((), generator=random)))[:, None, None]


def checkerboard(picture: Picture, strength: float, _: Generator) -> Picture:
    """Make single pixels brighter and darker in turns by the strength, in parts of the range of values."""
    rows, columns = (torch.arange(side) for side in picture.shape[-2:])
    return picture + strength * (1 - 2 * ((rows[:, None] + columns) % 2))


def superres(picture: Picture, strength: float, _: Generator) -> Picture:
    """Scale down by the strength, a factor, and up again by cubic interpolation."""
    height, width = picture.shape[-2:]
    small = images.resize(picture, round(height / strength), round(width / strength))
    return functional.interpolate(small[None], (height, width), mode="bicubic", align_corners=False)[0]


def warp(picture: Picture, strength: float, random: Generator) -> Picture:
    """Move pixels along the same smooth random field at every strength, its root mean square in pixels."""
    return _moved(picture, strength * displacement(picture.shape[-2:], random))


def displacement(size: tuple[int, ...], random: Generator) -> Field:
    """Draw a smooth field of displacements down and right, whose lengths have a root mean square of 1."""
    field = _smooth(2, size, random)
    return field / field.square().sum(0).mean().sqrt()


def _smooth(channels: int, size: tuple[int, ...], random: Generator) -> Float[Tensor, "channels height width"]:
    coarse = torch.randn(1, channels, WAVES, WAVES, generator=random)
    return functional.interpolate(coarse, size, mode="bicubic", align_corners=True)[0]


def _moved(picture: Picture, where: Field) -> Picture:
    """Take each value from so many pixels further down and right; beyond the border the picture is mirrored."""
    rows, columns = (torch.arange(side) for side in picture.shape[-2:])
    places = (columns + where[1])[None], (rows[:, None] + where[0])[None]
    return remap(picture[None], *places, padding_mode="reflection", align_corners=True)[0]


@dataclass(frozen=True)
class Family:
    """A distortion and its strengths.

    Args:
        distort: the distortion.
        strengths: at the `LEVELS`.
    """

    distort: Distortion
    strengths: tuple[float, float, float, float, float]


# All strengths were chosen by looking at 64×64 crops of the photographs that scikit-image ships.
FAMILIES = {
    "noise": Family(noise, (0.002, 0.04, 0.08, 0.16, 0.32)),
    "blotches": Family(blotches, (0.003, 0.04, 0.08, 0.16, 0.32)),
    "checkerboard": Family(checkerboard, (0.004, 0.04, 0.08, 0.16, 0.32)),
    "brightness": Family(brightness, (0.004, 0.06, 0.12, 0.24, 0.48)),
    "contrast": Family(contrast, (0.005, 0.25, 0.45, 0.65, 0.85)),
    "tint": Family(tint, (0.004, 0.04, 0.08, 0.16, 0.32)),
    "blur": Family(blur, (0.35, 1.0, 1.6, 2.5, 4.0)),
    "superres": Family(superres, (1, 2, 3, 5, 8)),
    "jpeg": Family(jpeg, (0, 70, 85, 92, 96)),
    "warp": Family(warp, (0.02, 1, 2, 3.5, 6)),
}
"""Distortions by name, after the traditional ones and the algorithms of BAPPS (Zhang et al., CVPR 2018, table 2)."""


def distorted(picture: Picture, family: str, level: str, random: Generator) -> Picture:
    """Distort a picture and clip its values to [0, 1].

    Args:
        picture: what to distort.
        family: one of `FAMILIES`.
        level: one of `LEVELS`.
        random: two levels that begin with the same state differ in nothing but their strength.
    """
    chosen = FAMILIES[family]
    return chosen.distort(picture, chosen.strengths[LEVELS.index(level)], random).clamp(0, 1)


def known(families: Sequence[str]) -> tuple[str, ...]:
    """Check names of families.

    Raises:
        ValueError: none, one twice, or an unknown one; the message names those there are.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families or len({*families}) < len(families):
        near = get_close_matches(unknown[0], FAMILIES, n=1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"families are some of {', '.join(FAMILIES)}, each once, got {list(families)}{hint}")
    return tuple(families)
