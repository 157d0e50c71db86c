"""The file in which generalized image means are kept beside their sets, and what can be told from it later."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab import images
from losslab.data.sets import SetData
from losslab.losses.base import Loss
from losslab.losses.sets import SetDistances
from losslab.types import Found

NAME = "images.npz"


def packed(start: Found, found: Tensor, data: SetData) -> bytes:
    """Write start (S, C, H, W) and results (D, S, C, H, W), all in [0, 1], with the pictures of the sets."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        start=start.float().numpy(),
        found=found.float().numpy(),
        pictures=data.sets.pictures.numpy(),
        sizes=np.array(data.sets.sizes),
        names=np.array(data.sets.names),
        weights=data.weights.numpy(),
    )
    return file.getvalue()


@torch.no_grad()
def measured(stored: Path, loss: Loss[Any]) -> dict[str, float]:
    """Measure what `packed` has kept under any loss, in draw 0 of what is random in it.

    Args:
        stored: the file.
        loss: to measure with.

    Returns:
        The loss of `start` and of `end`, means over sets and draws.
    """
    loss.draw(0)
    with np.load(stored) as held:
        start, found, pictures, weights = (
            torch.from_numpy(held[key]) for key in ("start", "found", "pictures", "weights")
        )
        sets = SetDistances(loss, images.to_float(pictures), held["sizes"].tolist(), weights)
    which = range(len(start))
    ends: list[Tensor] = [sets(one, which).mean() for one in found]
    return {"start": float(sets(start, which).mean()), "end": float(torch.stack(ends).mean())}
