"""Names of layers: aliases, depth slots, study indices and graph nodes, turned into one canonical name each.

Without torch, so that a config with a wrong layer fails before anything is imported.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

PIXELS = "pixels"
"""The layer before the first one: the image itself, in the range that the network is fed."""

CHILD = "child:"
"""What goes before an index into the children of a network, as in the code of Pihlgren et al., arXiv 2302.04032."""

EACH = "each"
"""What stands for the four slots, one a loss of a panel."""

KINDS = f"a name, a depth slot 1..4, {CHILD}INDEX, a list of these, all, or {EACH} for a panel"
"""What `layer=` may be."""

Layer = str | int


def canonical_layers(network: Mapping[str, Any], layer: Any) -> list[str]:
    """Turn what a user calls a layer, or a list of these, into canonical names, those of the table in its order.

    Args:
        network: a config of `conf/network`: `name`; `layers` (canonical name to graph node, the network's children from
            the image upwards; empty where they aren't known beforehand) and `slots` (the four study layers).
        layer: a name or graph node of the table, a graph node inside one of these (`layer1.0.conv1`), a depth slot
            1..4, an index `child:15`, a list of these, or `all` for the four slots.

    Raises:
        ValueError: a slot or index out of range, no layer at all, what can be none, or a layer that is named twice.
        KeyError: an unknown layer; the message names the nearest ones.

    Example:
        >>> table = {"name": "tiny", "layers": {"conv1": "0", "relu1": "1"}, "slots": ["relu1"]}
        >>> canonical_layers(table, [1, "pixels", "child:0"])
        ['pixels', 'conv1', 'relu1']
    """
    if layer == "all":
        layer = list(range(1, 1 + len(network["slots"])))
    wanted = [] if layer in (None, "") else [layer] if _is_one(layer) else layer
    if not _is_list(wanted) or not all(_is_one(one) for one in wanted):
        raise ValueError(f"layer is {KINDS}, got {_shown(layer)}")
    if not wanted:
        raise ValueError(_which(network))
    names = [_canonical(network, one) for one in wanted]
    if len(set(names)) < len(names):
        raise ValueError(f"a layer of {network['name']} is named twice: {list(wanted)} means {names}")
    return sorted(names, key=lambda name: _place(network, name))


def chosen_layers(network: Mapping[str, Any], layer: Any) -> list[str] | list[list[str]]:
    """Do what `canonical_layers` does, also for a panel.

    Args:
        network: a config of `conf/network`.
        layer: what `canonical_layers` takes, for one loss; for a panel a list of lists, one a loss, or `each`: the four
            slots, one a loss.

    Raises:
        ValueError: as `canonical_layers`.
        KeyError: as `canonical_layers`.

    Example:
        >>> chosen_layers({"name": "tiny", "layers": {"conv1": "0", "relu1": "1"}, "slots": ["conv1", "relu1"]}, "each")
        [['conv1'], ['relu1']]
    """
    if layer == EACH:
        return [[name] for name in canonical_layers(network, "all")]
    if is_panel(layer):
        return [canonical_layers(network, some) for some in layer]
    return canonical_layers(network, layer)


def flat_layers(network: Mapping[str, Any], layer: Any) -> list[str]:
    """Give the canonical names of all layers that a choice names, whether it is for one loss or for several.

    Args:
        network: a config of `conf/network`.
        layer: what `chosen_layers` takes.

    Raises:
        ValueError: as `canonical_layers`.
        KeyError: as `canonical_layers`.

    Example:
        >>> table = {"name": "tiny", "layers": {"conv1": "0", "relu1": "1"}, "slots": ["conv1", "relu1"]}
        >>> flat_layers(table, [["relu1"], ["relu1", "conv1"]])
        ['conv1', 'relu1']
    """
    rows = [[one] if isinstance(one, str) else one for one in chosen_layers(network, layer)]
    return canonical_layers(network, list(dict.fromkeys(name for row in rows for name in row)))


def is_panel(layer: Any) -> bool:
    """Tell whether a choice of layers is one for several losses."""
    return layer == EACH or (_is_list(layer) and any(_is_list(one) for one in layer))


def node_of(layers: Mapping[str, str], name: str) -> str:
    """Give the graph node of a canonical name."""
    return layers.get(name, name)


def _is_one(layer: Any) -> bool:
    """Tell whether something can be a layer's name, slot or index; true is no slot 1."""
    return isinstance(layer, (str, int)) and not isinstance(layer, bool)


def _is_list(layer: Any) -> bool:
    return isinstance(layer, Sequence) and not isinstance(layer, str)


def _shown(layer: Any) -> str:
    """Write a value as a command does."""
    return str(layer).lower() if isinstance(layer, bool) else str(layer)


def _which(network: Mapping[str, Any]) -> str:
    """Ask for a layer."""
    name, layers = network["name"], network["layers"]
    if not layers:
        return f"no layers of {name} are known beforehand: src/layers.py lists them, layer= or loss.layers= names some"
    named = network["slots"] or [*layers]
    return f"which layers of {name}? layer= names none: give {KINDS}, such as layer={named[-1]}"


def _canonical(network: Mapping[str, Any], layer: Layer) -> str:
    layers, name = network["layers"], network["name"]
    if isinstance(layer, int):
        return str(_counted(network["slots"], layer, 1, f"layer {layer} of {name}: a whole number is a depth slot"))
    if layer.startswith(CHILD):
        index = layer.removeprefix(CHILD)
        asked = int(index) if index.isdecimal() else -1
        return str(_counted([*layers], asked, 0, f"layer {layer!r} of {name}: the children are counted"))
    by_node = {node: alias for alias, node in layers.items()}
    if layer == PIXELS or layer in layers:
        return layer
    if layer in by_node:
        return str(by_node[layer])
    outer = _outer(layers, layer)
    if outer is not None:
        return node_of(layers, outer) + layer[len(outer if layer.startswith(f"{outer}.") else node_of(layers, outer)) :]
    if not layers:
        return layer
    near = get_close_matches(layer, [PIXELS, *layers, *by_node], n=1, cutoff=0)
    raise KeyError(f"unknown layer {layer!r} of {name}; did you mean {near[0]!r}?")


def _counted(names: Sequence[str], index: int, first: int, sentence: str) -> str:
    last = first + len(names) - 1
    if not names:
        raise ValueError(f"{sentence}, but none are known: give the names of layers")
    if not first <= index <= last:
        raise ValueError(f"{sentence} from {first} to {last}")
    return names[index - first]


def _outer(layers: Mapping[str, str], layer: str) -> str | None:
    """Name the entry of the table that a graph node lies inside of."""
    return next((name for name, node in layers.items() if layer.startswith((f"{node}.", f"{name}."))), None)


def _place(network: Mapping[str, Any], name: str) -> tuple[int, bool, list[str | int]]:
    """Order names as the table does, and those inside an entry before it, numbers by their value."""
    layers = network["layers"]
    order = [PIXELS, *layers]
    outer = name if name in order else _outer(layers, name)
    pieces: list[str | int] = [int(one) if one.isdecimal() else one for one in re.split(r"(\d+)", name)]
    return order.index(outer) if outer in order else len(order), name in order, pieces
