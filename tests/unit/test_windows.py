"""Windows shows its loss each window as an image of its own."""

import pytest
import torch

from losslab.losses.pixel import L1
from losslab.losses.pyramid import AveragePyramid
from losslab.losses.swd import PatchSWD
from losslab.losses.windows import Windows


def test_is_the_mean_over_windows_cut_by_hand() -> None:
    """Windows start at multiples of the stride, and the last ones end inside the image."""
    x, y = torch.rand(2, 3, 20, 27), torch.rand(2, 3, 20, 27)
    inner = PatchSWD(3, directions=5)
    by_hand = [
        inner(x[..., top : top + 8, left : left + 8], y[..., top : top + 8, left : left + 8])
        for top in (0, 5, 10)
        for left in (0, 5, 10, 15)
    ]
    torch.testing.assert_close(Windows(inner, 8, 5)(x, y), torch.stack(by_hand).mean(0))


def test_parts_of_the_loss_stay_apart() -> None:
    """A loss of several terms keeps their names and values."""
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss = Windows(AveragePyramid(L1(), 1), 8, 8)
    found = loss.parts(loss.encode(x), loss.encode(y))
    assert list(found) == ["level0", "level1"]
    torch.testing.assert_close(found["level0"], L1()(x, y))  # windows that tile an image weigh each pixel alike


def test_windows_of_another_layout_are_other_images() -> None:
    """As many windows, in other rows and columns: encodings of images of different sizes never compare."""
    loss = Windows(L1(), 8, 8)
    with pytest.raises(ValueError, match="different sizes"):
        loss.compare(loss.encode(torch.rand(3, 8, 16)), loss.encode(torch.rand(3, 16, 8)))
    with pytest.raises(ValueError, match="different sizes"):  # one row of windows is no batch of one
        loss.compare(loss.encode(torch.rand(3, 8, 16)), loss.encode(torch.rand(3, 16, 16)))


def test_the_loss_inside_is_drawn_anew() -> None:
    loss = Windows(PatchSWD(3, directions=2, redraw_every=1), 8, 8)
    old = loss.encode(torch.rand(3, 8, 8))
    loss.draw(1)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(torch.rand(3, 8, 8)))


def test_bad_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="window is at least the 7 pixels that patchswd needs, got 6"):
        Windows(PatchSWD(), 6)
    assert Windows(PatchSWD(directions=2), 7).min_side == 7
    with pytest.raises(ValueError, match="stride is 1 or more pixels, got 0"):
        Windows(L1(), stride=0)
