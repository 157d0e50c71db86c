"""SSIM and MS-SSIM where the answer is known, and what a target that is encoded once saves."""

import pytest
import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel2d
from torch import Tensor
from torch.nn import functional

from losslab.losses import ssim
from losslab.losses.ssim import MSSSIM, SSIM, STEEPEST, WEIGHTS


def test_flat_images_differ_in_luminance_only() -> None:
    """Without contrast, SSIM is (2ab + c1) / (a² + b² + c1)."""
    x, y = (torch.full((1, 3, 24, 24), value, dtype=torch.float64) for value in (0.2, 0.6))
    expected = 0.5 - 0.5 * (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(SSIM()(x, y), torch.tensor([expected], dtype=torch.float64), rtol=1e-9, atol=0)
    two = MSSSIM(2)(x, y)  # all structure terms are 1, so only the coarsest scale's luminance counts
    exponent = WEIGHTS[1] / (WEIGHTS[0] + WEIGHTS[1])
    torch.testing.assert_close(two, torch.tensor([0.5 - 0.5 * (1 - 2 * expected) ** exponent], dtype=torch.float64))


def test_range_is_used() -> None:
    """A negative is nearly 1, since its structure is opposite; MS-SSIM counts it as ½ and keeps a finite gradient."""
    x = torch.rand(2, 3, 64, 64)
    assert ((SSIM()(x, 1 - x) > 0.9) & (SSIM()(x, 1 - x) <= 1)).all()
    leaf = x.clone().requires_grad_()
    opposite = MSSSIM(3)(leaf, 1 - x)
    opposite.sum().backward()
    torch.testing.assert_close(opposite, torch.full((2,), 0.5))
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_channels_are_compared_one_by_one() -> None:
    """The distance of colour images is the mean over their channels, and no channel sees another."""
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    y[:, 0] = x[:, 0]
    for loss in (SSIM(), MSSSIM(3)):
        each = torch.stack([loss(x[:, [c]], y[:, [c]]) for c in range(3)])
        assert each[0].abs().max() < 1e-6 < each[1:].min()
        torch.testing.assert_close(loss(x, y), each.mean(0))


@pytest.mark.parametrize(("loss", "scales"), [(SSIM(), 1), (MSSSIM(3), 3)], ids=["ssim", "ms_ssim"])
def test_encoded_target_saves_two_blurs_of_five(loss: SSIM, scales: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the target encoded, a step blurs three maps a channel and scale."""
    maps: list[int] = []

    def counted(planes: Tensor, taps: Tensor, same: Tensor, padding: str) -> Tensor:
        maps.append(planes.shape[1])
        return filter2d_separable(planes, taps, same, padding=padding)

    monkeypatch.setattr(ssim, "filter2d_separable", counted)
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    target = loss.encode(y)
    assert sum(maps) == 2 * 3 * scales
    maps.clear()
    loss.compare(loss.encode(x), target)
    assert sum(maps) == 3 * 3 * scales


@pytest.mark.parametrize("loss", [SSIM(), MSSSIM(3)], ids=["ssim", "ms_ssim"])
def test_small_distances_keep_their_digits(loss: SSIM) -> None:
    """In 32 bits the distance of bright images with noise of 1e-3 errs by 5e-5 of it; one minus SSIM errs by 1e-2."""
    x = 0.8 + 0.1 * functional.avg_pool2d(torch.rand(2, 3, 72, 72), 9, 1)
    y = x + 1e-3 * torch.randn_like(x)
    exact = loss(x.double(), y.double())
    assert exact.max() < 0.01
    torch.testing.assert_close(loss(x, y).double(), exact, rtol=5e-5, atol=0)


def test_fewer_scales_share_the_first_weights() -> None:
    """Five have the published exponents, fewer the first of them with sum 1; one scale is SSIM."""
    assert MSSSIM().weights == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scales in (1, 2, 3, 4):
        weights = torch.tensor(MSSSIM(scales).weights)
        torch.testing.assert_close(weights, torch.tensor(WEIGHTS[:scales]) / sum(WEIGHTS[:scales]))
    x = torch.rand(2, 3, 20, 20)
    y = 0.7 * x + 0.3 * torch.rand(2, 3, 20, 20)
    torch.testing.assert_close(MSSSIM(1)(x, y), SSIM()(x, y))


def test_odd_sizes_repeat_the_last_row_and_column() -> None:
    """As the authors' program mirrors its borders at the lower right, for each axis by itself."""
    for height, width in ((7, 8), (8, 7), (9, 7), (6, 8)):
        image = torch.rand(1, 2, height, width)
        padded = functional.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        torch.testing.assert_close(ssim._halve(image), functional.avg_pool2d(padded, 2))


@pytest.mark.parametrize(("scales", "taps", "side"), [(1, 11, 11), (3, 11, 41), (5, 11, 161), (2, 7, 13)])
def test_smallest_side_is_exact(scales: int, taps: int, side: int) -> None:
    """At min_side the coarsest scale holds one window; a pixel less, and it would hold none."""
    loss = MSSSIM(scales, taps)
    assert loss.min_side == side
    assert loss.encode(torch.rand(1, 1, side, side))[-1][1].shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"at least {side}×{side} pixels"):
        loss.encode(torch.rand(1, 1, side, side - 1))


@pytest.mark.parametrize("exponent", [*WEIGHTS, 1.0])
def test_powers_of_the_similarity(exponent: float) -> None:
    """s^w from STEEPEST on, a line from there to 0 with a finite slope, and 0 below."""
    values = [1.0, 0.9, 0.3, 1e-3, STEEPEST, STEEPEST / 4, 0.0, -1e-9, -0.5]
    similarity = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    found = 1 - ssim._power(1 - similarity, exponent)
    expected = similarity.detach().clamp(min=0) ** exponent
    expected[5] = STEEPEST**exponent / 4
    expected[6:] = 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), similarity)
    assert slope.isfinite().all()
    assert (slope[:6] > 0).all()
    assert slope.max() <= STEEPEST ** (exponent - 1) * (1 + 1e-9)
    assert (slope[7:] == 0).all()


