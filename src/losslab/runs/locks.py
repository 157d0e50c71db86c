"""Who computes a cell: an operating-system lock on this machine, a heartbeat that other machines watch."""

import contextlib
import fcntl
import functools
import json
import os
import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BEAT_SECONDS = 5.0
"""Between two heartbeats."""

DIGITS = 12
"""Of the heartbeat's number: a fixed width, so that a beat overwrites the last one in its place."""


class LockError(ValueError):
    """A lock file that no losslab wrote."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process of a machine that was started once, and its latest heartbeat."""

    host: str
    boot: str
    pid: int
    beat: str

    def __str__(self) -> str:
        """Name the process for a person."""
        return f"process {self.pid} on {self.host}"


class CellLock:
    """The right to compute one cell, which ends with the process that has it.

    On one machine the system's lock (flock) tells the living from the dead, whatever process numbers say. Where the
    file was written by another machine, the lock counts as free when its heartbeat has stood still for `stale_seconds`
    of this machine's monotonic clock. Keep the object while waiting: it remembers since when.

    Args:
        path: the lock's file.
        stale_seconds: how long a heartbeat of another machine may stand still.
    """

    def __init__(self, path: Path, stale_seconds: float) -> None:
        """Keep the place."""
        self.path, self.stale_seconds = path, stale_seconds
        self.owner: Owner | None = None
        self._file: BinaryIO | None = None
        self._seen: tuple[Owner, float] | None = None
        self._stop = threading.Event()

    def claim(self, stale: Owner | None = None) -> bool:
        """Take the right, unless a live process has it; then `owner` tells who.

        Args:
            stale: an owner on another machine that an earlier watch found to stand still.

        Raises:
            LockError: the file holds something else.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = self._create() or self._take(stale)
            if file is not None:
                break
            if self.owner is not None:
                return False
        self._file, self.owner = file, None
        self._stop.clear()
        self._heart = threading.Thread(target=self._beat, args=(file,), daemon=True, name=f"heartbeat {self.path.name}")
        self._heart.start()
        return True

    def is_free(self) -> bool:
        """Tell whether a claim would succeed now; `owner` is who holds it, or the dead one that did."""
        try:
            file = self.path.open("r+b")
        except FileNotFoundError:
            self.owner = None
            return True
        with file:
            if not _try_lock(file):
                self.owner = self._read(file)
                return False
            self.owner = self._read(file)
            return self._is_dead(self.owner)

    def is_held(self) -> bool:
        """Tell whether the right is still ours: a machine that slept for long may have lost it to another."""
        if self._file is None:
            return False
        try:
            with self.path.open("rb") as file:
                owner = self._read(file)
        except (FileNotFoundError, LockError):
            return False
        if (owner.boot, owner.pid) != (boot(), os.getpid()):
            self.owner = owner
            return False
        return True

    def release(self) -> None:
        """Give the right back."""
        if self._file is not None:
            self._stop.set()
            self._heart.join()
            if self.is_held():
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _create(self) -> BinaryIO | None:
        """Make the file, whole and locked before it has its name; None if there is one."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            _remove_if_dead(left)
        own = self.path.with_name(f".{self.path.name}.{platform.node()}.{os.getpid()}")
        file = own.open("w+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, 0)
        try:
            os.link(own, self.path)
        except (FileExistsError, FileNotFoundError):  # another is there, or took ours for a dead one's: look again
            file.close()
            return None
        finally:
            own.unlink(missing_ok=True)
        return file

    def _take(self, stale: Owner | None) -> BinaryIO | None:
        """Take over a dead owner's file; None with `owner` set if it is alive, None alone if the file went away."""
        self.owner = None
        try:
            file = self.path.open("r+b")
        except FileNotFoundError:
            return None
        taken = False
        try:
            taken = self._may_take(file, stale)
        except FileNotFoundError:
            pass  # it was given back meanwhile
        finally:
            if not taken:
                file.close()
        return file if taken else None

    def _may_take(self, file: BinaryIO, stale: Owner | None) -> bool:
        locked = _try_lock(file)
        if not os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
            return False
        owner = self._read(file)
        if locked and (owner == stale or self._is_dead(owner)) and self._replace(file, owner):
            return True
        self.owner = owner
        return False

    def _replace(self, file: BinaryIO, owner: Owner) -> bool:
        _write(file, 0)
        if owner.boot == boot():
            return True
        # A file system may share files and not locks: two machines that find the same dead owner both write, and
        # the one that wrote last has it.
        time.sleep(1)
        return self._read(file).pid == os.getpid() and self._read(file).boot == boot()

    def _is_dead(self, owner: Owner) -> bool:
        """Judge an owner whose lock was free."""
        if owner.boot == boot():
            return True  # on this machine a living owner holds the lock
        now = time.monotonic()
        if self._seen is None or self._seen[0] != owner:
            self._seen = (owner, now)
        return now - self._seen[1] >= self.stale_seconds

    def _read(self, file: BinaryIO) -> Owner:
        text = os.pread(file.fileno(), 4096, 0)
        try:
            return Owner(**json.loads(text))
        except (ValueError, TypeError) as error:
            hint = "remove the file if no losslab is using this folder"
            raise LockError(f"{self.path} is no lock of losslab's; {hint}") from error

    def _beat(self, file: BinaryIO) -> None:
        beat = 0
        while not self._stop.wait(BEAT_SECONDS):
            if not self.is_held():
                return
            beat += 1
            with contextlib.suppress(OSError):  # a full disk stops no heart
                _write(file, beat)


def _remove_if_dead(path: Path) -> None:
    """Remove what a process left that was killed before its lock had a name."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        if _try_lock(file):
            path.unlink()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: BinaryIO, beat: int) -> None:
    owner = {"host": platform.node(), "boot": boot(), "pid": os.getpid(), "beat": f"{beat:0{DIGITS}}"}
    text = json.dumps(owner).encode()
    os.pwrite(file.fileno(), text, 0)
    os.ftruncate(file.fileno(), len(text))
    os.fsync(file.fileno())


@functools.cache
def boot() -> str:
    """Name this start of this machine's kernel, within which locks can be trusted."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else platform.node()
