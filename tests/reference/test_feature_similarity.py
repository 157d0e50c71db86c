"""FSIMc against piq."""

import numpy as np
import piq
import pytest
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional

from losslab.losses import fsim
from losslab.losses.fsim import FSIM

PIQ_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def pairs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Give a photograph beside what noise, blur, mirroring, a negative and an unlike picture make of it."""
    photo = torch.from_numpy(data.astronaut().astype(np.float64) / 255).permute(2, 0, 1)
    x = photo[None, :, 60 : 60 + height, 90 : 90 + width]
    blurred = functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    others = [(x + 0.1 * torch.randn_like(x)).clamp(0, 1), blurred, x.flip(-1), 1 - x, torch.rand_like(x)]
    return x.expand(5, -1, -1, -1), torch.cat(others)


@pytest.mark.parametrize(("size", "count"), [((41, 53), 5), ((63, 63), 5), ((384, 387), 2)], ids=str)
def test_fsim_is_that_of_piq(size: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5, with its YIQ and absolute values, on images that are transposed for it; the larger ones are halved.

    Odd numbers of pixels have one median, also in piq. The rest is that it adds 2e-16 where the authors add 1e-4.
    """
    monkeypatch.setattr(fsim, "YIQ", PIQ_YIQ)
    x, y = (images[:count] for images in pairs(*size))
    found = FSIM(negative="absolute")(x, y)
    torch.testing.assert_close(1 - found, piq.fsim(x.mT, y.mT, reduction="none"), rtol=0, atol=1e-5)


def test_defaults_are_near_those_of_piq() -> None:
    """What is the authors' and not piq's shows in the third digit at most: conversion, medians, opposite hues."""
    x, y = pairs(64, 80)
    found = FSIM()(x, y)
    torch.testing.assert_close(1 - found, piq.fsim(x, y, reduction="none"), rtol=0, atol=5e-3)
    torch.testing.assert_close((1 - found)[1], piq.fsim(x, y, reduction="none")[1], rtol=0, atol=1e-4)
