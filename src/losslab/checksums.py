"""What a file holds, told by its sha256.

Imports no torch: a config's identity asks for the content of files before anything is built.
"""

import functools
import hashlib
import re
from pathlib import Path

IMPOSTORS = {
    "a web page": (b"<!doctype html", b"<html", b"<?xml"),
    "a pointer of Git LFS, not the file itself": (b"version https://git-lfs",),
}
"""What often lies where a file of weights should, and how it begins."""


def sha256_of(path: Path | str) -> str:
    """Give the sha256 of a file's content in hex; a file that stands still is read once in a process.

    Args:
        path: of the file; `~` is the home folder.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     sha256_of(file.name)[:8]
        'e3b0c442'
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"there is no file {place.absolute()}")
    state = place.stat()
    # The time of the last change of any kind can't be set by a program, as the time of the last writing can.
    return _sha256(place.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def difference(path: Path, sha256: str | None, size: int | None = None) -> str:
    """Say how a file differs from the one that is wanted; nothing where it doesn't.

    Args:
        path: of the file.
        sha256: the wanted one, or its first 8 digits or more; None where it is unknown, and only what is no file of
            data at all can be told.
        size: the wanted one in bytes, if known.

    Raises:
        ValueError: `sha256` is none.
        FileNotFoundError: there is no such file.
    """
    wanted = None if sha256 is None else sha256.lower()
    if wanted is not None and not re.fullmatch("[0-9a-f]{8,64}", wanted):
        raise ValueError(f"a sha256 is 64 hexadecimal digits, of which the first 8 are enough, got {sha256!r}")
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size} bytes, expected {size}{_looks_like(path)}"
    if wanted is None:
        return _looks_like(path).removeprefix("; ")
    found = sha256_of(path)
    return "" if found.startswith(wanted) else f"its sha256 is {found}, expected {wanted}{_looks_like(path)}"


def _looks_like(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "; it is empty"
    kinds = [kind for kind, starts in IMPOSTORS.items() if start.startswith(starts)]
    return f"; it holds {kinds[0]}" if kinds else ""


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, *state: int) -> str:  # noqa: ARG001 - the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
