"""The one writer of files: whole under the final name, or not there."""

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by a temporary one in the same folder, flushed to the disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = part_of(path)
    try:
        partial.write_bytes(content)
        replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file in the same way."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in the same way."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there is an empty one.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} holds no JSON ({error}); nothing of ours writes it so: remove it") from error
    return found


def part_of(path: Path) -> Path:
    """Name this process's temporary file of `path`, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_parts(folder: Path) -> None:
    """Remove the temporary files that a killed process has left in a folder and the folders inside it."""
    for partial in folder.rglob(".*.part"):
        partial.unlink(missing_ok=True)


def replace(partial: Path, path: Path) -> None:
    """Give a whole file its final name, when it is on the disk, and make the renaming itself last."""
    _flush(partial)
    os.replace(partial, path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
