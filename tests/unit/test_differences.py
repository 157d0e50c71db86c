"""One pass over memory gives what two operations give, with all their derivatives."""

import pytest
import torch
from torch import Tensor

from losslab.differences import NORMS, differences
from losslab.losses.joining import joined

SHAPES = [((3, 1, 4, 5, 6), (3, 2, 4, 5, 6)), ((4, 5, 6), (3, 4, 5, 6)), ((2, 7), (1, 7)), ((), (3,)), ((), ())]


def plain(a: Tensor, b: Tensor, norm: str) -> Tensor:
    return (a - b).abs() if norm == "l1" else (a - b).square()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_two_operations(norm: str, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> None:
    """Bit for bit, value and gradient, whatever broadcasts."""
    a, b = (torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)
    found, wanted = (function(a, b, norm) for function in (differences, plain))
    assert torch.equal(found, wanted)
    weights = torch.randn(found.shape, dtype=dtype)
    own, theirs = (torch.autograd.grad((one * weights).sum(), (a, b)) for one in (found, wanted))
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side_by_side", [(True, True), (True, False), (False, True)])
def test_any_layout(norm: str, side_by_side: tuple[bool, bool]) -> None:
    """Channels side by side stay so, also in gradients."""
    layouts = [torch.channels_last if one else torch.contiguous_format for one in side_by_side]
    a, b = (torch.randn(2, 3, 5, 5).to(memory_format=layout).requires_grad_() for layout in layouts)
    found = differences(a, b, norm)
    assert torch.equal(found, plain(a, b, norm))
    (own,) = torch.autograd.grad(found.sum(), a)
    (theirs,) = torch.autograd.grad(plain(a, b, norm).sum(), a)
    torch.testing.assert_close(own, theirs)
    if all(side_by_side):
        assert own.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives(norm: str) -> None:
    """Penalties on gradients can be trained with."""
    a, b = (torch.randn(3, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradgradcheck(lambda p, q: differences(p, q, norm), (a, b))


@pytest.mark.parametrize("norm", NORMS)
def test_at_equal_numbers_and_at_none(norm: str) -> None:
    """No slope where a = b; what is no number stays none."""
    a = torch.tensor([0.0, 1.0, 1e-30, torch.nan, torch.inf], requires_grad=True)
    found = differences(a, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]), norm)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert gradient[:2].tolist() == [0, 0]
    assert found[2].item() == pytest.approx(1e-30 if norm == "l1" else 0)
    assert gradient[2].item() == pytest.approx(1.0 if norm == "l1" else 2e-30)
    assert found[3].isnan()
    assert found[4].isinf()


def test_joined_encodings_keep_their_layout() -> None:
    """Rows beside rows, channels beside channels; what has one channel or one place is both."""
    for layout in (torch.contiguous_format, torch.channels_last):
        parts = [torch.randn(2, 3, 4, 5).to(memory_format=layout) for _ in range(2)]
        whole = joined(parts, 4)
        assert isinstance(whole, Tensor)
        assert torch.equal(whole, torch.cat(parts))
        assert whole.is_contiguous(memory_format=layout)
    for shape in ((2, 1, 4, 5), (2, 3, 1, 1), (2, 3)):
        assert joined([torch.randn(shape)], 2).is_contiguous()  # type: ignore[union-attr]
