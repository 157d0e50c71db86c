"""Which pictures of folders belong together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from losslab.data.pictures import first_of
from losslab.images import SUFFIXES

Partners = dict[str, tuple[Path, Path]]
"""The picture of each of two folders, by the name that they share."""


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures in a folder by name, those in folders inside it left out.

    Raises:
        ValueError: there is none.
    """
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise ValueError(f"{folder} holds no picture ({' '.join(SUFFIXES)})")
    return found


def partners(first: Path, second: Path) -> tuple[Partners, list[Path]]:
    """Pair the pictures of two folders by file name; without the suffix, where no name needs it to be told apart.

    Args:
        first: a folder.
        second: another one.

    Returns:
        The pairs by name, in order, and the pictures without a partner.

    Raises:
        ValueError: a folder holds no picture, or no two belong together.
    """
    inside = pictures_in(first), pictures_in(second)
    bare = all(max(Counter(path.stem for path in paths).values()) == 1 for paths in inside)
    a, b = ({path.stem if bare else path.name: path for path in paths} for paths in inside)
    pairs = {name: (path, b[name]) for name, path in a.items() if name in b}
    alone = [path for own, other in ((a, b), (b, a)) for name, path in own.items() if name not in other]
    if not pairs:
        raise ValueError(f"no picture in {first} has the name of one in {second}: {named(alone)}")
    return pairs, alone


def named(paths: Sequence[Path]) -> str:
    """Name the first few files, and count the others."""
    return first_of([str(path) for path in paths])
