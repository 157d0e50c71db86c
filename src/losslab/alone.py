"""One process at a time makes a file; the others wait for it."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(to: Path, doing: str = "makes") -> Iterator[None]:
    """Wait until no other process makes this file, and keep others from it meanwhile.

    The lock (flock) dies with its process. Linux passes these locks on to an NFS server; where a mount keeps them to
    the machine, two machines may be here at once: whoever writes must give the final name to whole files only.

    Args:
        to: the file; its folder exists.
        doing: what the others do with it, for the log.
    """
    path = to.with_name(f".{to.name}.lock")
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that %s %s", doing, to.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        # Who was before us has removed its lock: somebody else may hold a new one under the same name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
