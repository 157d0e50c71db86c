"""Every loss under conf/loss and every comparison under conf/compare keep the protocol, and what they declare."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.comparing.two_pictures import MAPPED
from losslab.config import CONF, build, load, plain
from losslab.images import to_bytes
from losslab.losses.base import Loss, total
from losslab.types import Drawn, Encoding, map_encoding

NAMES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
COMPARISONS = [f"compare={path.stem}" for path in sorted((CONF / "compare").glob("*.yaml")) if path.stem != "each"]
# Where each comparison is tried: on features of two random convolutions.
SMALL = ("network=cnn1", "weights=random", "layer=[conv1,relu2]")
SMALL_SIDE = 13
NEEDED = {"family", "identity", "nonnegative", "symmetric", "colour_offset", "permutable", "channels", "min_side"}
KNOWN = NEEDED | {"warmup", "offline"}
FAMILIES = {"pixels", "structure", "frequencies", "pyramids", "patches", "distributions", "networks", "sums"}
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6)  # float32, sums of some thousand terms


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """Compose once what many tests ask for; a loss is never built from what another one may have changed."""
    loss: dict[str, Any] = plain(load(*overrides))["loss"]
    return loss


def settings(name: str, *overrides: str) -> dict[str, Any]:
    """Give a loss's config, with random weights where its own have to be downloaded."""
    offline = composed(f"loss={name}")["properties"].get("offline", [])
    return copy.deepcopy(composed(f"loss={name}", *offline, *overrides))


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[Loss[Any], dict[str, Any]]:
    declared = settings(request.param)
    return build(declared), declared["properties"]


@pytest.fixture(scope="module", params=[*NAMES, *COMPARISONS, "compare=dot compare.normalize=false"])
def either(request: pytest.FixtureRequest) -> tuple[Loss[Any], dict[str, Any]]:
    """Give a loss, or a deep loss with a comparison, whose images are smaller."""
    if request.param in NAMES:
        declared = settings(request.param)
        return build(declared), declared["properties"]
    declared = plain(load("loss=deep", *SMALL, *request.param.split()))["loss"]
    return build(declared), {**declared["properties"], "side": SMALL_SIDE}


def side_of(declared: dict[str, Any]) -> int:
    """Give a side that is legal and no multiple of any window or stride."""
    return int(declared.get("side", max(40, declared["min_side"] + 5)))


def pair(side: int, count: int = 3) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 3, side, side), torch.rand(count, 3, side, side)


def tensors(encoding: Encoding) -> list[Tensor]:
    found: list[Tensor] = []
    map_encoding(lambda tensor: found.append(tensor) or tensor, encoding)  # type: ignore[func-returns-value]
    return found


