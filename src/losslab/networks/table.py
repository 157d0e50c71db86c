"""The layers of a network as a table: names, shapes, strides, receptive fields and cost, without any weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from losslab.networks.cutting import CANT_RUN, LARGEST_SIDE, Traced, first_line, is_map, own_shape
from losslab.networks.layers import node_of
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


@dataclass(frozen=True)
class LayerTable:
    """All layers of a network, for one square image.

    Args:
        rows: those that are maps of channels × height × width, from the image upwards.
        others: nodes whose numbers are none, such as tokens, or channels behind height and width.
        unreached: the first node that images of this size can't be run to, if there is one.
        why: not, if not because they are too small.
    """

    rows: list[LayerRow]
    others: list[str]
    unreached: str | None
    why: str


def layer_rows(architecture: Architecture, network: Mapping[str, Any], side: int) -> list[LayerRow]:
    """Give a row for each layer up to the last child, from the image upwards, for one square image.

    Args:
        architecture: of the network.
        network: its config: `layers` and `slots`.
        side: of the image in pixels; layers that it is too small for are left out.
    """
    return layer_table(architecture, network, side).rows


def layer_table(
    architecture: Architecture, network: Mapping[str, Any], side: int, further: Sequence[str] = ()
) -> LayerTable:
    """Give what `layer_rows` does, and what it leaves out.

    Args:
        architecture: of the network.
        network: its config: `layers` and `slots`.
        side: of the image in pixels.
        further: canonical names of layers that have a row too, such as blocks inside a child.

    Raises:
        KeyError: one of these is unknown; the message names the nearest one.
    """
    layers, slots = dict(network["layers"]), list(network["slots"])
    traced = Traced(architecture)
    nodes = {**_nodes(traced, layers), **{node_of(layers, name): name for name in further}}
    module = traced.cut([*nodes])
    made: dict[str, fx.Node] = next(node for node in module.graph.nodes if node.op == "output").args[0]
    measured = _Measured(module, _image(architecture, side))
    large = [_Shapes(module, _image(architecture, pixels)) for pixels in (LARGEST_SIDE, 2 * LARGEST_SIDE)]
    seen = fields(module)
    rows, others = [], []
    for node, name in nodes.items():
        one = made[node]
        if one not in measured.shapes:
            continue
        if not is_map(*(some.shapes.get(one, ()) for some in large)):
            others.append(name)
            continue
        channels, height, width = measured.shapes[one]
        rows.append(
            LayerRow(
                name=name,
                node=node,
                slot=slots.index(name) + 1 if name in slots else None,
                child=[*layers].index(name) if name in layers else None,
                shape=(channels, height, width),
                field=seen[node],
                flops=measured.cost(one),
            )
        )
    unreached = next((node for node in nodes if made[node] not in measured.shapes), None)
    is_small = unreached is None or made[unreached] in large[0].shapes
    return LayerTable(rows, others, unreached and nodes[unreached], "" if is_small else measured.why)


def _image(architecture: Architecture, side: int) -> Tensor:
    return torch.empty(1, architecture.channels, side, side, device="meta")


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


class _Shapes(fx.Interpreter):
    """Runs a cut architecture on the meta device up to the first layer that the image does not fit."""

    def __init__(self, module: fx.GraphModule, image: Tensor) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.why = ""
        try:
            self.run(image)
        except CANT_RUN as error:
            self.why = first_line(error)

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if not isinstance(made, Tensor) or made.numel() > 0:
            self.shapes[n] = own_shape(made)
        return made


class _Measured(_Shapes):
    """Counts what each node takes, too."""

    def __init__(self, module: fx.GraphModule, image: Tensor) -> None:
        self.flops: dict[fx.Node, int] = {}
        super().__init__(module, image)

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            made = super().run_node(n)
        self.flops[n] = counter.get_total_flops()
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
