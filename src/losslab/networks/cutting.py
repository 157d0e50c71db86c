"""Architectures as graphs: cut behind the deepest layer asked for, and free of operations that overwrite a layer."""

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from losslab.networks.drawing import ORDER
from losslab.networks.names import TOKENS_REFUSED
from losslab.networks.weights import Architecture

IN_PLACE: dict[Any, Callable[..., Any]] = {operator.iadd: operator.add, operator.imul: operator.mul}
"""Operators that overwrite their first operand, and those that don't."""

LARGEST_SIDE = 1024
"""Pixels; a layer that has no place in an image of this side is refused."""

ODD_SIDE = 999
"""Pixels; halved again and again, it is rounded each time. What needs a multiple of something can't take it."""

CANT_RUN = (RuntimeError, ValueError, AssertionError, TypeError, LookupError)
"""What architectures raise on images of a size that they were not made for."""


class Traced:
    """An architecture as a graph, on torch's meta device.

    Args:
        architecture: that is traced, in eval mode.

    Source: torchvision's `NodePathTracer`, which names the nodes as its `create_feature_extractor` does; unlike there,
        torchvision's blocks are traced through, so that each convolution in them is a layer.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Trace it."""
        self.name = architecture.name
        self.model = deepcopy(architecture.whole)
        wrapped = {"autowrap_modules": (math, torchvision.ops), "autowrap_functions": architecture.functions}
        tracer = NodePathTracer(leaf_modules=[*architecture.modules], **wrapped)
        self.graph: fx.Graph = tracer.trace(self.model)
        self.nodes: dict[str, fx.Node] = {name: node for node, name in tracer.node_to_qualname.items()}

    def find(self, name: str) -> fx.Node:
        """Give the last node of a name: a block's is the one that its output leaves.

        Raises:
            KeyError: there is none; the message names the nearest one.
        """
        for known in reversed(self.nodes):
            if f"{known}.".startswith(f"{name}."):
                return self.nodes[known]
        near = get_close_matches(name, self.nodes, n=1, cutoff=0)[0]
        raise KeyError(f"unknown layer {name!r} of {self.name}; did you mean {near!r}?")

    def cut(self, names: Sequence[str]) -> fx.GraphModule:
        """Keep what some nodes need, and return a dict of their outputs, each as its node left it.

        torchvision's ReLUs and sums overwrite the output of the layer before; here they don't. The graph is used up.

        Raises:
            KeyError: no such node; the message names the nearest one.
        """
        outputs = {name: self.find(name) for name in names}
        for node in reversed(self.graph.nodes):
            if node.op == "output":
                self.graph.erase_node(node)
        self.graph.output(outputs)
        for node in self.graph.nodes:
            _out_of_place(node)
        module = fx.GraphModule(self.model, self.graph)
        module.meta[ORDER] = [name for name, _ in module.named_modules()]
        module.graph.eliminate_dead_code()
        module.recompile()
        module.delete_all_unused_submodules()
        _delete_unused_tensors(module)
        for layer in module.modules():
            if getattr(layer, "inplace", False):
                setattr(layer, "inplace", False)  # noqa: B010 - each kind has it for itself
        return module


def _delete_unused_tensors(module: fx.GraphModule) -> None:
    """Delete tensors that lie beside submodules, as those of layers that are taken apart do, where no node has them."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for path, holder in module.named_modules():
        names = [name for name, _ in (*holder.named_parameters(recurse=False), *holder.named_buffers(recurse=False))]
        for name in names if holder is module or type(holder) is nn.Module else ():
            if f"{path}.{name}".lstrip(".") not in used:
                delattr(holder, name)


def _out_of_place(node: fx.Node) -> None:
    if node.op == "call_function":
        node.target = IN_PLACE.get(node.target, node.target)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    elif (
        node.op == "call_method"
        and isinstance(node.target, str)
        and node.target.endswith("_")
        and not node.target.endswith("__")
    ):
        node.target = node.target.removesuffix("_")


@torch.no_grad()
def shapes(module: nn.Module, side: int, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Give the shape of each layer's features for one square image, of a module on the meta device.

    What is no tensor with the image's batch axis, such as a size or a set of windows, has the shape ().

    Raises:
        RuntimeError: the image is too small for a layer; or another of `CANT_RUN`.
    """
    # Not by calling the module, which prints the graph's code when it fails
    found: dict[str, Any] = module.forward(torch.empty(1, channels, side, side, device="meta"))
    return {layer: own_shape(one) for layer, one in found.items()}


def own_shape(made: Any) -> tuple[int, ...]:
    """Give the shape of what an architecture makes of one image, without the batch axis."""
    return tuple(made.shape[1:]) if isinstance(made, Tensor) and made.ndim > 0 and made.shape[0] == 1 else ()


def is_map(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Tell from its shapes for a large square image and one of twice its side whether a layer has places.

    Tokens, and what each has to do with each other, grow with the image's area, and channels may stand behind height
    and width. A mean over all places counts, which has one.

    Example:
        >>> is_map((64, 128, 128), (64, 256, 256)), is_map((128, 128, 64), (256, 256, 64))
        (True, False)
        >>> is_map((8, 1024, 1024), (8, 4096, 4096))
        False
    """
    if not len(one) == len(two) == 3 or one[0] != two[0]:
        return False
    grows = all(small < large < 3 * small for small, large in zip(one[1:], two[1:], strict=True))
    return grows or (one == two and one[1] == one[2])


def first_line(error: BaseException) -> str:
    """Give the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def smallest_side(module: nn.Module, name: str) -> int:
    """Find the smallest square image that every layer has a place for, in pixels.

    Args:
        module: a cut architecture on the meta device.
        name: what errors call it.

    Raises:
        ValueError: a layer is no map of places, or the architecture takes images of one size only.
    """
    try:
        large, larger = shapes(module, LARGEST_SIDE), shapes(module, 2 * LARGEST_SIDE)
    except CANT_RUN as error:
        raise ValueError(TOKENS_REFUSED.format(name) + f" ({LARGEST_SIDE} pixels: {first_line(error)})") from error
    for layer, (one, two) in {layer: (large[layer], larger[layer]) for layer in large}.items():
        if not is_map(one, two) or one[1] == two[1]:
            raise ValueError(
                f"layer {layer!r} of {name} is no map of features at places, channels × height × width: its shape is "
                f"{one} for images of {LARGEST_SIDE} pixels; src/layers.py lists those that are"
            )
    sides = range(1, LARGEST_SIDE)
    return 1 + bisect_left(sides, 1, key=lambda side: _fits(module, side))


def takes_all(module: nn.Module) -> bool:
    """Tell whether a cut architecture on the meta device takes images of all sizes above its smallest."""
    return _fits(module, ODD_SIDE)


def widest(module: fx.GraphModule, channels: int = 3) -> float:
    """Give the numbers a pixel of the image in the largest map that a cut architecture computes.

    Args:
        module: on the meta device.
        channels: of the images that it takes.
    """
    sizes = _Sizes(module)
    with torch.no_grad():
        sizes.run(torch.empty(1, channels, LARGEST_SIDE, LARGEST_SIDE, device="meta"))
    return sizes.largest / LARGEST_SIDE**2


class _Sizes(fx.Interpreter):
    largest = 0

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        self.largest = max(self.largest, made.numel() if isinstance(made, Tensor) else 0)
        return made


def _fits(module: nn.Module, side: int) -> bool:
    try:
        return all(min(shape[1:]) > 0 for shape in shapes(module, side).values())
    except CANT_RUN:  # a window that is larger than what is left of the image
        return False
