"""The Laplacian pyramid's blurs against kornia's."""

import pytest
import torch
from kornia.filters import filter2d, gaussian_blur2d
from torch import Tensor

from losslab.losses.pixel import L1
from losslab.losses.pyramid import LaplacianPyramid

BINOMIAL = torch.tensor([1, 4, 6, 4, 1], dtype=torch.float64)


def band(image: Tensor, **options: object) -> Tensor:
    """Give the first band, in 64 bits from 32-bit taps."""
    return LaplacianPyramid(L1(), levels=1, **options).double().encode(image)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_gaussian_is_that_of_kornia(sigma: float) -> None:
    """Five taps of a true Gaussian, borders repeated, to the digits of taps in 32 bits."""
    x = torch.rand(2, 3, 13, 18, dtype=torch.float64)
    expected = x - gaussian_blur2d(x, (5, 5), (sigma, sigma), border_type="replicate")
    torch.testing.assert_close(band(x, kernel="gaussian", sigma=sigma), expected, rtol=0, atol=2e-7)


def test_binomial_is_filtered_as_by_kornia() -> None:
    """(1, 4, 6, 4, 1)/16 along both axes, borders repeated, exactly."""
    x = torch.rand(2, 3, 13, 18, dtype=torch.float64)
    expected = x - filter2d(x, (torch.outer(BINOMIAL, BINOMIAL) / 256)[None], border_type="replicate")
    torch.testing.assert_close(band(x), expected, rtol=0, atol=1e-12)
