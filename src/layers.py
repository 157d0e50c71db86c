"""Show the layers of a loss network and what each gives of an image: python src/layers.py network=vgg16 side=64."""

import argparse
from typing import Any

from losslab.config import build, load, plain
from losslab.runs.sentences import in_one_sentence
from losslab.words import sort_words, whole


def show_layers(network: dict[str, Any], side: int) -> None:
    """Print a line for each layer of a network's config, for square images of `side` pixels."""
    from losslab.networks.table import layer_rows  # torch takes seconds, which a wrong word should not wait for

    if "architecture" not in network:
        raise ValueError(f"{network['name']} is no graph of layers; it has {', '.join(network['layers'])}")
    print(
        f"{'layer':32} {'slot':4} {'child':5} {'channels × height × width':>25} {'stride':>6} {'sees':>10} {'GFLOP':>8}"
    )
    rows = layer_rows(build(network["architecture"]), network, side)
    for row in rows:
        size = " × ".join(map(str, row.shape))
        sees = f"{row.field.size}{' + all' if row.field.whole else ''}"
        slot, child = ("" if one is None else one for one in (row.slot, row.child))
        print(f"{row.name:32} {slot:>4} {child:>5} {size:>25} {row.field.stride:>6} {sees:>10} {row.flops / 1e9:>8.3f}")
    shown = {row.name for row in rows}
    if missing := [name for name in network["layers"] if name not in shown]:
        print(f"images of {side} pixels are too small for {missing[0]} and what comes after it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="key=value", help="network=NAME as for train.py, and side=PIXELS")
    with in_one_sentence():
        _, own, words = sort_words(parser.parse_args().words, {"side": "224"})
        show_layers(plain(load(*words))["network"], whole("side", own["side"]))
