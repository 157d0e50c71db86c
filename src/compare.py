"""Show the distance of two pictures: python src/compare.py a.png b.png loss=l2,lpips network=squeezenet1_1."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from losslab.config import build, load, plain
from losslab.runs.sentences import in_one_sentence
from losslab.words import present, sort_words, switch, whole

if TYPE_CHECKING:
    from losslab.losses.panel import Panel
    from losslab.types import Image

OWN = {"size": "", "parts": "false"}


def compare(files: Sequence[Path], size: int | None, words: Sequence[str], *, parts: bool) -> None:
    """Print the distance of two files under each loss that the words ask for.

    Raises:
        ValueError: there are not two files, they are of two sizes, or a word or picture is refused.
    """
    settings = dict(asked(words))
    if len(files) != 2:
        raise ValueError(f"two pictures are compared, got {len(files)}: {', '.join(map(str, files)) or 'none'}")
    present(files)
    a, b, line = read(files, size)
    table = [("loss", "distance"), *rows(panel_of(settings), a, b, parts=parts)]
    width = max(len(name) for name, _ in table)
    print(line, *(f"{name:{width}}  {number}" for name, number in table), sep="\n")


def asked(words: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give name and config of each loss: commas mean several, as in a sweep, and what they vary gives the names."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in overrides
    ]
    varied = [one.is_sweep_override() or one.key_or_group == "loss" for one in overrides]
    for some in product(*choices):
        told = [word.removeprefix("loss=") for word, names in zip(some, varied, strict=True) if names]
        yield " ".join(told), plain(load(*some))["loss"]


def read(files: Sequence[Path], size: int | None) -> "tuple[Image, Image, str]":
    """Read two pictures, (1, 3, H, W) each, and say of what size they are.

    Raises:
        ValueError: a file is no picture, or their sizes differ and none is asked for.
    """
    from losslab import images  # torch takes seconds, which a wrong word should not wait for

    found = [images.to_float(images.read(file))[None] for file in files]
    if size is not None:
        found = [images.resize(one, size, size) for one in found]
    sizes = [f"{one.shape[-2]}×{one.shape[-1]}" for one in found]
    if sizes[0] != sizes[1]:
        both = " and ".join(f"{file} {side}" for file, side in zip(files, sizes, strict=True))
        raise ValueError(f"the pictures differ in height × width: {both}; size=64 resizes both to 64×64")
    how = "" if size is None else "resized to "
    line = f"{' and '.join(map(str, files))}, {how}{sizes[0]} pixels{' (bilinear, antialiased)' if how else ''}"
    return found[0], found[1], line


def panel_of(settings: dict[str, dict[str, Any]]) -> "Panel":
    """Build all losses as one panel; members of panels go by their own names where they can."""
    from losslab.losses.panel import Panel

    built = {name: build(loss) for name, loss in settings.items()}
    members: dict[str, Any] = {}
    for name, one in built.items():
        if isinstance(one, Panel):
            members |= {f"{name}: {each}" if len(built) > 1 else each: loss for each, loss in one.losses.items()}
        else:
            members[name or one.name] = one
    return Panel(members)


def rows(panel: "Panel", a: "Image", b: "Image", *, parts: bool) -> Iterator[tuple[str, str]]:
    """Give each loss and its distance, and below it, where asked for and several, its terms."""
    import torch

    (table,) = panel.measure(a, b)
    for name, distance in table.items():
        yield name, f"{distance.item():.6g}"
        if parts:
            loss = panel.losses[name]
            with torch.no_grad():
                terms = loss.parts(loss.encode(a), loss.encode(b))
            if len(terms) > 1:
                yield from ((f"  {term}", f"{share.item():.6g}") for term, share in terms.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    words_help = (
        "as for train.py, several losses by commas; and size=64 (both to 64×64 pixels), parts=true (terms, layers)"
    )
    parser.add_argument("words", nargs="*", metavar="FILE|key=value", help=words_help)
    with in_one_sentence():
        given, own, rest = sort_words(parser.parse_args().words, OWN)
        side = whole("size", own["size"]) if own["size"] else None
        compare(given, side, rest, parts=switch("parts", own["parts"]))
