"""What there is to see of generalized image means: strips with a row for each set, zooms, and an animation."""

import io
from collections.abc import Sequence

import torch
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional

from losslab import images
from losslab.metrics.between import nearest
from losslab.types import Bytes, Pictures

SHOWN_SETS, SHOWN_INPUTS = 12, 8
"""Rows of a picture, and inputs in a row."""
ZOOMED_SETS, ZOOM = 4, 4
"""Rows of the zooms, and how many times larger a pixel is."""
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 100, 1500
BORDER = 2
"""White pixels around each picture."""


def strip(found: Tensor) -> Bytes:
    """Lay images (D, S, C, H, W) out with a row for each of the first sets and a column for each draw."""
    return images.grid([found[:, :SHOWN_SETS].transpose(0, 1).flatten(0, 1)], len(found), BORDER)


def inputs(pictures: Pictures, sizes: Sequence[int]) -> Bytes:
    """Lay pictures out with a row for each of the first sets."""
    columns = min(SHOWN_INPUTS, max(sizes))
    rows = []
    for some in pictures.split([*sizes])[:SHOWN_SETS]:
        shown = some[:columns]
        rows += [shown, shown.new_ones(columns - len(shown), *shown.shape[1:])]
    return images.grid([torch.cat(rows)], columns, BORDER)


def zooms(start: Tensor, found: Tensor, pictures: Pictures, sizes: Sequence[int]) -> Bytes:
    """Show the middle of the first sets enlarged: the input that is nearest to the result, the start, and the results.

    Args:
        start: (S, C, H, W).
        found: (D, S, C, H, W).
        pictures: (N, C, H, W), those of a set side by side.
        sizes: pictures in each set.
    """
    rows = []
    for number, some in enumerate(pictures.split([*sizes])[:ZOOMED_SETS]):
        near = min(some, key=lambda one: float(nearest(found[0, number], one[None])))
        rows += [near, start[number], *found[:, number]]
    height, width = (max(1, side // ZOOM) for side in start.shape[-2:])
    top, left = ((side - small) // 2 for side, small in zip(start.shape[-2:], (height, width), strict=True))
    cut = torch.stack(rows)[..., top : top + height, left : left + width]
    return images.grid([functional.interpolate(cut, scale_factor=ZOOM, mode="nearest")], 2 + len(found), BORDER)


def animation(frames: Sequence[Bytes]) -> bytes:
    """Write frames (3, H, W) as a GIF that starts anew, and stays on the last frame for a while."""
    pictures = [Picture.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    file = io.BytesIO()
    durations = [FRAME_MILLISECONDS] * (len(pictures) - 1) + [LAST_FRAME_MILLISECONDS]
    pictures[0].save(file, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return file.getvalue()


def frame_steps(total: int, count: int) -> set[int]:
    """Choose the steps after which an animation has a frame: many at the beginning, where most happens."""
    return {
        0,
        total,
        *torch.logspace(0, torch.tensor(float(max(total, 1))).log10().item(), count).round().int().tolist(),
    }
