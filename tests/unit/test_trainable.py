"""A loss network that is to be trained: gradients, checkpoints, and nothing else that moves."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losslab.config import build, load, plain
from losslab.losses.panel import each
from losslab.networks.graph import GraphNetwork

SMALL = "squeezenet1_1"


def network(name: str = SMALL, *words: str, select: Any = 1) -> GraphNetwork:
    made: GraphNetwork = build(plain(load(f"network={name}", "loss=l2", *words))["network"])(select=select)
    return made


def trainable(name: str = SMALL, *words: str, select: Any = 1) -> GraphNetwork:
    return network(name, "network.trainable=true", *words, select=select)


def image() -> Tensor:
    return torch.rand(2, 3, 32, 32)


def test_gradients_reach_all_weights_and_only_then() -> None:
    """Every weight up to the deepest layer takes one where it is asked for, and none by default."""
    for made, reached in ((trainable(select=2), True), (network(select=2), False)):
        x = image().requires_grad_()
        sum(one.square().mean() for one in made.read(x).values()).backward()  # type: ignore[union-attr]
        assert [*made.parameters()]
        assert all(one.requires_grad == reached for one in made.parameters())
        assert all((one.grad is not None and bool(one.grad.abs().sum() > 0)) == reached for one in made.parameters()
                   if one.ndim > 1)  # fmt: skip
        assert x.grad is not None


def test_untrained_numbers_are_the_frozen_ones() -> None:
    """The switch alone changes no feature."""
    x = image()
    for layer, features in network(select="all").read(x).items():
        assert torch.equal(trainable(select="all").read(x)[layer], features)


def test_training_moves_weights_but_no_statistics() -> None:
    """In eval mode through a parent's `.train()`: an optimiser moves batch norm's weights, no image its statistics."""
    made = trainable("resnet18", select="layer1")
    assert made.extractor is not None
    before = {name: tensor.clone() for name, tensor in made.extractor.state_dict().items()}
    parent = nn.Sequential(made).train()
    optimizer = torch.optim.SGD(parent.parameters(), 0.1)
    made.read(image())["layer1"].square().mean().backward()
    optimizer.step()
    assert not any(one.training for one in made.modules())
    moved = {name for name, tensor in made.extractor.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in made.extractor.named_parameters()}


def test_checkpoint_brings_training_back() -> None:
    """A strict load into another network with other random weights gives the same features; a draw keeps them."""
    first, second = trainable("resnet18", select=2), trainable("resnet18", "weights.seed=1", select=2)
    with torch.no_grad():
        for one in (*first.parameters(), *first.buffers()):
            one.add_(0.01 if one.is_floating_point() else 0)
    for name, numbers in {"mean": 0.5, "std": 0.5}.items():
        getattr(first, name).fill_(numbers)  # the range belongs to the config
    state = nn.ModuleDict({"loss": first}).state_dict()
    assert {name for name in state if "num_batches" not in name} == {
        f"loss.extractor.{name}" for name in (first.extractor or first).state_dict() if "num_batches" not in name
    }
    nn.ModuleDict({"loss": second}).load_state_dict(state, strict=True)
    second.draw(7)
    x = image()
    for layer, features in first.read(x).items():
        assert torch.equal(second.read(x)[layer], features)
    with pytest.raises(RuntimeError, match="Missing key"):
        nn.ModuleDict({"loss": second}).load_state_dict({}, strict=True)


def test_trained_weights_are_not_forgotten_silently() -> None:
    """A frozen network refuses a checkpoint of a trained one, also without `strict`; of its own it has none."""
    holder = nn.ModuleDict({"loss": network()})
    assert not holder.state_dict()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"has trained weights, loss\.extractor.*network\.trainable is false"):
            holder.load_state_dict(nn.ModuleDict({"loss": trainable()}).state_dict(), strict=strict)


def test_one_loss_has_it_alone() -> None:
    """A panel of one network for several losses is refused."""
    made = build(plain(load("loss=deep", f"network={SMALL}", "network.trainable=true", "layer=[1,2]"))["loss"])
    assert made.network.trainable
    assert made(image(), image()).requires_grad
    with pytest.raises(ValueError, match=r"network\.trainable=true is for one loss, not for a panel"):
        each(lambda select: trainable(select=select), [["relu1"], ["fire2"]], made.comparisons[0])


@pytest.mark.parametrize(
    ("words", "select", "said"),
    [
        (["network.trainable=true"], "pixels", r"pixels of squeezenet1_1 have no weights"),
        (["network.trainable=true", "precision=bf16"], 1, r"needs precision=32, got bf16"),
        (["network.trainable=true", "weights.redraw_every=2"], 1, r"needs weights\.redraw_every=0"),
    ],
)
def test_what_can_not_be_trained_is_refused(words: list[str], select: Any, said: str) -> None:
    """Each in a sentence that names the key."""
    with pytest.raises(ValueError, match=said):
        network(SMALL, *words, select=select)
