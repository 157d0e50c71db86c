"""What made a result: versions, code, machine."""

import functools
import hashlib
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from losslab.runs.secrets import masked_words

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "kornia", "hydra-core", "omegaconf", "numpy")

READERS = ("reports",)
"""Parts of the package that only read results, and change none."""

PACKAGE = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, Any]:
    """Tell the versions of what computes, the state of the sources, the machine and the command."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries(),
        "code": code_hash(),
        "git": _git("rev-parse", "HEAD"),
        "git_changes": _git("status", "--porcelain"),
        "command": masked_words(sys.argv),
    }


@functools.cache
def libraries() -> dict[str, str | None]:
    """Tell the versions of the libraries that compute."""
    return {name: _version(name) for name in LIBRARIES}


@functools.cache
def code_hash() -> str:
    """Name the package's sources by a hash: the same sources are the same code, committed or not.

    It is taken once a process, so that an edit during a training is not written down as what made the result.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in READERS:
            continue
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@functools.cache
def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(  # noqa: S603 - fixed words, no shell
            ["git", *arguments],  # noqa: S607
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
