"""Every loss under conf/loss keeps the protocol, and every property that its YAML declares."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.config import CONF, build, load, plain
from losslab.losses.base import Loss
from losslab.types import Drawn, Encoding, map_encoding

NAMES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
KNOWN = {"identity", "nonnegative", "symmetric", "min_side", "warmup"}
SIDE = 40  # no multiple of any window or stride
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6)  # float32, sums of some thousand terms


def settings(name: str) -> dict[str, Any]:
    loss: dict[str, Any] = plain(load(f"loss={name}"))["loss"]
    return loss


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[Loss[Any], dict[str, Any]]:
    declared = settings(request.param)
    return build(declared), declared["properties"]


def pair(count: int = 3, side: int = SIDE) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 3, side, side), torch.rand(count, 3, side, side)


def tensors(encoding: Encoding) -> list[Tensor]:
    found: list[Tensor] = []
    map_encoding(lambda tensor: found.append(tensor) or tensor, encoding)  # type: ignore[func-returns-value]
    return found


def test_declares_its_properties(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """A YAML that declares nothing, or something the battery does not know, tests nothing."""
    loss, declared = case
    assert {"identity", "nonnegative", "symmetric", "min_side"} <= declared.keys() <= KNOWN
    assert declared["min_side"] == loss.min_side


def test_identity(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    x, y = pair()
    same = loss(x, x.clone())
    if declared["identity"]:
        torch.testing.assert_close(same, torch.zeros(3), rtol=0, atol=1e-7)
    assert (loss(x, y) > 1e-4).all()  # or the zeros above would mean nothing


def test_nonnegative(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    assert not declared["nonnegative"] or (loss(*pair(8)) >= 0).all()


def test_symmetric(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    x, y = pair()
    assert torch.allclose(loss(x, y), loss(y, x), 1e-4, 1e-6) == declared["symmetric"]


def test_batch_equals_singles(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """No image sees its neighbours in the batch."""
    loss, _ = case
    x, y = pair(5)
    singles = torch.cat([loss(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    close(loss(x, y), singles)


def test_broadcasts_over_leading_axes(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """One against N, and further leading axes, are what a loop would give."""
    loss, _ = case
    x, y = pair(6)
    one = loss.encode(x[:1])
    close(loss.compare(one, loss.encode(y)), loss(x[:1].expand(6, -1, -1, -1), y))
    folded = loss(x.unflatten(0, (2, 3)), y.unflatten(0, (2, 3)))
    close(folded, loss(x, y).unflatten(0, (2, 3)))
    alone = loss(x[0], y[0])
    assert alone.shape == ()
    close(alone, loss(x, y)[0])


def test_encodings_have_the_batch_first(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Whoever keeps encodings may index them."""
    loss, _ = case
    x, y = pair(4)
    where = torch.tensor([2, 0])
    chosen = map_encoding(lambda tensor: tensor[where], loss.encode(x))
    close(loss.compare(chosen, loss.encode(y[where])), loss(x, y)[where])


