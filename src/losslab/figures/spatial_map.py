"""Where two pictures differ: them, and the map of a loss, side by side."""

import math
from collections.abc import Mapping

from jaxtyping import Float
from PIL import Image as Picture
from torch import Tensor

from losslab.figures.layout import beside, coloured, page, scale, shown, text, under
from losslab.types import Bytes, Image

SMALL = 256
"""Longest side, in pixels, up to which pictures and maps are enlarged, by a whole number; nothing is reduced."""

COLOURS = "inferno"
"""Perceptually uniform, black for the lowest value."""

Map = Float[Tensor, "height width"]


def spatial_map(pictures: Mapping[str, Image], maps: Mapping[str, tuple[Map, float]]) -> Bytes:
    """Draw pictures, and each loss's map with its scale, from 0 to the map's largest value.

    Args:
        pictures: (3, H, W) in [0, 1], by the names to show.
        maps: of the same height and width, with the distance that the loss gives, by the loss's name.

    Returns:
        The picture, (3, height, width).

    Raises:
        ValueError: a map has NaN or infinite values.
    """
    bad = [name for name, (values, _) in maps.items() if not bool(values.isfinite().all())]
    if bad:
        raise ValueError(f"{bad[0]} has a map with NaN or infinite values")
    seen = [under(text(name), shown(_enlarged(image))) for name, image in pictures.items()]
    return page(beside([*seen, *(_drawn(name, *one) for name, one in maps.items())]))


def _drawn(name: str, values: Map, distance: float) -> Picture.Image:
    """Show a map below its loss's name, and under it the scale and the values that there are."""
    low, high = min(0.0, float(values.min())), float(values.max())
    told = text(f"values {float(values.min()):.4g} to {high:.4g}, mean {float(values.mean()):.4g}")
    map_ = coloured(_enlarged(values), low, high, COLOURS)
    return under(text(f"{name}: distance {distance:.6g}"), map_, scale("scale", low, high, COLOURS), told)


def _enlarged(values: Tensor) -> Tensor:
    """Repeat pixels: nothing is blurred."""
    times = math.ceil(SMALL / max(values.shape[-2:]))
    return values.repeat_interleave(times, -2).repeat_interleave(times, -1)
