"""Show the layers of a loss network and what each gives of an image: python src/layers.py network=vgg16 side=64."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.config import build, load, plain
from losslab.networks.layers import PIXELS, flat_layers
from losslab.runs.sentences import in_one_sentence
from losslab.words import sort_words, whole

if TYPE_CHECKING:
    from losslab.networks.table import LayerRow, LayerTable

HEAD = "{:32} {:4} {:5} {:>25} {:>6} {:>10} {:>8}".format(
    "layer", "slot", "child", "channels × height × width", "stride", "sees", "GFLOP"
)


def show_layers(files: Sequence[Path], side: int, words: Sequence[str]) -> None:
    """Print a line for each layer of a network, or for those that are asked for, for square images.

    Args:
        files: none.
        side: of the images, in pixels.
        words: that choose the network, and with `layer=` some of its layers.

    Raises:
        ValueError: another word, a network that is no graph, or a layer that has no place in the image.
    """
    for word in (*map(str, files), *words):
        key = word.partition("=")[0]
        if "=" not in word or not f"{key}.".startswith(("network.", "layer.")):
            raise ValueError(f"the words are network=NAME, network.KEY=..., layer=... and side=PIXELS, got {word!r}")
    settings = plain(load(*words))
    network = settings["network"]
    if "architecture" not in network:
        raise ValueError(f"{network['name']} is no graph of layers; it has {', '.join(network['layers'])}")
    named = any(word.startswith("layer=") for word in words)
    only = flat_layers(network, settings["layer"]) if named else []
    if PIXELS in only:
        raise ValueError(f"{PIXELS} is the image as the network is fed it, and no layer of its graph")

    from losslab.networks.table import layer_table  # torch takes seconds, which a wrong word should not wait for

    table = layer_table(build(network["architecture"]), network, side, only)
    print(*lines(network, table, side, only), sep="\n")


def lines(network: dict[str, Any], table: "LayerTable", side: int, only: Sequence[str]) -> Iterator[str]:
    """Give the lines for some layers, or for all and what is left out.

    Raises:
        ValueError: one of `only` is no map, or the image is too small for it.
    """
    rows, name = {row.name: row for row in table.rows}, network["name"]
    for layer in only:
        if layer in table.others:
            raise ValueError(f"{layer} of {name} is no map of channels × height × width")
        if layer not in rows:
            raise ValueError(_unreached(name, layer, side, table.why))
    yield HEAD
    yield from (line(rows[layer]) for layer in only or rows)
    if table.others and not only:
        yield f"not listed: {len(table.others)} nodes that are no maps of places, such as {table.others[0]}"
    if table.unreached and not only:
        yield _unreached(name, f"{table.unreached} and what comes after it", side, table.why)


def _unreached(name: str, layer: str, side: int, why: str) -> str:
    if why:
        return f"images of {side} pixels can't be run to {layer} of {name}: {why}"
    return f"images of {side} pixels are too small for {layer}"


def line(row: "LayerRow") -> str:
    """Give a layer's line."""
    size = " × ".join(map(str, row.shape))
    sees = f"{row.field.size}{' + all' if row.field.whole else ''}"
    slot, child = ("" if one is None else one for one in (row.slot, row.child))
    stride, sees = (row.field.stride, sees) if row.field.known else ("?", "?")
    return f"{row.name:32} {slot:>4} {child:>5} {size:>25} {stride:>6} {sees:>10} {row.flops / 1e9:>8.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    words_help = "network=NAME as for train.py, side=PIXELS, and layer= for some of its layers"
    parser.add_argument("words", nargs="*", metavar="key=value", help=words_help)
    with in_one_sentence():
        given, own, rest = sort_words(parser.parse_args().words, {"side": "224"})
        show_layers(given, whole("side", own["side"]), rest)
