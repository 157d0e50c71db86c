"""The one writer of a run's files: whole under the final name, or not there."""

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a text file by a temporary file in the same folder, flushed to the disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    replace(partial, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in the same way."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def replace(partial: Path, path: Path) -> None:
    """Give a whole file its final name, and make the renaming itself last."""
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
