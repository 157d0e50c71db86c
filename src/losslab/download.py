"""The only file that touches the network: one file from one address, whole and checked, or not there."""

import base64
import contextlib
import hashlib
import http.client
import logging
import os
import re
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from losslab.alone import alone
from losslab.checksums import difference
from losslab.files import replace, write_text

OFFLINE = "LOSSLAB_OFFLINE"
"""The environment variable that forbids the network: 1 does, 0 or nothing does not."""

TIMEOUT = 30.0
"""Seconds without a byte until a connection counts as dead."""

PAUSES = (1.0, 4.0)
"""Seconds before each further try."""

CHUNK = 2**18
"""Bytes that are read at once."""

PASSING = (URLError, TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError)
"""Troubles of a network that may be gone at the next try."""

PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be others at the next try: RFC 9110, section 15; 425 is RFC 8470, 429 is RFC 6585."""

log = logging.getLogger(__name__)


class DownloadError(OSError):
    """A file is not here and can't be fetched; the message says how to get it by hand."""


@dataclass(frozen=True)
class _Wanted:
    """A file that should be on this machine."""

    url: str
    to: Path
    sha256: str | None
    size: int | None
    login: tuple[str, str] | None = field(repr=False)

    @property
    def part(self) -> Path:
        """Name the file that holds what came so far; of its content alone, so that a later process goes on with it."""
        content = self.sha256 or "unchecked-" + hashlib.sha256(self.url.encode()).hexdigest()[:6]
        return self.to.with_name(f".{self.to.name}.{content[:16]}.part")

    @property
    def state(self) -> Path:
        """Name the file that holds the server's word for the state of its file, where no checksum is known."""
        return self.part.with_suffix(".state")

    def __str__(self) -> str:
        """Say how to get the file by hand."""
        facts = [] if self.size is None else [f"{self.size} bytes"]
        if self.sha256 is not None:
            facts.insert(0, f"the sha256 {'that begins with ' if len(self.sha256) < 64 else ''}{self.sha256}")
        known = f", with {' and '.join(facts)}," if facts else ""
        return f"get {self.url} by other means{known} and put it at {self.to}"


