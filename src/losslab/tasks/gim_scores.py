"""How good generalized image means are, set by set and draw by draw."""

import math
from typing import Any

import pandas as pd
from torch import Tensor

from losslab.data.sets import SetData
from losslab.metrics.between import colour_error, ghosting, nearest, sharpness, variation
from losslab.types import Found, Pictures

LEAST_SHARPNESS = 1e-6
"""Of which the logarithm is still taken."""


def scores(found: Tensor, pictures: Pictures, weights: Tensor) -> dict[str, float]:
    """Judge one image (C, H, W) by its inputs (K, C, H, W); `losslab.metrics.between` explains each number."""
    sharp = sharpness(found, pictures)
    return {
        "sharpness": sharp,
        "sharpness_error": abs(math.log(max(sharp, LEAST_SHARPNESS))),
        "variation": variation(found, pictures),
        "colour_error": colour_error(found, pictures, weights),
        "ghosting": ghosting(found, pictures, weights),
        "nearest": math.sqrt(float(nearest(found, pictures))),
    }


def table(found: Tensor, begun: Found, pictures: Pictures, data: SetData, first: Tensor, last: Tensor) -> pd.DataFrame:
    """Judge every image, a line each, set after set within draw after draw.

    Args:
        found: the images, (D, S, C, H, W) in [0, 1].
        begun: what they began as, (S, C, H, W).
        pictures: of all sets, (N, C, H, W).
        data: the sets.
        first: the loss of the start of each, (D, S).
        last: that of the images.
    """
    sizes = [*data.sets.sizes]
    own, weights = pictures.split(sizes), data.weights.to(found.device).split(sizes)
    lines = [
        {
            "set": data.sets.names[number],
            "draw": draw,
            **scores(found[draw, number], own[number], weights[number]),
            "start_sharpness": sharpness(begun[number], own[number]),
            "loss_start": float(first[draw, number]),
            "loss_end": float(last[draw, number]),
        }
        for draw in range(len(found))
        for number in range(len(sizes))
    ]
    return pd.DataFrame(lines)


def means(lines: pd.DataFrame) -> dict[str, Any]:
    """Give the means over sets and draws, and the spread between draws where there are several."""
    found = lines.drop(columns=["set", "draw"]).mean()
    row: dict[str, Any] = {str(name): None if math.isnan(value) else float(value) for name, value in found.items()}
    if lines["draw"].nunique() > 1:
        spread = lines.groupby("draw")[["sharpness", "colour_error"]].mean().std()
        row |= {f"{name}_sd_of_draws": float(value) for name, value in spread.items()}
    return row
