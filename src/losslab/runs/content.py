"""What the data hold, by a hash; read once, and known from then on by the files' sizes and times."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from losslab.config import build
from losslab.files import read_json, write_json
from losslab.runs.provenance import code_hash

ORDER = ("seed", "batch_size")
"""Keys of data that say in what order images come, and not what they hold."""

SETTLED_SECONDS = 2.0
"""A file that was written more recently may be written again within the same tick of the file system's clock."""


def content(settings: dict[str, Any], outputs: Path) -> str:
    """Name what a data set holds: the same images are the same data, wherever they lie.

    Args:
        settings: of the data, as plain dicts.
        outputs: where the hashes of unchanged files are kept.

    Raises:
        ValueError: the data can't be read; the message names the file or the key.
    """
    held = json.dumps({key: value for key, value in settings.items() if key not in ORDER}, sort_keys=True)
    data = build(settings)
    files = sorted(data.files())
    if not files:
        return _of_wheels(held, data)
    stats = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([held, code_hash(), stats]).encode()).hexdigest()
    known = outputs / ".content" / f"{key[:32]}.json"
    if found := read_json(known).get("content"):
        return str(found)
    fresh: str = data.fingerprint()
    if time.time_ns() - max(stat[2] for stat in stats) > SETTLED_SECONDS * 1e9:
        write_json(known, {"content": fresh})
    return fresh


_KNOWN: dict[str, str] = {}


def _of_wheels(held: str, data: Any) -> str:
    """Hash data that come with the installation: once a process, since nothing about them changes in between."""
    if held not in _KNOWN:
        _KNOWN[held] = str(data.fingerprint())
    return _KNOWN[held]