def test_options_are_checked() -> None:
    for scales in (0, 6):
        with pytest.raises(ValueError, match=f"scales is from 1 to 5, got {scales}"):
            MSSSIM(scales)
    for kind in (SSIM, MSSSIM):
        with pytest.raises(ValueError, match="taps is an odd number of pixels, got 10"):
            kind(taps=10)
        with pytest.raises(ValueError, match="sigma, k1 and k2 are more than 0, got 0"):
            kind(sigma=0)


def test_map_shares_out_what_each_window_finds() -> None:
    """A pixel has its weight's share of each window that sees it, so the mean stays; far from a spot there is none."""
    loss, x = SSIM(), torch.rand(1, 3, 40, 44).double()
    y = x.clone()
    y[..., 12, 30] = 1 - y[..., 12, 30].round()
    found = loss.maps(loss.encode(x), loss.encode(y))
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y), rtol=1e-12, atol=0)
    assert divmod(int(found.argmax()), 44) == (12, 30)
    near = torch.zeros(40, 44, dtype=torch.bool)
    near[2:23, 20:41] = True  # windows that see the spot, and all that they see
    assert found[0, 0][~near].abs().max() < 1e-15
    taps = get_gaussian_kernel2d((11, 11), (1.5, 1.5), dtype=torch.float64)[0]
    luminance, structure = loss.window.losses(loss.encode(x), loss.encode(y))
    windows = (luminance + structure - luminance * structure).mean(1)[0] / 2
    shared = torch.zeros(40, 44, dtype=torch.float64)
    for row in range(30):
        for column in range(34):
            shared[row : row + 11, column : column + 11] += windows[row, column] * taps
    torch.testing.assert_close(found[0, 0], shared * (40 * 44) / (30 * 34), rtol=1e-9, atol=1e-15)
