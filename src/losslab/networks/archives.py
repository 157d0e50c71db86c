"""Files inside the archives that package indexes keep, read in memory and never unpacked."""

import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path

LARGEST = 2**28
"""Bytes of a file inside an archive: more than any of ours has, and no bomb."""

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, NotImplementedError, ValueError)
"""What Python's readers raise on archives that are cut off or changed."""


def read_inside(path: Path, ending: str, sha256: str, command: str) -> bytes:
    """Give the content of one file of an archive, or of the file itself where `path` is not an archive.

    Args:
        path: of a wheel (.whl, .zip), a source package (.tar.gz), or of the file.
        ending: of the file's name inside the archive.
        sha256: of the file's content, all 64 digits.
        command: that gets the archive, for the message that it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive is damaged or has no such file, or its content is another one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.absolute()}; get it there by: {command}")
    try:
        content = _content(path, ending)
    except DAMAGED as error:
        raise ValueError(f"{path} can't be read: {type(error).__name__}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ValueError(f"{path}: the sha256 of {ending} is {found}, expected {sha256}")
    return content


def _content(path: Path, ending: str) -> bytes:
    if path.name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(path) as wheel:
            sizes = {one.filename: one.file_size for one in wheel.infolist()}
            return wheel.read(_only(sizes, ending))
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(path) as package:
            sizes = {one.name: one.size for one in package.getmembers() if one.isfile()}
            inside = package.extractfile(_only(sizes, ending))
            return inside.read() if inside else b""
    return path.read_bytes()


def _only(sizes: dict[str, int], ending: str) -> str:
    found = [name for name in sizes if name.endswith(ending)]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} files that end in {ending}, expected one")
    if sizes[found[0]] > LARGEST:
        raise ValueError(f"{found[0]} has {sizes[found[0]]} bytes, and more than {LARGEST} are not read")
    return found[0]
