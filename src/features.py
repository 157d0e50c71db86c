"""Draw the channels of a layer for some pictures: python src/features.py a.png network=vgg16 layer=relu1_2."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.config import build, load, plain
from losslab.networks.layers import flat_layers
from losslab.runs.sentences import in_one_sentence
from losslab.words import present, sort_words, whole

OWN = {"channels": "64", "out": "features.png"}


def draw_features(files: Sequence[Path], channels: int, out: Path, settings: dict[str, Any]) -> None:
    """Write a picture for each layer that a config asks for, and print its path.

    Raises:
        ValueError: there is no file, one is no picture or too small, or the output is to be no PNG.
    """
    layers = flat_layers(settings["network"], settings["layer"])
    if not files:
        raise ValueError("which pictures? give at least one file")
    if out.suffix != ".png":
        raise ValueError(f"out is the name of a picture that ends in .png, got {out}")
    present(files)

    import torch  # it takes seconds, which a wrong word should not wait for

    from losslab import images
    from losslab.figures.feature_maps import feature_maps

    short = len({file.name for file in files}) == len(files)
    pictures = {file.name if short else str(file): images.to_float(images.read(file)) for file in files}
    network = build(settings["network"])(select=layers)
    for image in pictures.values():
        images.check(image, network.min_side, settings["network"]["name"])
    with torch.no_grad():
        found = {name: network.read(image) for name, image in pictures.items()}
    for layer in network.layers:
        path = out if len(layers) == 1 else out.with_stem(f"{out.stem}-{layer}")
        shown = {name: (image, found[name][layer]) for name, image in pictures.items()}
        images.write(path, feature_maps(f"{network.draw(0)}; {layer}", shown, channels))
        print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    words_help = (
        "network=, weights=, layer= as for train.py; and channels=64 (at most, from the first), out=features.png"
    )
    parser.add_argument("words", nargs="*", metavar="PICTURE|key=value", help=words_help)
    with in_one_sentence():
        given, own, rest = sort_words(parser.parse_args().words, OWN)
        draw_features(given, whole("channels", own["channels"]), Path(own["out"]), plain(load(*rest)))
