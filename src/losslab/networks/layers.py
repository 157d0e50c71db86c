"""Names of layers: aliases, depth slots and graph nodes, turned into one canonical name each before any hashing.

Without torch, so that a config with a wrong layer fails before anything is imported.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

PIXELS = "pixels"
"""The layer before the first one: the image itself, in the range that the network is fed."""

Layer = str | int


def canonical_layers(network: Mapping[str, Any], layer: Layer | Sequence[Layer]) -> list[str]:
    """Turn what a user calls a layer, or a list of these, into canonical names in the order of the network.

    Args:
        network: a config of `conf/network`: `name`, `layers` (canonical name to graph node, from the image upwards)
            and `slots` (the four study layers).
        layer: a name or graph node of the table, a depth slot 1..4, a list of these, or `all` for the four slots.

    Raises:
        ValueError: a slot outside 1..4, or a layer that is named twice.
        KeyError: an unknown layer; the message names the nearest ones.

    Example:
        >>> table = {"name": "tiny", "layers": {"conv1": "0", "relu1": "1"}, "slots": ["relu1"]}
        >>> canonical_layers(table, [1, "pixels", "0"])
        ['pixels', 'conv1', 'relu1']
    """
    if layer == "all":
        layer = [1, 2, 3, 4]
    wanted = [layer] if isinstance(layer, (str, int)) else layer
    names = [_canonical(network, one) for one in wanted]
    if len(set(names)) < len(names):
        raise ValueError(f"a layer of {network['name']} is named twice: {list(wanted)} means {names}")
    order = [PIXELS, *network["layers"]]
    return sorted(names, key=order.index)


def _canonical(network: Mapping[str, Any], layer: Layer) -> str:
    if isinstance(layer, int):
        if not 1 <= layer <= len(network["slots"]):
            raise ValueError(
                f"layer {layer} of {network['name']}: a whole number is a depth slot from 1 to {len(network['slots'])}"
            )
        return str(network["slots"][layer - 1])
    by_node = {node: name for name, node in network["layers"].items()}
    known = [PIXELS, *network["layers"]]
    if layer in known:
        return layer
    if layer in by_node:
        return str(by_node[layer])
    near = get_close_matches(layer, [*known, *by_node], n=1, cutoff=0)
    raise KeyError(f"unknown layer {layer!r} of {network['name']}; did you mean {near[0]!r}?")
