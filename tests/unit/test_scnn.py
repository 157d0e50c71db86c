"""The simple random network: its layers, its weights, and the closed form that it tends to."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from losslab.comparisons.spatial import Spatial
from losslab.config import build, load, plain
from losslab.losses.deep import Deep
from losslab.losses.exact_mmd import ExactMMD
from losslab.losses.kernels import ArcCosine
from losslab.networks import scnn
from losslab.networks.scnn import SCNN
from losslab.runs.cell import identify

LAYERS = {name: name for index in range(1, 8) for name in (f"conv{index}", f"relu{index}")} | {"pool": "pool"}


def network(select: str | list[str] = "pool", **arguments: object) -> SCNN:
    return SCNN("scnn", LAYERS, [], select, **arguments)  # type: ignore[arg-type]


def sequential(mine: SCNN) -> nn.Sequential:
    """Build the source's network out of torch's layers, with the same weights and without the norm of patches."""
    first = nn.Conv2d(3, mine.width, 3, padding=1, bias=False)
    first.weight.data = mine.first.clone()
    layers: list[nn.Module] = [first, nn.ReLU()]
    for weights in mine.others:
        layer = nn.Conv2d(mine.width, mine.width, 1, bias=False)
        layer.weight.data = weights.clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(mine.window, mine.stride))


def test_layers_equal_torch() -> None:
    """Every named layer is what the source's Sequential gives at that place, for images in [-1, 1]."""
    mine = network(["pixels", *LAYERS], width=16, unit_norm=False)
    x = torch.rand(2, 3, 48, 40)
    found, maps = mine.read(x), 2 * x - 1
    assert list(found) == ["pixels", *LAYERS]
    torch.testing.assert_close(found["pixels"], maps)
    for name, layer in zip(LAYERS, sequential(mine), strict=True):
        maps = layer(maps)
        torch.testing.assert_close(found[name], maps, rtol=1e-4, atol=1e-5)
    assert found["pool"].shape == (2, 16, 2, 1)


def test_unit_norm_divides_by_the_patch() -> None:
    """The first responses are over the root mean square of the 27 numbers that each filter sees, zeros among them."""
    x = torch.rand(1, 3, 6, 7)
    with_norm, without = (network("conv1", width=8, unit_norm=switch).read(x)["conv1"] for switch in (True, False))
    patches = functional.unfold(2 * x - 1, 3, padding=1)
    norms = patches.square().mean(1).sqrt().reshape(1, 1, 6, 7)
    torch.testing.assert_close(with_norm, without / norms, rtol=1e-4, atol=1e-5)


def test_contrast_is_not_seen_with_unit_norm() -> None:
    """An image nearer to grey has the same features, until its patches are faint."""
    x = torch.rand(1, 3, 32, 32) - 0.5
    mine = network(width=8)
    torch.testing.assert_close(mine.read(0.5 + x)["pool"], mine.read(0.5 + 0.2 * x)["pool"], rtol=1e-4, atol=1e-5)
    assert mine.read(0.5 + 1e-7 * x)["pool"].abs().max() < 1e-2


def test_weights() -> None:
    """Weights are N(0, 2 / fan_in); the mean of the first filters goes where it is asked to."""
    mine, centred = network(width=256), network(width=256, zero_mean=True)
    assert float(mine.first.std()) == pytest.approx(math.sqrt(2 / 27), rel=0.03)
    assert float(mine.others.std()) == pytest.approx(math.sqrt(2 / 256), rel=0.01)
    assert mine.first.mean(dim=(-2, -1)).abs().max() > 1e-2
    assert centred.first.mean(dim=(-2, -1)).abs().max() < 1e-7


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("unit_norm", [True, False])
def test_products_of_features_approach_the_kernel(depth: int, unit_norm: bool) -> None:
    """The mean over channels of the product of two patches' features is ArcCosine(depth), layer by layer."""
    x = torch.rand(2, 3, 3, 3).double()
    centres = torch.cat(
        [
            network(f"relu{depth}", width=512, unit_norm=unit_norm, seed=seed)
            .double()
            .read(x)[f"relu{depth}"][..., 1, 1]
            for seed in range(16)
        ],
        dim=1,
    ).unflatten(1, (16, 512))
    products = (centres[0] * centres[1]).mean(1)
    kernel = ArcCosine(depth, unit_norm=unit_norm)
    u, v, weights = kernel.sides((2 * x - 1).flatten(1).T[None], 9)
    assert weights is not None
    exact = float(kernel.profile(u.mT @ v, slope=False)[0][0, 0, 1] * weights.prod())
    error = float(products.std()) / math.sqrt(16)
    assert error < 0.05 * exact
    assert abs(float(products.mean()) - exact) < 4 * error


