"""The journal: a line for each cell that ended, each of its measures, each sweep that began. Tables come from it."""

import fcntl
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

FINAL = ("done", "diverged")
"""States that are results: a later attempt that was interrupted or failed does not hide them."""

MEASURE = "measure"
"""The kind of a line that tells how far a cell's result is under a further loss."""

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
        self.measures: dict[str, dict[str, dict[str, Any]]] = {}
        self.measured: dict[str, dict[str, Any]] = {}
        self.foreign: list[int] = []
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
        """Read what is new since the last call, and give the new lines.

        They go into `cells` and `sweeps`; into `measures`, those of a cell's present result by their names, and
        `measured`, all by their keys; the numbers of those that can't be used into `damaged` and `foreign`.
        """
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
        held = "it" if len(lines) == 1 else "they"
        says = [f"{_numbered(lines)} damaged and left out; what {held} held counts as not done"] if lines else []
        says += [f"{_numbered(self.foreign)} of a later losslab and left out"] if self.foreign else []
        return f"{self.path}: {'; '.join(says)}" if says else None

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
        if entry.get("kind") == MEASURE:
            self.measured[entry["key"]] = entry
            self.measures.setdefault(entry["cell"], {})[entry["measure"]] = entry
            return
        if "kind" in entry:
            self.foreign.append(self.lines)
            return
        if "cells" in entry:
            self.sweeps[entry["sweep"]] = entry
            return
        self.line_of[entry["cell"]] = self.lines
        before = self.cells.get(entry["cell"])
        if before is None or before["state"] not in FINAL or entry["state"] in FINAL:
            self.cells[entry["cell"]] = entry
            self.measures.pop(entry["cell"], None)  # they are of the result before


def measure_line(key: str, **says: Any) -> dict[str, Any]:
    """Write a line of a measure, which versions without measures take for a sweep of no cells, and pass over.

    Args:
        key: what it is known by.
        **says: its cell, its name and what was found.
    """
    return {"kind": MEASURE, "sweep": f"{MEASURE} {key}", "cells": [], "key": key, **says}


def _numbered(lines: list[int]) -> str:
    return f"line {lines[0]} is" if len(lines) == 1 else f"lines {', '.join(map(str, lines))} are"
