"""Slopes are those of the named filters, for each channel or for their mean."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.losses.gradient import Gradient

KERNELS = {
    "forward": [[-1.0, 1.0]],
    "prewitt": [[-1.0, 0.0, 1.0]] * 3,
    "sobel": [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]],
}


def by_convolution(operator: str, image: Tensor) -> tuple[Tensor, Tensor]:
    kernel = torch.tensor(KERNELS[operator])
    planes = image.flatten(0, 1)[:, None]
    along, across = (functional.conv2d(planes, one[None, None]).unflatten(0, image.shape[:2])[:, :, 0]
                     for one in (kernel, kernel.T))  # fmt: skip
    return along, across


@pytest.mark.parametrize("operator", KERNELS)
@pytest.mark.parametrize("gray", [True, False])
def test_is_half_the_sum_of_both_slopes(operator: str, gray: bool) -> None:
    """½ (mean |Δg_x| + mean |Δg_y|), where the filters lie inside the image, with whole-number filters."""
    x, y = torch.rand(2, 3, 9, 12), torch.rand(2, 3, 9, 12)
    p, q = ((image.mean(1, keepdim=True) if gray else image) for image in (x, y))
    slopes = zip(by_convolution(operator, p), by_convolution(operator, q), strict=True)
    expected = 0.5 * sum((a - b).abs().mean(dim=(1, 2, 3)) for a, b in slopes)
    found = Gradient(operator, gray=gray, normalized=False)(x, y)
    torch.testing.assert_close(found, torch.as_tensor(expected))


@pytest.mark.parametrize(("operator", "raw"), [("forward", 1.0), ("prewitt", 6.0), ("sobel", 8.0)])
def test_a_ramp_answers_its_slope(operator: str, raw: float) -> None:
    """Normalised filters answer 1 to a ramp of 1 a pixel, along one axis only; the others 6 and 8."""
    ramp = torch.arange(10.0).expand(1, 3, 10, 10) / 10
    for normalized, answer in ((True, 0.1), (False, 0.1 * raw)):
        loss = Gradient(operator, normalized=normalized)
        along, across = loss.encode(ramp)
        torch.testing.assert_close(along, torch.full_like(along, answer))
        torch.testing.assert_close(across, torch.zeros_like(across))
        turned = loss.encode(ramp.mT)
        torch.testing.assert_close(turned[1], along.mT)
        torch.testing.assert_close(loss(ramp, torch.zeros_like(ramp)), torch.tensor([answer / 2]))


def test_gray_sees_no_colour() -> None:
    """Swapped channels have one mean."""
    x = torch.rand(1, 3, 16, 16)
    assert Gradient(gray=True)(x, x.flip(1)).abs().max() < 1e-6
    assert (Gradient()(x, x.flip(1)) > 0.1).all()


def test_borders_are_left_out() -> None:
    """No pixel beyond the border is made up."""
    assert [tuple(one.shape[-2:]) for one in Gradient().encode(torch.rand(1, 3, 6, 8))] == [(6, 7), (5, 8)]
    assert {tuple(one.shape[-2:]) for one in Gradient("sobel").encode(torch.rand(1, 3, 6, 8))} == {(4, 6)}


@pytest.mark.parametrize(("operator", "side"), [("forward", 2), ("prewitt", 3), ("sobel", 3)])
def test_smallest_side_holds_the_filter(operator: str, side: int) -> None:
    """At min_side a filter fits once at least; a pixel less is refused, where it would not."""
    loss = Gradient(operator)
    assert all(slope.numel() > 0 for slope in loss.encode(torch.rand(1, 1, side, side)))
    with pytest.raises(ValueError, match=f"at least {side}×{side} pixels"):
        loss.encode(torch.rand(1, 1, side, side - 1))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="'forward', 'prewitt' or 'sobel', got 'roberts'"):
        Gradient("roberts")
