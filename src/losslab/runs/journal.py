"""The journal: a line for each cell that ended and for each sweep that began; every table is made from it."""

import fcntl
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

FINAL = ("done", "diverged")
"""States that are results: a later attempt that was interrupted or failed does not hide them."""

CHECKSUM = re.compile(rb', "sum": "([0-9a-f]{8})"\}$')


class Journal:
    """A file of JSON lines, each with a checksum over its own text.

    Args:
        path: the file; it may not exist yet.
        start: bytes to pass over.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        """Begin with nothing read."""
        self.path = path
        self._forget()
        self._offset = start

    @property
    def size(self) -> int:
        """Count the bytes of the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def _forget(self) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.damaged: list[int] = []
        self.line_of: dict[str, int] = {}
        self.lines = self._offset = 0

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line under a lock and wait until it is on the disk.

        A line that a crash has torn is closed first, so that it stays the only one that is lost; where the disk is
        full, what was written of this one is taken back.

        Raises:
            ValueError: the entry holds a NaN or an infinite number, which JSON has no word for.
        """
        body = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
        line = body[:-1] + f', "sum": "{zlib.crc32(body):08x}"}}\n'.encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = b"\n" + line
            try:
                if file.write(line) < len(line):
                    file.write(line[file.seek(0, os.SEEK_END) - end :])  # raises what cut the first one short
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise

    def read(self) -> list[dict[str, Any]]:
        """Read what is new since the last call into `cells`, `sweeps` and `damaged`, and give the new lines."""
        if not self.path.exists():
            self._forget()
            return []
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # nobody is in the middle of a line
            if os.fstat(file.fileno()).st_size < self._offset:
                self._forget()  # it is another file
            file.seek(self._offset)
            text = file.read()
        # A torn end is seen as damaged now, and again as a part of what closes it later: it is not counted twice.
        whole, newline, torn = text.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        found = []
        for line in whole.split(b"\n") if newline else []:
            if (entry := self._parse(line)) is not None:
                self._sort_in(entry)
                found.append(entry)
        self.torn = bool(torn)
        return found

    torn = False
    """Whether the last line has no end."""

    def complaint(self) -> str | None:
        """Say which lines could not be used."""
        lines = [*self.damaged, *([self.lines + 1] if self.torn else [])]
        if not lines:
            return None
        which = f"line {lines[0]} is" if len(lines) == 1 else f"lines {', '.join(map(str, lines))} are"
        held = "it" if len(lines) == 1 else "they"
        return f"{self.path}: {which} damaged and left out; what {held} held counts as not done"

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        self.lines += 1
        found = CHECKSUM.search(line)
        body = line[: found.start()] + b"}" if found else b""
        if found and f"{zlib.crc32(body):08x}".encode() == found.group(1):
            entry: dict[str, Any] = json.loads(body)
            return entry
        self.damaged.append(self.lines)
        return None

    def _sort_in(self, entry: dict[str, Any]) -> None:
        if "cells" in entry:
            self.sweeps[entry["sweep"]] = entry
            return
        self.line_of[entry["cell"]] = self.lines
        before = self.cells.get(entry["cell"])
        if before is None or before["state"] not in FINAL or entry["state"] in FINAL:
            self.cells[entry["cell"]] = entry