def test_declares_its_properties(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """A YAML that declares nothing, or something the battery does not know, tests nothing."""
    loss, declared = case
    assert NEEDED <= declared.keys() <= KNOWN
    assert declared["family"] in FAMILIES
    assert declared["min_side"] == loss.min_side


def test_identity(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Whether equal images have no distance is as declared; different ones have more."""
    loss, declared = either
    x, y = pair(side_of(declared))
    equal = loss(x, x.clone())
    assert torch.allclose(equal, torch.zeros(3), rtol=0, atol=1e-7) == declared["identity"]
    assert (loss(x, y) > equal + 1e-4).all()  # or the zeros above would mean nothing


def test_nonnegative(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Whether a distance may be negative is as declared, that of equal images included, but for rounding."""
    loss, declared = either
    x, y = pair(side_of(declared), 8)
    assert bool((loss(x, torch.cat([y[:7], x[7:]])) >= -1e-7).all()) == declared["nonnegative"]


def test_symmetric(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = either
    x, y = pair(side_of(declared))
    assert torch.allclose(loss(x, y), loss(y, x), 1e-4, 1e-6) == declared["symmetric"]


def test_maps(case: tuple[Loss[Any], dict[str, Any]], request: pytest.FixtureRequest) -> None:
    """The mean of a map is the distance, nearly so where it was scaled up; whatever else has none, and says so."""
    loss, declared = case
    x, y = pair(side_of(declared))
    a, b = loss.encode(x), loss.encode(y)
    if request.node.callspec.params["case"] not in MAPPED:
        with pytest.raises(ValueError, match="does not go place by place|a patch around each pixel"):
            loss.maps(a, b)
        return
    found = loss.maps(a, b)
    assert found.shape == (3, 1, *x.shape[-2:])
    torch.testing.assert_close(found.mean((1, 2, 3)), loss(x, y), rtol=0.1 if hasattr(loss, "deep") else 1e-5, atol=0)


def test_batch_equals_singles(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """No image sees its neighbours in the batch."""
    loss, declared = either
    x, y = pair(side_of(declared), 5)
    singles = torch.cat([loss(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    close(loss(x, y), singles)


def test_broadcasts_over_leading_axes(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """One against N, and further leading axes, are what a loop would give."""
    loss, declared = either
    x, y = pair(side_of(declared), 6)
    one = loss.encode(x[:1])
    close(loss.compare(one, loss.encode(y)), loss(x[:1].expand(6, -1, -1, -1), y))
    folded = loss(x.unflatten(0, (2, 3)), y.unflatten(0, (2, 3)))
    close(folded, loss(x, y).unflatten(0, (2, 3)))
    alone = loss(x[0], y[0])
    assert alone.shape == ()
    close(alone, loss(x, y)[0])


def test_encodings_have_the_batch_first(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Whoever keeps encodings may index them."""
    loss, declared = either
    x, y = pair(side_of(declared), 4)
    where = torch.tensor([2, 0])
    chosen = map_encoding(lambda tensor: tensor[where], loss.encode(x))
    close(loss.compare(chosen, loss.encode(y[where])), loss(x, y)[where])


def test_forward_is_compare_of_encodings(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = either
    x, y = pair(side_of(declared))
    assert torch.equal(loss(x, y), loss.compare(loss.encode(x), loss.encode(y)))


def test_parts_add_up(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = either
    x, y = pair(side_of(declared))
    a, b = loss.encode(x), loss.encode(y)
    parts = loss.parts(a, b)
    assert all(part.shape == (3,) for part in parts.values())
    close(torch.stack(list(parts.values())).sum(0), loss.compare(a, b))


def test_input_and_state_unchanged(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Encoding and comparing leave no trace on the images, the encodings, or the loss."""
    loss, declared = either
    x, y = pair(side_of(declared))
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
def test_gradient_is_finite(either: tuple[Loss[Any], dict[str, Any]], value: float | None, dtype: torch.dtype) -> None:
    """Where two images are equal, or constant, a square root or a norm would give NaN."""
    loss, declared = copy.deepcopy(either[0]).to(dtype), either[1]
    side = side_of(declared)
    x = torch.rand(2, 3, side, side) if value is None else torch.full((2, 3, side, side), value)
    x = x.to(dtype)
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
    x, y = (image.double().requires_grad_() for image in pair(declared["min_side"], 1))
    assert torch.autograd.gradcheck(copy.deepcopy(loss).double(), (x, y), fast_mode=True)


def test_memory_format_does_not_matter(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    x, y = pair(side_of(declared))
    last = loss(x.to(memory_format=torch.channels_last), y.to(memory_format=torch.channels_last))
    close(last, loss(x, y))


def test_too_small_is_refused(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    side = declared["min_side"]
    assert loss(*pair(side, 1)).isfinite().all()
    if side > 1:
        with pytest.raises(ValueError, match=f"at least {side}×{side} pixels, got {side - 1}×{side}"):
            loss.encode(torch.rand(1, 3, side - 1, side))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (to_bytes, "uint8"),
        (lambda image: image * 255, r"in \[0, 1\], got values"),
        (lambda image: image * 2 - 1, r"in \[0, 1\], got values"),
        (lambda image: image * torch.nan, "NaN or infinite"),
        (lambda image: image[:0], "empty batch"),
        (lambda image: image[0, 0], r"shape \(\*, C, H, W\)"),
    ],
    ids=["bytes", "0..255", "-1..1", "nan", "empty", "flat"],
)
def test_range_contract(
    case: tuple[Loss[Any], dict[str, Any]], spoil: Callable[[Tensor], Tensor], message: str
) -> None:
    """An image in another range would give plausible and wrong numbers."""
    loss, declared = case
    image = pair(side_of(declared), 1)[0]
    image[..., :2] = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match=message):
        loss.encode(spoil(image))


def test_slight_overshoot_is_taken(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """An image that is optimised leaves [0, 1] a little; its distance and its gradient stay numbers."""
    loss, declared = case
    x, y = pair(side_of(declared))
    leaf = (x * 1.4 - 0.2).requires_grad_()
    distance = loss(leaf, y)
    distance.sum().backward()
    assert distance.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_odd_sizes(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Neither height nor width has to be even, equal, or a multiple of anything."""
    loss, declared = case
    side = max(33, declared["min_side"])
    x, y = torch.rand(2, 3, side, side + 14), torch.rand(2, 3, side, side + 14)
    assert loss(x, y).isfinite().all()
    assert (loss(x, y) > 1e-4).all()


def test_batches_that_do_not_fit_are_refused(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    loss, declared = case
    x, y = pair(side_of(declared))
    with pytest.raises(ValueError, match="compares N images with N or with 1"):
        loss(x[:2], y)


def test_different_sizes_are_refused(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Two sizes never broadcast into a number without meaning, at once or in two halves."""
    loss, declared = case
    side = declared["min_side"]
    x, y = torch.rand(1, 3, side, side), torch.rand(1, 3, side, side + 33)
    with pytest.raises(ValueError, match="images of one size"):
        loss(x, y)
    with pytest.raises(ValueError, match="different sizes"):
        loss.compare(loss.encode(x), loss.encode(y))


def test_channels(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """A loss takes any number of channels, or says how many it needs."""
    loss, declared = case
    side = side_of(declared)
    for channels in (1, 2):
        x, y = torch.rand(2, channels, side, side), torch.rand(2, channels, side, side)
        if declared["channels"] == "any":
            assert (loss(x, y) > 1e-4).all()
        else:
            with pytest.raises(ValueError, match=f"3 channels, got {channels}"):
                loss.encode(x)


def test_half_precision_is_computed_in_full(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Images of 16 bits, and autocast, cost no digit of the distance; gradients come back in the images' type."""
    loss, declared = case
    x, y = (image.bfloat16() for image in pair(side_of(declared)))
    exact = loss(x.float(), y.float())
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(leaf, y)
        assert torch.equal(found, exact)
        assert torch.equal(loss(x.float(), y.float()), exact)
        found.sum().backward()
    assert leaf.grad is not None
    full = x.float().requires_grad_()
    loss(full, y.float()).sum().backward()
    assert full.grad is not None
    torch.testing.assert_close(leaf.grad.float(), full.grad, rtol=1e-2, atol=1e-2 * float(full.grad.abs().mean()))
    assert leaf.grad.dtype == torch.bfloat16
    assert leaf.grad.isfinite().all()


def test_mixed_types_are_refused(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """A loss with numbers of its own says that images of another type don't fit; one without takes both."""
    loss, declared = case
    x, y = (image.double() for image in pair(side_of(declared), 1))
    if [one for one in [*loss.buffers(), *loss.parameters()] if one.is_floating_point()]:
        with pytest.raises(ValueError, match=r"is torch.float32 on cpu, the images are torch.float64"):
            loss(x, y)
    else:
        assert loss(x, y).dtype == torch.float64
        return
    with pytest.raises(ValueError, match="losses need 32 bits or more"):
        copy.deepcopy(loss).bfloat16()(x.bfloat16(), y.bfloat16())
    with pytest.raises(ValueError, match="on meta, the images are"):
        copy.deepcopy(loss).to("meta")(x.float(), y.float())


def test_colour_offset(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """Whether a constant added to a channel is seen, is as declared."""
    loss, declared = case
    x, _ = pair(side_of(declared))
    distance = loss(0.5 * x, 0.5 * x + torch.tensor([0.1, 0.3, 0.2])[:, None, None])
    if declared["colour_offset"]:
        torch.testing.assert_close(distance, torch.zeros(3), rtol=0, atol=1e-6)
    else:
        assert (distance > 1e-5).all()


@pytest.mark.parametrize("name", NAMES)
def test_permutation_of_patches(name: str) -> None:
    """Where patches tile an image, shuffling the tiles changes nothing for a loss that sees their set only."""
    declared = settings(name)["properties"]
    loss = build(settings(name, *(declared["permutable"] or [])))
    size = loss.patch_size if declared["permutable"] else -(-side_of(declared) // 8)
    tiles = torch.rand(size, size, 3, 8, 8)
    shuffled = tiles.flatten(3)[..., torch.randperm(64)].unflatten(3, (8, 8))
    x, y, other = (image.permute(2, 3, 0, 4, 1).reshape(1, 3, 8 * size, 8 * size)
                   for image in (tiles, shuffled, torch.rand_like(tiles)))  # fmt: skip
    assert torch.allclose(loss(x, y), torch.zeros(1), rtol=0, atol=1e-6) == bool(declared["permutable"])
    assert loss(x, other) > 1e-4


def test_batch_order(either: tuple[Loss[Any], dict[str, Any]]) -> None:
    """A batch in another order gives the distances in that order."""
    loss, declared = either
    x, y = pair(side_of(declared), 4)
    order = torch.tensor([2, 0, 3, 1])
    close(loss(x[order], y[order]), loss(x, y)[order])


def test_moves_as_a_whole(case: tuple[Loss[Any], dict[str, Any]]) -> None:
    """On torch's device without memory every operation would meet a tensor that was left on the CPU."""
    loss, declared = case
    x, y = (image.to("meta").requires_grad_() for image in pair(side_of(declared)))
    there = copy.deepcopy(loss).to("meta")
    distance = total(there.terms(there.embed(x), there.embed(y)))
    assert distance.device.type == "meta"
    assert distance.shape == (3,)
    assert torch.autograd.grad(distance.sum(), x)[0].device.type == "meta"


@pytest.mark.parametrize("name", NAMES)
def test_same_config_same_distance(name: str) -> None:
    """Two losses of one config agree bit for bit, whatever was drawn in between; a copy agrees too."""
    declared = settings(name)["properties"]
    x, y = pair(side_of(declared))
    first = build(settings(name))
    expected = first(x, y)
    torch.rand(7)
    assert torch.equal(build(settings(name))(x, y), expected)
    assert torch.equal(copy.deepcopy(first)(x, y), expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=mmdpp", "loss.redraw_every=5"],
        ["loss=deep", "weights.redraw_every=5", "layer=[conv1_2]"],
        ["loss=patch_swd", "loss.redraw_every=5"],
        ["loss=laplacian_swd", "loss.loss.redraw_every=5"],
        ["loss=windowed_swd", "loss.loss.redraw_every=5"],
        ["loss=swdpp", "loss.losses.swd.redraw_every=5"],
    ],
    ids=["mmdpp", "deep", "patch_swd", "laplacian_swd", "windowed_swd", "swdpp"],
)
def test_draw_is_a_function_of_step(overrides: list[str]) -> None:
    """Random state changes by `draw` alone, and old encodings are refused rather than compared."""
    loss = build(plain(load(*overrides))["loss"])
    x, y = pair(40)
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
    loss = case[0]
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
    loss, declared = case
    x, y = pair(side_of(declared))
    there = copy.deepcopy(loss).cuda()
    torch.testing.assert_close(there(x.cuda(), y.cuda()).cpu(), loss(x, y), rtol=1e-3, atol=1e-5)
