"""The journal: one line a finished cell, appended whole; every table is made from it."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines.

    Args:
        path: the file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path."""
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line under a lock and wait until it is on the disk.

        A line that a crash has torn is closed first, so that it stays the only one that is lost.

        Raises:
            ValueError: the entry holds a NaN or an infinite number, which JSON has no word for.
        """
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> Iterator[dict[str, Any]]:
        """Give the whole lines in the order of their writing; torn ones are left out."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def last(self, cell_id: str) -> dict[str, Any] | None:
        """Give the last line of one cell, or None."""
        found = [entry for entry in self.entries() if entry.get("cell") == cell_id]
        return found[-1] if found else None
