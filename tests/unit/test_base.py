"""What every loss inherits: which images and encodings it refuses, and how batches meet."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.losses.base import Loss, same_draw
from losslab.losses.gradient import Gradient
from losslab.types import Distance, Drawn, Image


class Nested(Loss[dict[str, Any]]):
    """L1 of an image and of every second pixel of it, in an encoding with two parts."""

    def embed(self, images: Image) -> dict[str, Any]:
        """Keep both."""
        return {"whole": images, "coarse": (images[..., ::2, ::2],)}

    def terms(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Distance]:
        """Give both distances."""
        pairs = {"whole": (a["whole"], b["whole"]), "coarse": (a["coarse"][0], b["coarse"][0])}
        return {name: (p - q).abs().mean(dim=(-3, -2, -1)) for name, (p, q) in pairs.items()}


class Products(Loss[Tensor]):
    """Products of rows, within an image and then of the first image with the second: autocast would round both."""

    def embed(self, images: Image) -> Tensor:
        """Multiply the rows of each channel with each other."""
        return images @ images.mT

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give a number that is another one for the two the other way round."""
        return {"there": (a @ b.mT).mean(dim=(-3, -2, -1)), "own": -b.square().mean(dim=(-3, -2, -1))}


def test_each_part_of_an_encoding_is_checked() -> None:
    """One part of another size is enough, be it the first or the last; so is a part too many."""
    loss, other = Nested(), {"whole": torch.rand(1, 3, 1, 8), "coarse": (torch.rand(1, 3, 4, 1),)}
    whole = loss.encode(torch.rand(2, 3, 8, 8))
    for name, part in other.items():
        with pytest.raises(ValueError, match="different sizes or losses"):
            loss.compare(whole, {**whole, name: part})
    with pytest.raises(ValueError, match="encodings of two losses: 2 and 1 parts"):
        loss.compare(whole, {"whole": whole["whole"]})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((4,), (1,), (4,)), ((1,), (4,), (4,)), ((2, 3), (3,), (2, 3)), ((3,), (2, 3), (2, 3)), ((2, 1), (3,), (2, 3))],
)
def test_batches_broadcast_from_the_right(first: tuple[int, ...], second: tuple[int, ...], expected: Any) -> None:
    """N against 1 in either order, and batches with another number of axes, as torch has it."""
    loss, x, y = Nested(), torch.rand(*first, 3, 8, 8), torch.rand(*second, 3, 8, 8)
    x_all, y_all = (images.expand(*expected, 3, 8, 8) for images in (x, y))
    torch.testing.assert_close(loss(x, y), loss(x_all, y_all))
    assert loss(x, y).shape == expected


@pytest.mark.parametrize(("first", "second"), [((2, 3), (2,)), ((2,), (2, 3)), ((2, 3), (4, 3)), ((2,), (3,))])
def test_batches_that_do_not_broadcast_are_refused(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="compares N images with N or with 1"):
        Nested()(torch.rand(*first, 3, 8, 8), torch.rand(*second, 3, 8, 8))


def test_only_numbers_of_its_own_decide_where_a_loss_is() -> None:
    """A counter has no precision; a parameter or a buffer that has one decides."""
    x = torch.rand(1, 3, 8, 8)
    for name, own in {"buffer": torch.zeros(1), "parameter": nn.Parameter(torch.zeros(1))}.items():
        loss = Nested()
        loss.register_buffer("counter", torch.zeros((), dtype=torch.long))
        assert loss(x, x) == 0
        if isinstance(own, nn.Parameter):
            loss.register_parameter(name, own)
        else:
            loss.register_buffer(name, own)
        assert loss(x, x) == 0
        with pytest.raises(ValueError, match=r"nested is torch.float32 on cpu, the images are torch.float64 on cpu"):
            loss(x.double(), x.double())
        with pytest.raises(ValueError, match="nested is torch.float32 on meta, the images are torch.float32 on cpu"):
            loss.to("meta").encode(x)


def test_a_wrong_range_is_told_before_a_wrong_place() -> None:
    """Bytes, or NaN, in a loss of another type get the sentence about themselves."""
    loss = Nested()
    loss.register_buffer("own", torch.zeros(1))
    for images, message in ((torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
                            (torch.full((1, 3, 8, 8), torch.nan).double(), "NaN")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            loss.encode(images)


def test_same_draw_keeps_the_order() -> None:
    """The first encoding stays the first: a loss need not be symmetric."""
    first, second = (Drawn(torch.tensor(value), "seed 0, draw 1") for value in (1, 2))
    found: tuple[Tensor, Tensor] = same_draw(first, second)
    assert [int(one) for one in found] == [1, 2]


def test_forward_is_of_the_first_to_the_second() -> None:
    """Nothing but the order tells the candidate from the reference."""
    loss, x, y = Products(), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert torch.equal(loss(x, y), loss.compare(loss.encode(x), loss.encode(y)))
    assert not torch.allclose(loss(x, y), loss(y, x))


def test_autocast_rounds_neither_half() -> None:
    loss, x, y = Products(), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    a, b = loss.encode(x), loss.encode(y)
    distance = loss.compare(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss.encode(x), a)
        assert torch.equal(loss.compare(a, b), distance)


def test_channels_are_compared_before_they_are_averaged() -> None:
    """The slopes of a grey image and of a colour image's grey are of one shape; their images are not."""
    with pytest.raises(ValueError, match="images of one size"):
        Gradient(gray=True)(torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 8))


def test_half_precision_is_no_other_place() -> None:
    """Images of 16 bits are turned into the loss's type before the two are compared."""
    loss = Nested()
    loss.register_buffer("own", torch.zeros(1))
    assert loss.encode(torch.rand(1, 3, 8, 8).bfloat16())["whole"].dtype == torch.float32
