"""Several draws of one loss side by side."""

import copy
from typing import Any

import torch

from losslab.losses.base import Loss
from losslab.seeds import generator


def copies(loss: Loss[Any], draws: int) -> list[Loss[Any]]:
    """Give a copy of a loss for each draw, in its draw.

    Args:
        loss: of three channels; it is left in the last draw.
        draws: at least 2.

    Raises:
        ValueError: another draw changes nothing.
    """
    found = []
    for number in range(draws):
        loss.draw(number)
        found.append(copy.deepcopy(loss))
    side = max(16, loss.min_side)
    noise = torch.rand(2, 1, 3, side, side, generator=generator(0))
    if bool(found[0](*noise) == found[1](*noise)):
        raise ValueError(
            f"draws={draws}, but the first two of {loss.name} are the same: nothing is random in it, or redraw_every "
            "is given and is not 1"
        )
    return found
