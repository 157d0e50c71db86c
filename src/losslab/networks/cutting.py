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

from losslab.networks.weights import Architecture

IN_PLACE: dict[Any, Callable[..., Any]] = {operator.iadd: operator.add, operator.imul: operator.mul}
"""Operators that overwrite their first operand, and those that don't."""

LARGEST_SIDE = 1024
"""Pixels; a layer that has no place in an image of this side is refused."""


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
        module.graph.eliminate_dead_code()
        module.recompile()
        module.delete_all_unused_submodules()
        for layer in module.modules():
            if getattr(layer, "inplace", False):
                setattr(layer, "inplace", False)  # noqa: B010 - each kind has it for itself
        return module


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

    Raises:
        RuntimeError: the image is too small for a layer.
    """
    found: dict[str, Tensor] = module(torch.empty(1, channels, side, side, device="meta"))
    return {layer: tuple(features.shape[1:]) for layer, features in found.items()}


def smallest_side(module: nn.Module, name: str) -> int:
    """Find the smallest square image that every layer has a place for, in pixels.

    Args:
        module: a cut architecture on the meta device.
        name: what errors call it.

    Raises:
        ValueError: a layer is no map of places.
    """
    large, larger = shapes(module, LARGEST_SIDE), shapes(module, 2 * LARGEST_SIDE)
    for layer, (one, two) in {layer: (large[layer], larger[layer]) for layer in large}.items():
        if len(one) != 3 or one[0] != two[0] or one[1] == two[1] or one[2] == two[2]:
            raise ValueError(f"layer {layer!r} of {name} is no map of features at places: its shape is {one}")
    sides = range(1, LARGEST_SIDE)
    return 1 + bisect_left(sides, 1, key=lambda side: _fits(module, side))


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
    except (RuntimeError, ValueError):  # a window that is larger than what is left of the image
        return False
