"""Show how far apart pictures are under any losses: two files, two folders, or one folder within itself.

python src/compare.py a.png b.png loss=l2,lpips network=squeezenet1_1       a line a loss
python src/compare.py a.png b.png loss=ssim,l1 map=map.png                  where they differ
python src/compare.py one two loss=l2,ssim out=distances.csv                pictures of the same name, and the mean
python src/compare.py one loss=l2                                           each picture and the next one
python src/compare.py one loss=l2 pairs=all out=matrix.csv                  each picture and each other one
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from losslab.config import build, load, plain
from losslab.runs.sentences import in_one_sentence
from losslab.words import ending, one_of, sort_words, switch, whole

if TYPE_CHECKING:
    from losslab.losses.panel import Panel

WORDS = """\
words: those of train.py, several losses by commas, and
  size=64            all pictures to 64×64 pixels
  parts=true         two files: each loss's terms or layers
  map=map.png        two files: the distance at each pixel, of losses that have maps (l1, l2, lp, charbonnier, ssim,
                     patch_rbf, patch_laplacian, gabor, prewitt, scnn, deep, lpips); map.npy: as numbers
  missing=skip       two folders: leave out pictures without a partner
  pairs=consecutive  one folder: each picture and the next one by name, the default as in lpips; pairs=all: each two
  first=10           one folder: its first 10 pictures only
  out=distances.csv  folders: all distances in a file; of pairs=all, a matrix a loss
"""
MEANT = {
    "two pictures": ("size", "parts", "map"),
    "two folders": ("size", "missing", "out"),
    "one folder": ("size", "pairs", "first", "out"),
}
"""What of the words of its own each way to compare takes."""


def way(paths: Sequence[Path], own: Mapping[str, str]) -> str:
    """Tell which of `MEANT` is asked for.

    Raises:
        FileNotFoundError: a path is not there.
        ValueError: the paths are neither, or a word belongs to another way.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
    kinds = [path.is_dir() for path in paths]
    found = {(False, False): "two pictures", (True, True): "two folders", (True,): "one folder"}.get(tuple(kinds))
    if found is None:
        given = ", ".join(map(str, paths)) or "none"
        raise ValueError(f"two pictures, two folders or one folder are compared, got {len(paths)}: {given}")
    wrong = [key for key, value in own.items() if value and key not in MEANT[found]]
    if wrong:
        raise ValueError(f"{wrong[0]} is no word for {found}; these take {', '.join(MEANT[found])}")
    return found


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


def panel_of(settings: Mapping[str, dict[str, Any]]) -> "Panel":
    """Build all losses as one panel; members of a single panel go by their own names."""
    from losslab.losses.panel import Panel, several

    built = {name: build(loss) for name, loss in settings.items()}
    only = next(iter(built.values()))
    if len(built) == 1 and isinstance(only, Panel):
        return only
    return several({name or one.name: one for name, one in built.items()})


def compare(paths: Sequence[Path], own: Mapping[str, str], words: Sequence[str]) -> None:
    """Check all words, then print and write what they ask for.

    Raises:
        ValueError: a word, a picture or a folder is refused.
    """
    settings = dict(asked(words))
    found = way(paths, own)
    size, first = (whole(key, own[key]) if own[key] else None for key in ("size", "first"))
    parts = switch("parts", own["parts"] or "false")
    chart, out = ending("map", own["map"], (".png", ".npy")), ending("out", own["out"], (".csv",))
    skip = one_of("missing", own["missing"] or "error", ("error", "skip")) == "skip"
    pairs = one_of("pairs", own["pairs"] or "consecutive", ("consecutive", "all"))
    # These import torch, which takes seconds that a wrong word should not wait for.
    from losslab.comparing.one_folder import one_folder
    from losslab.comparing.two_folders import two_folders
    from losslab.comparing.two_pictures import two_pictures

    panel = panel_of(settings)
    if found == "one folder":
        one_folder(panel, paths[0], size, out, pairs, first)
    elif found == "two folders":
        two_folders(panel, paths, size, out, skip=skip)
    else:
        two_pictures(panel, paths, size, chart, parts=parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog=WORDS, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="FILE|FOLDER|key=value")
    with in_one_sentence():
        compare(*sort_words(parser.parse_args().words, dict.fromkeys(chain.from_iterable(MEANT.values()), "")))
