"""Pieces of pictures: lines of text, coloured values, and how to put them beside and under each other."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont, ImageOps
from torch import Tensor

from losslab.images import to_bytes
from losslab.types import Bytes, Image

GAP, LETTERS = 6, 12
"""Pixels between parts, and height of the letters."""

BAR = 192
"""Length of a scale in pixels."""

FONT = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""matplotlib's own, which has ×."""

BLACK = (0, 0, 0)


def text(line: str, colour: tuple[int, int, int] = BLACK) -> Picture.Image:
    """Write a line."""
    font = ImageFont.truetype(FONT, LETTERS)
    strip = Picture.new("RGB", (math.ceil(font.getlength(line)), LETTERS + 4), "white")
    ImageDraw.Draw(strip).text((0, 0), line, colour, font)
    return strip


def beside(parts: Sequence[Picture.Image], widths: Sequence[int] | None = None, gap: int = GAP) -> Picture.Image:
    """Put parts in a row, of columns as wide as they are or as is said."""
    sides = [part.width for part in parts] if widths is None else widths
    page = Picture.new("RGB", (sum(sides) + gap * (len(parts) - 1), max(part.height for part in parts)), "white")
    for number, part in enumerate(parts):
        page.paste(part, (sum(sides[:number]) + gap * number, 0))
    return page


def under(*parts: Picture.Image, gap: int = GAP) -> Picture.Image:
    """Put parts in a column."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    page = Picture.new("RGB", (max(part.width for part in parts), height), "white")
    for number, part in enumerate(parts):
        page.paste(part, (0, sum(one.height for one in parts[:number]) + gap * number))
    return page


def coloured(values: Float[Tensor, "height width"], low: float, high: float, colours: str) -> Picture.Image:
    """Show values by one of matplotlib's colour maps, `low` as its first colour and `high` as its last."""
    share = ((values - low) / ((high - low) or 1)).clamp(0, 1)  # rounding may leave [0, 1] by a little
    return Picture.fromarray(mpl.colormaps[colours](share.numpy(), bytes=True)[..., :3])


def scale(name: str, low: float, high: float, colours: str) -> Picture.Image:
    """Show which colours stand for which values."""
    ramp = coloured(torch.linspace(0, 1, BAR).expand(LETTERS, BAR), 0, 1, colours)
    return beside([text(f"{name}: {low:.4g}"), ramp, text(f"{high:.4g}")])


def shown(image: Image) -> Picture.Image:
    """Show an image, (3, H, W) in [0, 1], pixel by pixel."""
    return Picture.fromarray(to_bytes(image).permute(1, 2, 0).numpy())


def page(*parts: Picture.Image) -> Bytes:
    """Give a column of parts with a border, (3, height, width)."""
    whole = ImageOps.expand(under(*parts), GAP, "white")
    return torch.from_numpy(np.array(whole)).permute(2, 0, 1).contiguous()