def test_forward_is_compare_of_encodings(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, _ = case
    x, y = pair()
    assert torch.equal(loss(x, y), loss.compare(loss.encode(x), loss.encode(y)))


def test_parts_add_up(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, _ = case
    x, y = pair()
    a, b = loss.encode(x), loss.encode(y)
    parts = loss.parts(a, b)
    assert all(part.shape == (3,) for part in parts.values())
    close(torch.stack(list(parts.values())).sum(0), loss.compare(a, b))


def test_input_and_state_unchanged(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Encoding and comparing leave no trace on the images, the encodings, or the loss."""
    loss, _ = case
    x, y = pair()
    before = x.clone(), y.clone()
    state = [tensor.clone() for tensor in [*loss.parameters(), *loss.buffers()]]
    a, b = loss.encode(x), loss.encode(y)
    kept = [tensor.clone() for tensor in tensors(a)]
    first = loss.compare(a, b)
    assert torch.equal(first, loss.compare(a, b))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert all(torch.equal(now, then) for now, then in zip(tensors(a), kept, strict=True))
    assert all(torch.equal(now, then) for now, then in zip([*loss.parameters(), *loss.buffers()], state, strict=True))


@pytest.mark.parametrize("value", [None, 0.0, 0.5, 1.0], ids=["equal", "black", "grey", "white"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite(case: tuple[Loss[Any], dict[str, Any]], value: float | None, dtype: torch.dtype) -> None:
    """Where two images are equal, or constant, a square root or a norm would give NaN."""
    loss = copy.deepcopy(case[0]).to(dtype)
    x = (
        torch.rand(2, 3, SIDE, SIDE, dtype=dtype)
        if value is None
        else torch.full((2, 3, SIDE, SIDE), value, dtype=dtype)
    )
    for other in (x.clone(), torch.full_like(x, 0.25)):
        leaf = x.clone().requires_grad_()
        distance = loss(leaf, other)
        distance.sum().backward()
        assert distance.isfinite().all()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_gradcheck(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """The gradient is that of the value, at the smallest legal size."""
    loss, declared = case
    x, y = (image.double().requires_grad_() for image in pair(1, declared["min_side"]))
    assert torch.autograd.gradcheck(copy.deepcopy(loss).double(), (x, y), fast_mode=True)


def test_memory_format_does_not_matter(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, _ = case
    x, y = pair()
    last = loss(x.to(memory_format=torch.channels_last), y.to(memory_format=torch.channels_last))
    close(last, loss(x, y))


def test_too_small_is_refused(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    side = declared["min_side"]
    assert loss(*pair(1, side)).isfinite().all()
    if side > 1:
        with pytest.raises(ValueError, match=f"at least {side}×{side} pixels, got {side - 1}×{side}"):
            loss.encode(torch.rand(1, 3, side - 1, side))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), "uint8"),
        (torch.rand(1, 3, SIDE, SIDE) * 255, r"in \[0, 1\], got values"),
        (torch.rand(1, 3, SIDE, SIDE) * 2 - 1, r"in \[0, 1\], got values"),
        (torch.full((1, 3, SIDE, SIDE), torch.nan), "NaN or infinite"),
        (torch.rand(0, 3, SIDE, SIDE), "empty batch"),
        (torch.rand(SIDE, SIDE), r"shape \(\*, C, H, W\)"),
    ],
    ids=["bytes", "0..255", "-1..1", "nan", "empty", "flat"],
)
def test_range_contract(case: tuple[Loss[Any], dict[str, Any]], bad: Tensor, message: str) -> None:
    """An image in another range would give plausible and wrong numbers."""
    with pytest.raises(ValueError, match=message):
        case[0].encode(bad)


@pytest.mark.parametrize("name", NAMES)
def test_same_config_same_distance(name: str) -> None:
    """Two losses of one config agree bit for bit, whatever was drawn in between; a copy agrees too."""
    x, y = pair()
    first = build(settings(name))
    expected = first(x, y)
    torch.rand(7)
    assert torch.equal(build(settings(name))(x, y), expected)
    assert torch.equal(copy.deepcopy(first)(x, y), expected)


@pytest.mark.parametrize(
    "overrides",
    [["loss=mmdpp", "loss.redraw_every=5"], ["loss=deep", "weights.redraw_every=5", "layer=[conv1_2]"]],
    ids=["mmdpp", "deep"],
)
def test_draw_is_a_function_of_step(overrides: list[str]) -> None:
    """Random state changes by `draw` alone, and old encodings are refused rather than compared."""
    loss = build(plain(load(*overrides))["loss"])
    x, y = pair()
    first, old = loss(x, y), loss.encode(x)
    loss.draw(4)
    assert torch.equal(loss(x, y), first)
    loss.draw(5)
    second = loss(x, y)
    assert not torch.equal(second, first)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(y))
    loss.draw(9)
    assert torch.equal(loss(x, y), second)
    loss.draw(0)
    assert torch.equal(loss(x, y), first)


def test_drawn_encodings_keep_their_draw() -> None:
    """Indexing an encoding must not lose which draw it belongs to."""
    drawn = Drawn({"a": torch.arange(3)}, "seed 0, 1")
    assert map_encoding(lambda tensor: tensor[:1], drawn) == Drawn({"a": torch.tensor([0])}, "seed 0, 1")


def test_what_moves_to_a_device_is_registered(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Tensors are buffers or parameters, not attributes, which .to() would leave behind."""
    loss, _ = case
    held = {id(tensor) for tensor in [*loss.buffers(), *loss.parameters()]}

    def loose(value: Any) -> bool:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
        return (isinstance(value, Tensor) and id(value) not in held) or any(loose(one) for one in inner)

    for module in loss.modules():
        own = {
            name: value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")
        }
        assert not [name for name, value in own.items() if loose(value)], type(module).__name__


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, _ = case
    x, y = pair()
    there = copy.deepcopy(loss).cuda()
    torch.testing.assert_close(there(x.cuda(), y.cuda()).cpu(), loss(x, y), rtol=1e-3, atol=1e-5)
