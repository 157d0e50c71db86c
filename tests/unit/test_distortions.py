"""Each distortion grows with its strength, and what is random in it does not depend on the strength."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from losslab import images
from losslab.data.distortions import FAMILIES, LEVELS, distorted, known, warp
from losslab.data.known_order import detailed_crops
from losslab.seeds import generator


@pytest.fixture(scope="module")
def crops() -> Tensor:
    return images.to_float(detailed_crops(64, (64, 128), 12, "val", 0))


def steps(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference, in steps of 8 bits."""
    return 255 * (images.to_bytes(a) / 255.0 - images.to_bytes(b) / 255.0).square().mean((-3, -2, -1)).sqrt()


def ladder(crops: Tensor, family: str) -> Tensor:
    """Distort each crop at each level, (levels, crops, 3, H, W)."""
    return torch.stack(
        [
            torch.stack([distorted(crop, family, level, generator(number)) for number, crop in enumerate(crops)])
            for level in LEVELS
        ]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_are_an_order_in_every_picture(crops: Tensor, family: str) -> None:
    """Each level is further off than the one before, the first by a step of 8 bits at most, the second visibly."""
    found = ladder(crops, family)
    assert found.min() >= 0
    assert found.max() <= 1
    off = steps(found, crops)
    assert (off[0] <= 1).all()
    assert (off[1] > 1.5).all()
    for weaker, stronger in pairwise(off):
        assert (stronger > 1.02 * weaker).all()
        assert stronger.mean() > 1.15 * weaker.mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_distortions_are_pure(crops: Tensor, family: str) -> None:
    """The same generator gives the same picture, and the original is left alone."""
    crop = crops[0].clone()
    first, again = (distorted(crop, family, "strong", generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(crop, crops[0])
    other = distorted(crop, family, "strong", generator(4))
    assert torch.equal(first, other) == (family not in ("noise", "tint", "warp", "blotches"))


def test_additive_ones_are_one_field_scaled() -> None:
    """What they add is the same thing at every strength, and a tint leaves the mean of the channels."""
    grey = torch.full((3, 48, 64), 0.5)
    for family in ("noise", "blotches", "tint", "checkerboard"):
        distort = FAMILIES[family].distort
        one, three = (distort(grey, strength, generator(0)) - grey for strength in (0.1, 0.3))
        torch.testing.assert_close(three, 3 * one)
    assert FAMILIES["noise"].distort(grey, 0.1, generator(0)).std() == pytest.approx(0.1, rel=0.1)
    blotched = FAMILIES["blotches"].distort(grey, 0.1, generator(0)) - grey
    assert blotched.std() == pytest.approx(0.1, rel=0.01)
    assert blotched.diff(dim=-1).abs().max() < 0.1
    tinted = FAMILIES["tint"].distort(grey, 0.1, generator(0)) - grey
    assert tinted.mean(0).abs().max() < 1e-6
    assert tinted.square().sum(0).sqrt() == pytest.approx(torch.full((48, 64), 0.1 * 1.5**0.5))
    board = FAMILIES["checkerboard"].distort(grey, 0.1, generator(0)) - grey
    torch.testing.assert_close(board[:, 1:], -board[:, :-1])
    torch.testing.assert_close(board[:, :, 1:], -board[:, :, :-1])


def test_warp_moves_by_its_strength() -> None:
    """On a ramp, whose values are places, what has moved is the same field at every strength, of its length."""
    side = 64
    ramp = torch.stack([torch.arange(side)[:, None].expand(side, side), torch.arange(side).expand(side, side)])
    ramp = torch.cat([ramp, ramp[:1]]) / (side - 1.0)
    inside = slice(12, -12)  # beyond the border the ramp turns back
    one, two = ((warp(ramp, strength, generator(1)) - ramp)[:2, inside, inside] * (side - 1) for strength in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one, atol=1e-3, rtol=0)
    lengths = [
        (warp(ramp, 1.0, generator(seed)) - ramp)[:2, inside, inside].mul(side - 1).square().sum(0).mean().sqrt()
        for seed in range(20)
    ]
    assert torch.stack(lengths).mean() == pytest.approx(1, rel=0.1)
    assert one.diff(dim=-1).abs().max() < 0.3  # smooth


def test_colours_and_sides() -> None:
    """Brightness goes where there is room, contrast keeps the mean, and pictures may have any sides."""
    for value, sign in ((0.2, 1), (0.8, -1)):
        plain = torch.full((3, 8, 8), value)
        assert FAMILIES["brightness"].distort(plain, 0.1, generator(0)) == pytest.approx(plain + sign * 0.1)
    picture = torch.rand(3, 24, 40)
    flat = FAMILIES["contrast"].distort(picture, 0.25, generator(0))
    assert flat.mean() == pytest.approx(picture.mean())
    assert flat.std() == pytest.approx(0.75 * picture.std())
    for family in FAMILIES:
        assert distorted(picture, family, "clear", generator(0)).shape == picture.shape


def test_superres_loses_what_the_small_picture_can_not_hold() -> None:
    """Factor 1 changes nothing; stripes a pixel wide turn grey at factor 2."""
    stripes = (torch.arange(32) % 2.0).expand(3, 32, 32)
    assert torch.equal(FAMILIES["superres"].distort(stripes, 1, generator(0)), stripes)
    for picture in (stripes, stripes.transpose(1, 2)):
        found = FAMILIES["superres"].distort(picture, 2, generator(0))[:, 4:-4, 4:-4]
        assert found == pytest.approx(torch.full_like(found, 0.5), abs=0.03)


def test_names_of_families() -> None:
    assert known(["jpeg", "noise"]) == ("jpeg", "noise")
    for wrong, message in ((["nois"], "did you mean noise"), ([], r"got \[\]"), (["blur", "blur"], "each once")):
        with pytest.raises(ValueError, match=message):
            known(wrong)
