"""Archives from elsewhere, unpacked whole into a folder of their own, or not at all."""

import gzip
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

CHUNK = 2**18
"""Bytes that are read at once."""

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
"""How such files begin: RFC 1952, section 2.3.1; APPNOTE.TXT of PKWARE, section 4.3.7."""

BLOCK = 512
"""Bytes of a tar's block, of which one at least stands empty at its end: POSIX, pax."""

OVERHEAD = 8 * BLOCK
"""Bytes of a tar that an entry takes at most beside its content: its own header, one of a long name, and padding."""

DAMAGES = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Entry:
    """What an archive holds under one name: a folder (no size), or a file to be read now."""

    name: str
    size: int | None
    file: IO[bytes] | None = None


def unpack(archive: Path, to: Path, most_bytes: int, most_entries: int) -> None:
    """Unpack a tar, a gzip of one or a zip, whatever its name says, into a new folder.

    The folder gets its name when all is in it and on the disk: what a killed process has left is hidden beside it, and
    removed by the next one. Of two processes at once, the caller lets one in (`alone`).

    Args:
        archive: the file.
        to: the new folder; its parent exists.
        most_bytes: all content may have together.
        most_entries: files and folders there may be.

    Raises:
        ValueError: the archive is damaged, breaks off or is none; or an entry is refused: it would lie outside the
            folder, is no plain file or folder, takes another one's name (also where upper and lower case are one), or
            exceeds what is allowed. The message names it, and nothing is left.
        FileExistsError: there is something at `to`.
    """
    if to.exists():
        raise FileExistsError(f"{to} is there already: nothing is unpacked over it")
    partial = to.with_name(f".{to.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _fill(partial, archive, most_bytes, most_entries)
        os.sync()  # of many small files at once
        partial.rename(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(folder: Path, archive: Path, most_bytes: int, most_entries: int) -> None:
    names, left = _Names(archive), most_bytes
    number = 0
    try:
        with _entries(archive, most_bytes + most_entries * OVERHEAD) as entries:
            for number, entry in enumerate(entries, 1):
                place = names.place(entry.name, is_folder=entry.size is None)
                left -= entry.size or 0
                if number > most_entries or left < 0:
                    raise ValueError(
                        f"{archive} is refused at {entry.name!r}: it has more than "
                        f"{most_entries} entries or {most_bytes} bytes"
                    )
                _write(folder / place, entry)
    except DAMAGES as error:
        raise ValueError(f"{archive} is no whole tar, gzip of one or zip: {error}") from error
    if not number:
        raise ValueError(f"{archive} is an empty archive")


def _write(path: Path, entry: _Entry) -> None:
    if entry.file is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(entry.file, file, CHUNK)
    if path.stat().st_size != entry.size:
        raise EOFError(f"{entry.name!r} breaks off")


class _Names:
    """The names of an archive, none twice and none outside."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.taken: dict[str, tuple[str, bool]] = {}

    def place(self, name: str, *, is_folder: bool) -> PurePosixPath:
        """Give the place of an entry in the folder.

        Raises:
            ValueError: the name is refused.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise self._refusal(name, "its place would be outside the folder")
        if not path.parts and not is_folder:
            raise self._refusal(name, "it has no name")
        self._take(path, is_folder=is_folder)
        return path

    def _take(self, path: PurePosixPath, *, is_folder: bool) -> None:
        if not path.parts:
            return
        self._take(path.parent, is_folder=True)
        # On a file system that takes upper and lower case, or two spellings of an accent, for one, they would clash.
        key = unicodedata.normalize("NFC", str(path)).casefold()
        known, own = self.taken.get(key), (str(path), is_folder)
        if known is not None and (known != own or not is_folder):
            raise self._refusal(str(path), f"the name of {known[0]!r} is taken")
        self.taken[key] = own

    def _refusal(self, name: str, reason: str) -> ValueError:
        return ValueError(f"{self.archive} is refused at {name!r}: {reason}")


@contextmanager
def _entries(archive: Path, most: int) -> Iterator[Iterator[_Entry]]:
    """Open an archive as what it is; `most` bytes of a tar are read at most."""
    with archive.open("rb") as file:
        start = file.read(len(ZIP))
        file.seek(0)
        if start == ZIP:
            with zipfile.ZipFile(file) as opened:
                yield _of_zip(opened, archive)
        elif start.startswith(GZIP):
            with gzip.open(file) as inner:
                yield _of_tar(_Counted(inner, most, archive), archive)
        else:
            yield _of_tar(_Counted(file, most, archive), archive)


class _Counted:
    """A stream that must not be longer than is allowed, and remembers its end."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int, archive: Path) -> None:
        self.file, self.left, self.archive, self.end = file, most, archive, b""

    def read(self, size: int) -> bytes:
        """Give the next bytes."""
        found = self.file.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise ValueError(f"{self.archive} is refused: it holds far more than is known of it")
        self.end = (self.end + found[-BLOCK:])[-BLOCK:]
        return found


def _of_tar(stream: _Counted, archive: Path) -> Iterator[_Entry]:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as opened:  # type: ignore[call-overload] # reads alone
        for member in opened:
            if member.isdir():
                yield _Entry(member.name, None)
            elif member.isreg() and not member.issparse():
                yield _Entry(member.name, member.size, opened.extractfile(member))
            else:
                raise ValueError(f"{archive} is refused at {member.name!r}: it is no plain file or folder")
    while stream.read(CHUNK):
        pass
    if stream.end != bytes(BLOCK):
        raise EOFError("it breaks off")


def _of_zip(opened: zipfile.ZipFile, archive: Path) -> Iterator[_Entry]:
    for member in opened.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)  # of Unix, where the archive was made there
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & 1:
            raise ValueError(f"{archive} is refused at {member.filename!r}: it is no plain file or folder")
        if member.is_dir():
            yield _Entry(member.filename, None)
            continue
        with opened.open(member) as file:
            yield _Entry(member.filename, member.file_size, file)
