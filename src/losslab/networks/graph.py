"""Any convolutional architecture as a loss network: each node of its graph is a layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from losslab.checks import check_switch
from losslab.networks.base import LossNetwork
from losslab.networks.cutting import Traced, first_line, smallest_side, takes_all, widest
from losslab.networks.layers import PIXELS, canonical_layers, node_of
from losslab.networks.pooling import POOLINGS, pooled
from losslab.networks.weights import Architecture, Pair, Weights
from losslab.types import Features, Image

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}


class GraphNetwork(LossNetwork):
    """An architecture, cut after the deepest layer asked for.

    Args:
        name: what errors and results call it.
        architecture: what it is cut from.
        layers: canonical name to graph node, the network's children from the image upwards; `conf/network` has the
            tables. Nodes inside of them, and of an empty table all nodes, go by their own names.
        slots: canonical names of the four study layers.
        weights: where the weights come from.
        pooling: "max" leaves the architecture as it is; "average", "blur" and "l2" (see `losslab.networks.pooling`)
            take the place of its max pooling modules.
        precision: "32" bits, or "bf16", which is faster on processors that know it: the network computes in bfloat16,
            and its features are of 32 bits again.
        channels_last: keep the channels of a pixel side by side. On CPUs a forward pass is 1.1 to 2 times as fast, with
            larger rounding errors (VGG-16: 2e-6 relative, where it is 5e-7). "bf16" always does.
        trainable: let an optimiser change the weights, and store them in checkpoints. Batch norm's statistics stay.
        select: the layers to read: anything that `canonical_layers` takes.

    Raises:
        KeyError: an unknown layer.
        ValueError: a layer that is no map of features at places, a pooling, precision or switch that is none, or a
            network that can't be trained: without weights, of "bf16", or redrawn.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        layers: Mapping[str, str],
        slots: Sequence[str],
        weights: Weights,
        select: str | int | Sequence[str | int],
        pooling: str = "max",
        precision: str | int = "32",
        *,
        channels_last: bool = False,
        trainable: bool = False,
    ) -> None:
        """Build the architecture up to the deepest layer and fill it with the first draw of weights."""
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"network.pooling is one of {', '.join(POOLINGS)}, got {pooling!r}")
        if str(precision) not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        check_switch("network.channels_last", channels_last)
        check_switch("network.trainable", trainable)
        self.name, self.architecture, self.weights = name, architecture, weights
        side_by_side = channels_last or str(precision) == "bf16"
        self.memory_format = torch.channels_last if side_by_side else torch.contiguous_format
        self.layers = canonical_layers({"name": name, "layers": layers, "slots": slots}, select)
        self.nodes = {layer: node_of(layers, layer) for layer in self.layers if layer != PIXELS}
        self.feed(weights.range(architecture))
        self.extractor = self._cut(pooling) if self.nodes else None
        self.min_side = smallest_side(self.extractor, name) if self.extractor else 1
        self.takes_all = takes_all(self.extractor) if self.extractor else True
        self.widest = widest(self.extractor, architecture.channels) if self.extractor else float(architecture.channels)
        if self.extractor is not None:
            self.extractor.to_empty(device="cpu").to(PRECISIONS[str(precision)])
            self.extractor.to(memory_format=self.memory_format)
            _fill_constants(self.extractor, architecture)
        self._draw_index = -1
        self.draw(0)
        self.trainable = trainable
        self.freeze()
        if trainable:
            _check_trainable(self, str(precision))

    def feed(self, range_: Pair) -> None:
        """Set what is taken off each channel of images in [0, 1], and what then divides it."""
        for name, numbers in zip(("mean", "std"), range_, strict=True):
            self.register_buffer(name, torch.tensor(numbers)[:, None, None], persistent=False)

    def draw(self, step: int) -> str:
        """Fill in the weights of `step`, where new ones are due, and name the draw."""
        if self.extractor is None:
            return "fixed"
        if self.weights.draw_index(step) != self._draw_index:
            self.draw_name = f"{self.name}, {self.weights.fill(self.extractor, self.architecture, step)}"
            self._draw_index = self.weights.draw_index(step)
        return self.draw_name

    def read(self, images: Image) -> dict[str, Features]:
        """Give the features of each layer, (*, C, h, w), for images (*, 3, H, W) in [0, 1].

        Raises:
            ValueError: the images have another number of channels than the network takes.
        """
        if images.shape[-3] != len(self.mean):
            raise ValueError(f"{self.name} needs images of {len(self.mean)} channels, got {images.shape[-3]}")
        normalised = (images - self.mean) / self.std
        found = {PIXELS: normalised} if PIXELS in self.layers else {}
        if self.extractor is not None:
            found |= self._features(self.extractor, normalised)
        return {layer: found[layer] for layer in self.layers}

    def _features(self, extractor: fx.GraphModule, normalised: Tensor) -> dict[str, Tensor]:
        if not self.trainable:
            extractor.requires_grad_(requires_grad=False)  # whatever a parent has set since, past all methods of ours
        dtype = next((one.dtype for one in extractor.parameters()), normalised.dtype)
        batch = normalised.reshape(-1, *normalised.shape[-3:])
        made = self._run(extractor, batch.to(dtype).contiguous(memory_format=self.memory_format))
        features = {layer: made[node].to(normalised.dtype) for layer, node in self.nodes.items()}
        return {layer: one.reshape(*normalised.shape[:-3], *one.shape[1:]) for layer, one in features.items()}

    def _run(self, extractor: fx.GraphModule, batch: Tensor) -> dict[str, Tensor]:
        """Run the extractor, and say it where a size of images is none that it takes.

        Raises:
            ValueError: a network that needs a multiple of something got another size.
        """
        if self.takes_all:
            made: dict[str, Tensor] = extractor(batch)
            return made
        try:
            return extractor.forward(batch)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            size = "×".join(map(str, batch.shape[-2:]))
            raise ValueError(f"{self.name} can't be run on images of {size} pixels: {first_line(error)}") from error

    def _cut(self, pooling: str) -> fx.GraphModule:
        extractor = Traced(self.architecture).cut([*self.nodes.values()])
        for path, layer in [*extractor.named_modules()] if pooling != "max" else []:
            if isinstance(layer, nn.MaxPool2d):
                parent, _, last = path.rpartition(".")
                setattr(extractor.get_submodule(parent), last, pooled(layer, pooling))
        return extractor