@pytest.mark.parametrize(
    ("depth", "unit_norm", "zero_mean"), [(1, True, False), (4, True, False), (2, False, False), (2, False, True)]
)
def test_theorem(depth: int, unit_norm: bool, zero_mean: bool) -> None:
    """The mean over draws of the network's loss is the MMD under the kernel of its infinite width: theorem 2.1."""
    x, y = torch.rand(1, 3, 32, 32), functional.avg_pool2d(torch.rand(1, 3, 34, 34), 3, 1)
    exact = float(
        ExactMMD(3, ArcCosine(depth, unit_norm=unit_norm), border="zero", remove_mean=zero_mean, half=False)(x, y)
    )

    def loss(seed: int) -> Deep:
        switches = {"unit_norm": unit_norm, "zero_mean": zero_mean}
        return Deep(
            lambda select: network(select, width=256, depth=depth, seed=seed, **switches),
            "pool",
            Spatial("l2", "mean", normalize=False),
        )

    draws = torch.cat([loss(seed)(x, y) for seed in range(16)])
    error = float(draws.std()) / 4
    assert error < 0.08 * exact
    assert abs(float(draws.mean()) - exact) < 4 * error


def test_shipped_losses_agree() -> None:
    """loss=scnn is a draw of what loss=scnn_kernel is the limit of, at full depth."""
    x, y = torch.rand(8, 3, 32, 32), functional.avg_pool2d(torch.rand(8, 3, 34, 34), 3, 1)
    exact, found = (build(plain(load(f"loss={name}"))["loss"])(x, y) for name in ("scnn_kernel", "scnn"))
    assert 0.5 < float(found.mean() / exact.mean()) < 2
    assert not torch.allclose(found, exact, rtol=1e-3)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are computed again give the gradient of layers that are kept."""
    x = torch.rand(5, 3, 32, 32)
    mine = network(["relu2", "pool"], width=8)
    found = []
    for numbers in (2**23, 2 * 8 * 32 * 32):
        monkeypatch.setattr(scnn, "NUMBERS_A_CHUNK", {True: numbers})
        leaf = x.clone().requires_grad_()
        maps = mine.read(leaf)
        sum(one.square().sum() for one in maps.values()).backward()  # type: ignore[union-attr]
        found.append((maps["relu2"], maps["pool"], leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_draw_is_a_function_of_step() -> None:
    """New weights come when they are due, and encodings of two draws are not compared."""
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    loss = Deep(lambda select: network(select, width=8, redraw_every=5), "pool", Spatial("l2", "mean", normalize=False))
    first, old = loss(x, y), loss.encode(x)
    loss.draw(4)
    assert torch.equal(loss(x, y), first)
    loss.draw(5)
    assert not torch.equal(loss(x, y), first)
    with pytest.raises(ValueError, match="two draws"):
        loss.compare(old, loss.encode(y))
    loss.draw(0)
    assert torch.equal(loss(x, y), first)


def test_frozen_and_stateless() -> None:
    loss = nn.Sequential(
        Deep(lambda select: network(select, width=8), "pool", Spatial("l2", "mean", normalize=False))
    ).train()
    assert not any(module.training for module in loss[0].network.modules())  # type: ignore[union-attr]
    assert loss.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_only_what_is_asked_for() -> None:
    """Nothing behind the last chosen layer is computed, and its size is asked for only where it is read."""
    assert network("relu2", width=8).min_side == 1
    assert network("pool", width=8, window=16, stride=8).min_side == 16
    assert network("relu2", width=8).read(torch.rand(1, 3, 1, 1))["relu2"].shape == (1, 8, 1, 1)
    assert list(network("pixels", width=8).read(torch.rand(3, 2, 2))) == ["pixels"]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got"):
        network(width=0)
    with pytest.raises(ValueError, match="scnn of depth 2 has the layers conv1, relu1, conv2, relu2, pool, not relu3"):
        network("relu3", depth=2, width=8)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        network(width=8).read(torch.rand(1, 1, 32, 32))
    with pytest.raises(KeyError, match="unknown layer"):
        network("relu99", width=8)


@pytest.mark.parametrize("overrides", [["loss=scnn"], ["loss=deep", "network=scnn"], ["loss=gabor"]])
def test_a_cell_without_weights(overrides: list[str]) -> None:
    """A network that brings its own weights has a name and an identity as any other."""
    cell = identify(plain(load(*overrides)), "content", {"compare": "gram", "compare@loss.compare": "l2"})
    assert "weights" not in cell.axes
    assert cell.axes["layers"] == "pool"
    assert cell.axes["compare"] == "l2"


def features_of(x: Tensor) -> Tensor:
    return network(width=8).read(x)["pool"]


def test_leading_axes() -> None:
    """Any number of leading axes, none among them."""
    x = torch.rand(2, 3, 3, 32, 32)
    assert features_of(x).shape == (2, 3, 8, 1, 1)
    torch.testing.assert_close(features_of(x[1, 2]), features_of(x)[1, 2], rtol=1e-4, atol=1e-5)
