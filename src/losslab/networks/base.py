"""The loss network: frozen unless it is to be trained, in eval mode, and never a trace left on its input."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from losslab.types import Features, Image

Network = TypeVar("Network", bound="LossNetwork")


class LossNetwork(nn.Module, ABC):
    """A frozen network that features are read from.

    It stays in eval mode whatever its parent does, its parameters take no gradient, and it leaves no weights in a
    checkpoint: they are a function of the config, by a seed or a file's hash. One that is `trainable` stays in eval
    mode too, but its parameters take gradients, and a checkpoint keeps them with the statistics of batch norms.
    """

    trainable: bool = False
    """Whether the parameters are to be trained; encodings are then good until the next step of the optimiser."""

    layers: list[str]
    """The layers that `read` gives."""

    min_side: int
    """Smallest image that every one of `layers` has a place for, in pixels."""

    widest: float = 64.0
    """Numbers a pixel of an image in the largest map that is computed: what a batch's memory and speed go by."""

    @abstractmethod
    def read(self, images: Image) -> dict[str, Features]:
        """Give the features of each layer, (*, C, h, w), for images (*, 3, H, W) in [0, 1]."""

    def draw(self, step: int) -> str:
        """Set random weights to those of `step` and name them; a network of fixed weights has one name."""
        return "fixed"

    def part(self, layers: Sequence[str]) -> "LossNetwork":
        """Give the network as one that reads some of its layers only, without a copy.

        Raises:
            ValueError: the network is to be trained: losses that share one would train each other's.
        """
        if self.trainable:
            raise ValueError("network.trainable=true is for one loss, not for a panel: give one layer and comparison")
        return Part(self, layers)

    def freeze(self) -> None:
        """Take the gradient off all parameters, unless they are to be trained, and go to eval mode for good."""
        self.requires_grad_(requires_grad=self.trainable)
        self.train(mode=False)

    def train(self: Network, mode: bool = True) -> Network:  # noqa: FBT001, FBT002 - torch's signature
        """Stay in eval mode."""
        return super().train(mode=False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Give nothing to a checkpoint, unless the weights are trained."""
        return super().state_dict(*args, **kwargs) if self.trainable else kwargs.get("destination", {})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Keep frozen weights as they are: a checkpoint has none, and a strict load should not miss them."""
        if not self.trainable:
            own = {prefix + name: tensor for name, tensor in super().state_dict().items()}
            if trained := [name for name in own if name in state_dict]:
                errors: list[str] = args[-1]
                errors.append(f"the checkpoint has trained weights, {trained[0]}, but here network.trainable is false")
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, images: Image) -> dict[str, Features]:
        """Do what `read` does."""
        return self.read(images)


class Part(LossNetwork):
    """Some of the layers of a network that several losses share.

    Args:
        whole: the network.
        layers: canonical names, in the network's order.
    """

    def __init__(self, whole: LossNetwork, layers: Sequence[str]) -> None:
        """Hold the network as it is."""
        super().__init__()
        self.whole, self.layers, self.min_side = whole, list(layers), whole.min_side
        self.widest = whole.widest

    def draw(self, step: int) -> str:
        """Draw the weights of the whole network."""
        return self.whole.draw(step)

    def read(self, images: Image) -> dict[str, Features]:
        """Read the whole network, and give this part's layers."""
        found = self.whole.read(images)
        return {layer: found[layer] for layer in self.layers}