@torch.no_grad()
def _fill_constants(extractor: fx.GraphModule, architecture: Architecture) -> None:
    """Give their numbers to tensors that are in no state dict, such as the binomials of blurred pooling.

    Raises:
        ValueError: the graph has numbers that the architecture does not name.
    """
    shapes = architecture.shapes()
    own = {**dict(extractor.named_parameters()), **dict(extractor.named_buffers())}
    if not (constants := [key for key in own if key not in shapes]):
        return
    modules = dict(architecture.make().named_modules())
    for key in constants:
        module, _, name = key.rpartition(".")
        found = getattr(modules.get(module), name, None)
        if not isinstance(found, Tensor) or found.shape != own[key].shape:
            raise ValueError(f"{architecture.name} makes numbers while it runs ({key}): choose a layer before that")
        own[key].copy_(found)


def _check_trainable(network: GraphNetwork, precision: str) -> None:
    """Refuse a network that no optimiser could train, or whose training would be lost."""
    if not any(True for _ in network.parameters()):
        raise ValueError(f"network.trainable=true: {', '.join(network.layers)} of {network.name} have no weights")
    if precision != "32":
        raise ValueError(
            f"network.trainable=true needs precision=32, got {precision}: small steps would be rounded off"
        )
    if getattr(network.weights, "redraw_every", 0):
        raise ValueError("network.trainable=true needs weights.redraw_every=0: a redraw would undo the training")


def fed(make: Callable[..., Any], range_: Pair, *, select: str | int | Sequence[str | int]) -> GraphNetwork:
    """Make a network, and feed it another range of images than its weights say.

    Args:
        make: makes the network when it is called with `select`.
        range_: mean and standard deviation of each channel, for images in [0, 1].
        select: the layers to read.
    """
    network: GraphNetwork = make(select=select)
    network.feed(range_)
    return network
