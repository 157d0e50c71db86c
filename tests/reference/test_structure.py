"""SSIM, MS-SSIM, slopes, total variation and Charbonnier against kornia, torchmetrics, piq and scikit-image."""

from functools import partial

import kornia
import numpy as np
import piq
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure, total_variation

from losslab.losses.gradient import Gradient
from losslab.losses.penalty import TotalVariation
from losslab.losses.pixel import Lp
from losslab.losses.ssim import MSSSIM, SSIM

exactly = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


def pair(height: int, width: int, count: int = 2) -> tuple[Tensor, Tensor]:
    """Give smooth images and what noise, blur and a shift of brightness make of them, in 64 bits."""
    smooth = functional.avg_pool2d(torch.rand(count, 3, height + 4, width + 4).double(), 5, 1)
    x = (4 * (smooth - 0.5) + 0.5).clamp(0, 1)
    return x, (0.8 * x + 0.1 + 0.05 * torch.randn_like(x)).clamp(0, 1)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (40, 33)])
def test_ssim(height: int, width: int) -> None:
    """Four packages agree with it to 1e-10 of float64, where each leaves the border out."""
    x, y = pair(height, width)
    found = 1 - 2 * SSIM()(x, y)
    exactly(found, piq.ssim(x, y, downsample=False, reduction="none"))
    valid = kornia.metrics.ssim(x, y, 11, eps=0.0, padding="valid")
    exactly(found, valid.mean(dim=(1, 2, 3)))
    whole = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none", return_full_image=True)[1]
    inner = torch.as_tensor(whole)[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    exactly(found, inner)
    for one, other, value in zip(x.numpy(), y.numpy(), found, strict=True):
        expected = structural_similarity(one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                         data_range=1.0, channel_axis=0)  # fmt: skip
        np.testing.assert_allclose(float(value), expected, rtol=1e-10)


def test_ssim_in_32_bits() -> None:
    """Single precision costs no more than 1e-6 of the range."""
    x, y = pair(48, 48)
    torch.testing.assert_close(SSIM()(x.float(), y.float()).double(), SSIM()(x, y), rtol=0, atol=1e-6)
    torch.testing.assert_close(MSSSIM(3)(x.float(), y.float()).double(), MSSSIM(3)(x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(176, 192), (161, 161), (165, 165)])
def test_ms_ssim(height: int, width: int) -> None:
    """As in piq, to 1e-10 of float64; images are turned, since piq adds to odd sizes at the other end."""
    x, y = pair(height, width, 1)
    expected = piq.multi_scale_ssim(x.flip(-2, -1), y.flip(-2, -1), reduction="none")
    exactly(1 - 2 * MSSSIM()(x, y), expected)


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_ms_ssim_of_fewer_scales(scales: int) -> None:
    """As in piq, which divides the weights that it is given by their sum: negative terms count as zero in both."""
    x, y = pair(48, 64)
    y[1] = 1 - y[1]
    weights = torch.tensor([0.0448, 0.2856, 0.3001][:scales]).double()
    expected = piq.multi_scale_ssim(x, y, reduction="none", scale_weights=weights)
    assert expected[1] == 0
    torch.testing.assert_close(1 - 2 * MSSSIM(scales)(x, y), expected, rtol=1e-7, atol=1e-12)  # float32 weights above


def test_sobel_slopes() -> None:
    """As kornia's normalised Sobel filter, away from its padded border, to 1e-12."""
    x, y = pair(20, 25)
    a, b = (kornia.filters.spatial_gradient(image, "sobel", normalized=True)[..., 1:-1, 1:-1] for image in (x, y))
    torch.testing.assert_close(Gradient("sobel")(x, y), (a - b).abs().mean(dim=(1, 2, 3, 4)), rtol=1e-12, atol=0)
    raw = kornia.filters.spatial_gradient(x, "sobel", normalized=False)[..., 1:-1, 1:-1]
    for axis, slope in enumerate(Gradient("sobel", normalized=False).encode(x)):
        torch.testing.assert_close(slope, raw[:, :, axis], rtol=1e-12, atol=1e-14)


def test_prewitt_slopes() -> None:
    """As scikit-image's Prewitt filter, which answers 2 to a ramp of 1 a pixel, inside its padded border, to 1e-12."""
    from skimage.filters import prewitt_h, prewitt_v

    x, _ = pair(20, 25, 1)
    along, across = Gradient("prewitt").encode(x)
    for channel in range(3):
        image = x[0, channel].numpy()
        np.testing.assert_allclose(2 * along[0, channel], prewitt_v(image)[1:-1, 1:-1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(2 * across[0, channel], prewitt_h(image)[1:-1, 1:-1], rtol=1e-12, atol=1e-14)


def test_total_variation() -> None:
    """As kornia's mean over each axis' own differences, and torchmetrics' sums of them, to 1e-12."""
    x, _ = pair(12, 17)
    found = TotalVariation(1)(x)
    torch.testing.assert_close(found, kornia.losses.total_variation(x, "mean").mean(1), rtol=1e-12, atol=0)
    square = x[..., :12]
    sums = total_variation(square, reduction="none") / (3 * 12 * 11)
    torch.testing.assert_close(TotalVariation(1)(square), sums, rtol=1e-12, atol=0)


def test_charbonnier() -> None:
    """As kornia's Charbonnier loss, which has eps = 1, to 1e-12."""
    x, y = pair(12, 17)
    expected = kornia.losses.charbonnier_loss(x, y, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(Lp(1, 1)(x, y), expected, rtol=1e-12, atol=0)
