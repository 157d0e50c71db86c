"""Penalties are numbers of one image each."""

import pytest
import torch

from losslab.losses.penalty import NoPenalty, TotalVariation


@pytest.mark.parametrize("power", [1, 2])
def test_total_variation_against_loops(power: int) -> None:
    """It is weight · (mean |∂_x|^power + mean |∂_y|^power), each mean over its own differences."""
    image = torch.rand(2, 5, 7)
    along = [abs(float(image[c, i, j + 1] - image[c, i, j])) ** power
             for c in range(2) for i in range(5) for j in range(6)]  # fmt: skip
    down = [abs(float(image[c, i + 1, j] - image[c, i, j])) ** power
            for c in range(2) for i in range(4) for j in range(7)]  # fmt: skip
    expected = 0.3 * (sum(along) / 60 + sum(down) / 56)
    torch.testing.assert_close(TotalVariation(0.3, power)(image), torch.tensor(expected))


def test_known_images() -> None:
    """Nothing for a flat image, 2 for a chessboard, and a ramp's slope, which the square punishes less than a step."""
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float().expand(1, 3, 8, 8)
    ramp = torch.linspace(0, 1, 9).expand(1, 3, 9, 9)
    step = (torch.arange(9) > 3).float().expand(1, 3, 9, 9)
    for power in (1, 2):
        penalty = TotalVariation(1, power)
        assert penalty(torch.full((1, 3, 8, 8), 0.7)) == 0
        assert penalty(board) == 2
        torch.testing.assert_close(penalty(ramp), torch.tensor([0.125**power]))
        torch.testing.assert_close(penalty(step), torch.tensor([0.125]))


@pytest.mark.parametrize("penalty", [NoPenalty(), TotalVariation()])
def test_one_number_an_image(penalty: NoPenalty | TotalVariation) -> None:
    """Whatever the leading axes are, and with a finite gradient for flat images."""
    images = torch.rand(2, 5, 3, 8, 8, requires_grad=True)
    each = penalty(images)
    assert each.shape == (2, 5)
    torch.testing.assert_close(each[1, 3], penalty(images[1, 3]))
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    (penalty(flat) + 0 * flat.sum()).sum().backward()
    assert flat.grad is not None
    assert (flat.grad == 0).all()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="weight is 0 or more, got -1"):
        TotalVariation(-1)
    with pytest.raises(ValueError, match="power is 1 or 2, got 3"):
        TotalVariation(power=3)
    with pytest.raises(ValueError, match="at least 2×2 pixels, got 1×8"):
        TotalVariation()(torch.rand(1, 3, 1, 8))
