"""The layers of a network as a table: names, shapes, strides, receptive fields and cost, without any weights."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from losslab.networks.cutting import Traced
from losslab.networks.receptive_field import Field, fields
from losslab.networks.weights import Architecture


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network.

    Args:
        name: its canonical name.
        node: of the graph.
        slot: its number among the study's four layers, if it is one of them.
        child: its index among the network's children, if it is one of them.
        shape: channels, height and width of its features.
        field: what one of its places sees.
        flops: of computing it with all that it needs, two for a multiplication and addition, as torch counts.
    """

    name: str
    node: str
    slot: int | None
    child: int | None
    shape: tuple[int, int, int]
    field: Field
    flops: int


def layer_rows(architecture: Architecture, network: Mapping[str, Any], side: int) -> list[LayerRow]:
    """Give a row for each layer up to the last child, from the image upwards, for one square image.

    Args:
        architecture: of the network.
        network: its config: `layers` and `slots`.
        side: of the image in pixels; layers that it is too small for are left out.
    """
    layers, slots = dict(network["layers"]), list(network["slots"])
    traced = Traced(architecture)
    nodes = _nodes(traced, layers)
    module = traced.cut([*nodes])
    measured = _Measured(module, torch.empty(1, architecture.channels, side, side, device="meta"))
    made: dict[str, fx.Node] = next(node for node in module.graph.nodes if node.op == "output").args[0]
    seen = fields(module)
    return [
        LayerRow(
            name=name,
            node=node,
            slot=slots.index(name) + 1 if name in slots else None,
            child=[*layers].index(name) if name in layers else None,
            shape=measured.shapes[made[node]],
            field=seen[node],
            flops=measured.cost(made[node]),
        )
        for node, name in nodes.items()
        if made[node] in measured.shapes
    ]


def _nodes(traced: Traced, layers: Mapping[str, str]) -> dict[str, str]:
    """Give the canonical name of each node up to the last child; a child stands for the node that it ends with."""
    ends = {traced.find(node): (node, name) for name, node in layers.items()}
    found = {}
    for known, node in traced.nodes.items():
        if node.op in ("call_module", "call_function", "call_method"):
            graph_node, name = ends.pop(node, (known, known))
            found[graph_node] = name
        if layers and not ends:
            break
    return found


class _Measured(fx.Interpreter):
    """Runs a cut architecture on the meta device up to the first layer that the image is too small for."""

    def __init__(self, module: fx.GraphModule, image: Tensor) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, int, int]] = {}
        self.flops: dict[fx.Node, int] = {}
        with suppress(RuntimeError):  # from the first layer that the image is too small for
            self.run(image)

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            made = super().run_node(n)
        self.flops[n] = counter.get_total_flops()
        if isinstance(made, Tensor) and made.ndim == 4 and min(made.shape) > 0:
            self.shapes[n] = (made.shape[1], made.shape[2], made.shape[3])
        return made

    def cost(self, node: fx.Node) -> int:
        """Add up what a node and all before it take."""
        needed, waiting = set[fx.Node](), [node]
        while waiting:
            one = waiting.pop()
            if one not in needed:
                needed.add(one)
                waiting += one.all_input_nodes
        return sum(self.flops[one] for one in needed)
