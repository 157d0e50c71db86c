"""Feature maps as a picture: the channels of a layer, as they are and normalised, for some images."""

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional

from losslab.comparisons.spatial import unit
from losslab.figures.layout import beside, coloured, page, scale, shown, text, under
from losslab.types import Bytes, Features, Image

Maps = Float[Tensor, "channels height width"]

SMALL, LARGE = 96, 192
"""Longest sides, in pixels, up to which a map is enlarged and from which it is reduced, by a whole number."""

WIDE_GAP = 30
"""Pixels between images."""

COLOURS = "viridis"
"""Perceptually uniform, also in grey."""

RED = (190, 0, 0)


def feature_maps(title: str, pictures: Mapping[str, tuple[Image, Features]], channels: int = 64) -> Bytes:
    """Draw the channels of a layer: a block of maps an image, side by side.

    Above are the features as they are, below those of each place divided by their norm over all channels. Either half
    has one scale, from the smallest to the largest value drawn. A channel that is constant over an image is
    named in red, with its value.

    Args:
        title: the first line.
        pictures: image, (3, H, W) in [0, 1], and its features of the layer, (C, h, w), by the name to show.
        channels: how many to show at most, from the first one.

    Returns:
        The picture, (3, height, width).

    Raises:
        ValueError: there is no image, or a feature is NaN or infinite.

    Source: `feature_map.py` of guspih/deep_perceptual_similarity_analysis, which shows a channel at a time.
    """
    features = [maps for _, maps in pictures.values()]
    if not features:
        raise ValueError(f"{title}: there is no image to draw the features of")
    if not all(bool(maps.isfinite().all()) for maps in features):
        raise ValueError(f"{title}: there are NaN or infinite features")
    total, drawn = len(features[0]), min(channels, len(features[0]))
    heads = [_head(name, image, maps) for name, (image, maps) in pictures.items()]
    raw_bar, raw = _half("features", [maps[:drawn] for maps in features])
    unit_bar, units = _half("each place divided by its norm over all channels", [unit(one)[:drawn] for one in features])
    widths = [max(some.width for some in column) for column in zip(heads, raw, units, strict=True)]
    head, above, below = (beside(parts, widths, WIDE_GAP) for parts in (heads, raw, units))
    line = text(f"{title}: channels 0 to {drawn - 1} of {total}")
    return page(line, head, raw_bar, above, unit_bar, below)


def _half(name: str, features: Sequence[Maps]) -> tuple[Picture.Image, list[Picture.Image]]:
    """Draw one block an image, and the scale that all have."""
    drawn = [_fitted(maps) for maps in features]
    low, high = min(float(maps.min()) for maps in drawn), max(float(maps.max()) for maps in drawn)
    blocks = [_block(maps, fitted, low, high) for maps, fitted in zip(features, drawn, strict=True)]
    return scale(name, low, high, COLOURS), blocks


def _head(name: str, image: Image, maps: Maps) -> Picture.Image:
    """Show the image, its name and how its maps are drawn."""
    times, means = _zoom(maps)
    how = (
        f", drawn {times} times as large" if times > 1 else f", drawn as means of {means}×{means}" if means > 1 else ""
    )
    return under(text(f"{name}, {maps.shape[-2]}×{maps.shape[-1]} places{how}"), shown(_fitted(image)))


def _block(maps: Maps, fitted: Maps, low: float, high: float) -> Picture.Image:
    """Lay channels out row by row, about as many in a row as there are rows."""
    columns = math.ceil(len(maps) ** 0.5)
    cells = [
        under(_label(number, one), coloured(values, low, high, COLOURS), gap=0)
        for number, (one, values) in enumerate(zip(maps, fitted, strict=True))
    ]
    widths = [max(cell.width for cell in cells)] * columns
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return under(*(beside(row, widths[: len(row)]) for row in rows))


def _label(number: int, one: Float[Tensor, "height width"]) -> Picture.Image:
    value = float(one[0, 0])
    return text(f"{number}: all {value:.3g}", RED) if bool((one == value).all()) else text(str(number))


def _zoom(maps: Maps) -> tuple[int, int]:
    """Give how many pixels a place takes, and how many places a pixel."""
    longest = max(maps.shape[-2:])
    return math.ceil(SMALL / longest), math.ceil(longest / LARGE)


def _fitted(maps: Maps) -> Maps:
    """Repeat places, or take means of them: nothing is blurred and nothing is left out."""
    times, means = _zoom(maps)
    large = maps.repeat_interleave(times, -2).repeat_interleave(times, -1)
    return functional.avg_pool2d(large, means, ceil_mode=True)
