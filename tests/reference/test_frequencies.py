"""Fourier losses against whole transforms with masks, by numpy and by torch as the blog writes them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from losslab.losses.fourier import Fourier


def mask(height: int, width: int, band: str, cut: int, *, centred: bool) -> np.ndarray:
    """Mark a band in the whole transform, by numpy's own frequencies or by slices."""
    down, right = (np.abs(np.fft.fftfreq(size) * size).round() for size in (height, width))
    chosen = np.zeros((height, width), dtype=bool)
    if centred:
        chosen = np.logical_and.outer(down < cut, right < cut)
        return chosen if band == "low" else ~chosen
    chosen[(slice(cut) if band == "low" else slice(cut, None),) * 2] = True
    return chosen if band != "all" else np.ones_like(chosen)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (25, 30), (31, 20), (21, 27)])
@pytest.mark.parametrize("form", ["complex", "real_imag"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("scale", ["ortho", "backward"])
def test_numpy(height: int, width: int, form: str, norm: str, scale: str) -> None:
    """The half transform with weights is the whole one with a mask, to 1e-10 of float64, in every band."""
    x, y = torch.rand(2, 3, height, width).double(), torch.rand(2, 3, height, width).double()
    difference = np.fft.fft2((x - y).numpy()) / (math.sqrt(height * width) if scale == "ortho" else 1)
    parts = np.stack([difference.real, difference.imag])
    sizes = np.abs(difference)[None] if form == "complex" else np.abs(parts)
    sizes = (sizes if norm == "l1" else sizes**2).mean(0)
    for band, cut, centred in (("all", 10, False), ("low", 10, False), ("low", 10, True), ("high", 10, False),
                               ("high", 10, True), ("low", 17, False), ("high", 1, True)):  # fmt: skip
        expected = sizes[..., mask(height, width, band, cut, centred=centred)].mean(axis=(1, 2))
        found = Fourier(form, norm, band, cut, centred=centred, scale=scale)(x, y)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, err_msg=f"{band} {cut} {centred}")


def blog(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Give the blog's five distances of two images, in its own words: whole transforms, slices, torch's losses."""
    a, b = torch.fft.fft2(x), torch.fft.fft2(y)
    p, q = (torch.cat([one.real, one.imag]) for one in (a, b))
    return {
        "fft": (a - b).abs().mean(),
        "fft2": torch.nn.functional.l1_loss(p, q),
        "fft2_l2": torch.nn.functional.mse_loss(p, q),
        "low": (a[..., :10, :10] - b[..., :10, :10]).abs().mean(),
        "high": (a[..., 10:, 10:] - b[..., 10:, 10:]).abs().mean(),
    }


def test_the_blog() -> None:
    """With scale="backward" the numbers are the blog's, in 32 bits to 1e-5."""
    x, y = torch.rand(3, 40, 37), torch.rand(3, 40, 37)
    ours = {
        "fft": Fourier(scale="backward"),
        "fft2": Fourier("real_imag", scale="backward"),
        "fft2_l2": Fourier("real_imag", "l2", scale="backward"),
        "low": Fourier(band="low", scale="backward"),
        "high": Fourier(band="high", scale="backward"),
    }
    expected = blog(x, y)
    for name, loss in ours.items():
        torch.testing.assert_close(loss(x, y), expected[name], rtol=1e-5, atol=0, msg=name)