def is_offline() -> bool:
    """Tell whether the user forbids the network."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def fetch(
    url: str, to: Path, sha256: str | None, size: int | None = None, login: tuple[str, str] | None = None
) -> Path:
    """Have a file on this machine: at once where it lies there already, else from its address.

    What comes is kept in a hidden file beside `to`, which a later try or process goes on with if the server can.
    Whether the parts make a whole is told by the checksum, so no server's word is needed that its file is the same.
    The file gets its name when it is complete, checked and on the disk.

    Where no checksum is known, a server's word has to do: a part is gone on with only if the server names states of its
    file (ETag or Last-Modified) and says that this one is the same, and complete is what has the promised length.

    Of several processes one downloads, and the others wait (`alone`). Where a mount keeps locks to the machine, two
    machines may write to the same hidden file: then the checksum fails for both and nothing gets the final name.

    Args:
        url: of the file, http or https.
        to: where it should lie.
        sha256: of its content, or the first 8 digits or more; None where nobody has told it: note down the one found.
        size: in bytes, if known.
        login: name and password for this address (HTTP's basic authentication), told to no other that it leads to.

    Returns:
        `to`.

    Raises:
        DownloadError: the file is not here, and the network is forbidden ($LOSSLAB_OFFLINE), can't be reached or
            has no such file; the message names address, checksum and place.
        ValueError: what lies there or was sent is another file; of the latter nothing is left.
    """
    wanted = _Wanted(url, to, None if sha256 is None else sha256.lower(), size, login)
    if not to.exists():
        if is_offline():
            raise DownloadError(f"{to.name} is not here, and {OFFLINE} forbids the network: {wanted}")
        to.parent.mkdir(parents=True, exist_ok=True)
        with alone(to, "downloads"):
            if not to.exists():
                _download(wanted)
                return to
    found = difference(to, sha256, size)
    if found:
        raise ValueError(f"{to} is not the file of {url}: {found}; remove it to have it fetched again")
    return to


def _download(wanted: _Wanted) -> None:
    is_resumed = wanted.part.exists()
    _receive_all(wanted)
    found = difference(wanted.part, wanted.sha256, wanted.size)
    wanted.state.unlink(missing_ok=True)
    if not found:
        replace(wanted.part, wanted.to)
        return
    wanted.part.unlink()
    if is_resumed:  # the older half may be at fault
        _download(wanted)
        return
    raise ValueError(f"{wanted.url} sent another file than {wanted.to.name}: {found}; nothing of it was kept")


def _receive_all(wanted: _Wanted) -> None:
    for pause in (*PAUSES, None):
        try:
            if _receive(wanted):
                return
            trouble: Exception = ConnectionError("the server closed the connection early")
        except HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is no more to come
            if error.code not in PASSING_CODES:
                raise DownloadError(f"{wanted.url} can't be fetched ({error}): {wanted}") from error
            trouble = error
        except PASSING as error:
            trouble = error
        if pause is None:
            raise DownloadError(f"{wanted.url} can't be fetched ({trouble}): {wanted}") from trouble
        log.info("%s: %s; trying again in %g s", wanted.url, trouble, pause)
        time.sleep(pause)


def _receive(wanted: _Wanted) -> bool:
    """Ask for what is missing of a file, and tell whether all that was promised came."""
    have = _have(wanted)
    with _opener().open(_request(wanted, have), timeout=TIMEOUT) as response, wanted.part.open("ab") as file:
        begin = _begin(response)
        if begin > have:
            raise http.client.HTTPException(f"asked for bytes from {have}, and got those from {begin}")
        file.truncate(begin)
        if wanted.sha256 is None:
            _compare_states(wanted, response, begin)
        length = response.headers["Content-Length"]
        end = begin + int(length) if length else wanted.size
        with _bar(wanted.to.name, begin, end) as advance:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
                begin += len(chunk)
                if wanted.size is not None and begin > wanted.size:
                    return True  # too much: the check will say so, and an endless answer has an end
    return end is None or begin >= end


def _have(wanted: _Wanted) -> int:
    """Count the bytes that can be gone on with."""
    if not wanted.part.exists():
        return 0
    if wanted.sha256 is None and not wanted.state.exists():
        wanted.part.unlink()  # of which state of the file it is the beginning, nobody can tell
        return 0
    return wanted.part.stat().st_size


def _request(wanted: _Wanted, have: int) -> urllib.request.Request:
    request = urllib.request.Request(_checked(wanted.url), headers={"User-Agent": "losslab"})  # noqa: S310 - checked
    if have:
        request.add_header("Range", f"bytes={have}-")
        if wanted.sha256 is None:
            request.add_header("If-Range", wanted.state.read_text(encoding="ascii"))
    if wanted.login is not None:
        secret = base64.b64encode(":".join(wanted.login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _compare_states(wanted: _Wanted, response: http.client.HTTPResponse, begin: int) -> None:
    """Keep the server's word for the state of the file that it begins to send; what follows must be of the same."""
    state = response.headers["ETag"] or response.headers["Last-Modified"] or ""
    is_same = bool(begin) and state == wanted.state.read_text(encoding="ascii")
    if is_same:
        return
    wanted.state.unlink(missing_ok=True)
    if begin:
        raise http.client.HTTPException("the end of the file in another state came")
    if state and state.isascii() and not state.startswith("W/"):  # a weak one says too little: RFC 9110, 13.1.5
        write_text(wanted.state, state)


def _begin(response: http.client.HTTPResponse) -> int:
    """Tell which byte of the file an answer starts with."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers["Content-Range"] or "")
    if not found:
        raise http.client.HTTPException("a part of the file came, and not which one")
    return int(found[1])


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects that stay on the web."""

    def redirect_request(self, *args: object) -> urllib.request.Request | None:
        """Follow one to http or https; the last argument is where it leads to."""
        _checked(str(args[-1]))
        return super().redirect_request(*args)  # type: ignore[arg-type]


def _checked(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"files are fetched by http or https, got {url}")
    return url


def _opener() -> urllib.request.OpenerDirector:
    """Make what opens addresses, without urllib's handlers of file:, ftp: and data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def _bar(name: str, begin: int, end: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far a download is, where a person looks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task(name, completed=begin, total=end)
        yield lambda size: progress.advance(task, size)
