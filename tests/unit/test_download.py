"""Downloads end with the one right file under its name, or with nothing there and a sentence that helps."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bapps_tree
import pytest

from losslab import download
from losslab.checksums import difference, sha256_of
from losslab.download import DownloadError, fetch

CONTENT = bytes(range(256)) * 2048
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@dataclass
class Site:
    """A server on this machine, and what it does with the requests that come, one after another."""

    plans: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    content: bytes = CONTENT
    url: str = ""
    elsewhere: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers as the site's plan says: whole, half, slow, stall, endless, page, hop, busy, gone, deaf or shifted."""

    site: Site

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep quiet."""

    def do_GET(self) -> None:
        """Send the next plan's answer; without plans, the file."""
        site = self.site
        asked = self.headers["Range"]
        site.ranges.append(asked)
        plan = site.plans.pop(0) if site.plans else "whole"
        if plan in ("busy", "gone"):
            self.send_error(503 if plan == "busy" else 404)
        elif plan == "hop":
            self.send_response(302)
            self.send_header("Location", site.elsewhere)
            self.end_headers()
        elif plan == "page":
            self.send_file(b"\n<!DOCTYPE html><title>Please log in</title>", 0)
        elif plan == "deaf":
            self.send_file(site.content, 0)
        elif plan == "shifted":
            self.send_file(site.content, HALF + 3)
        elif plan == "endless":
            self.send_response(200)
            self.end_headers()
            while site.sent < 100:
                self.wfile.write(site.content)
                site.sent += 1
        else:
            self.send_file(site.content, int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0, plan)

    def send_file(self, content: bytes, begin: int, plan: str = "whole") -> None:
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if plan == "slow":
            time.sleep(0.5)
        rest = content[begin:]
        self.wfile.write(rest[: len(rest) // 2] if plan in ("half", "stall") else rest)
        if plan == "stall":
            self.wfile.flush()
            self.site.stalled.set()
            self.site.over.wait(5)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv(download.OFFLINE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(socket, "getaddrinfo", only_this_machine(socket.getaddrinfo))
    own = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"site": own}))
    server.daemon_threads = True
    monkeypatch.setattr(server, "handle_error", lambda *_: None)  # clients are killed here
    own.url = f"http://127.0.0.1:{server.server_port}/models/net-{SHA256[:8]}.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield own
    own.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def only_this_machine(real: object) -> object:
    def look_up(host: str, *args: object, **kwargs: object) -> object:
        assert host == "127.0.0.1", f"a test reaches for {host}"
        return real(host, *args, **kwargs)  # type: ignore[operator]

    return look_up


def left(folder: Path) -> list[str]:
    """List all that lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def test_file_comes_whole(site: Site, tmp_path: Path) -> None:
    """What was asked for lies at its place, in a folder that is made for it, and nothing beside it."""
    to = tmp_path / "new" / "net.pth"
    assert fetch(site.url, to, SHA256, len(CONTENT)) == to
    assert to.read_bytes() == CONTENT
    assert left(to.parent) == ["net.pth"]


def test_nothing_is_fetched_twice(site: Site, tmp_path: Path) -> None:
    """A file that is there is used; also where nothing can be written beside it."""
    to = tmp_path / "net.pth"
    to.write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    try:
        assert fetch(site.url, to, SHA256[:8]) == to
    finally:
        tmp_path.chmod(0o700)
    assert site.ranges == []


@pytest.mark.parametrize(("content", "reason"), [(b"other" * 10, "its sha256 is"), (b"", "it is empty")])
def test_another_file_at_the_place_is_refused(site: Site, tmp_path: Path, content: bytes, reason: str) -> None:
    """A cache that was filled by hand is checked like a download, and left to its owner."""
    to = tmp_path / "net.pth"
    to.write_bytes(content)
    with pytest.raises(ValueError, match=rf"net\.pth is not the file of {site.url}: .*{reason}.*remove it"):
        fetch(site.url, to, SHA256)
    assert to.read_bytes() == content
    assert site.ranges == []


def test_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    """Another file than the wanted one never gets the name; both checksums are told."""
    site.content = CONTENT[:-1] + b"?"
    other = hashlib.sha256(site.content).hexdigest()
    with pytest.raises(ValueError, match=f"{site.url} sent another file .*its sha256 is {other}, expected {SHA256}"):
        fetch(site.url, tmp_path / "net.pth", SHA256)
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_web_page_is_called_so(site: Site, tmp_path: Path, size: int | None) -> None:
    """A log-in page that comes with status 200 is no file of weights."""
    site.plans = ["page"] * 3
    with pytest.raises((ValueError, DownloadError), match="it holds a web page" if size is None else "."):
        fetch(site.url, tmp_path / "net.pth", SHA256, size)
    assert left(tmp_path) == []


def test_endless_answer_has_an_end(site: Site, tmp_path: Path) -> None:
    """No more is kept than the size that is known."""
    site.plans = ["endless"]
    with pytest.raises(ValueError, match=f"bytes, expected {len(CONTENT)}"):
        fetch(site.url, tmp_path / "net.pth", SHA256, len(CONTENT))
    assert left(tmp_path) == []
    assert site.sent < 50


def test_early_end_is_resumed(site: Site, tmp_path: Path) -> None:
    """A connection that breaks costs only what is still missing."""
    site.plans = ["half"]
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={HALF}-"]
    assert left(tmp_path) == ["net.pth"]


def test_early_ends_without_end(site: Site, tmp_path: Path) -> None:
    """A server that never sends the end gives a clean error, and the next call goes on where this one stopped."""
    site.plans = ["half"] * 3
    with pytest.raises(DownloadError, match=rf"closed the connection early.*{site.url}.*{SHA256}.*net\.pth"):
        fetch(site.url, tmp_path / "net.pth", SHA256)
    assert not (tmp_path / "net.pth").exists()
    assert left(tmp_path) == [f".net.pth.{SHA256[:16]}.part"]
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert site.ranges[-1] == f"bytes={len(CONTENT) - len(CONTENT) // 8}-"
    assert left(tmp_path) == ["net.pth"]


@pytest.mark.parametrize("plan", ["deaf", "shifted"])
def test_server_that_can_not_resume(site: Site, tmp_path: Path, plan: str) -> None:
    """A whole file in answer to a wish for its end replaces the beginning; another part is not put behind it."""
    site.plans = ["half", plan]
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT


def test_part_of_another_file_is_not_resumed(site: Site, tmp_path: Path) -> None:
    """The beginning of a file under the same name, and a wrong beginning of this one, do no harm."""
    (tmp_path / f".net.pth.{'0' * 16}.part").write_bytes(b"another")
    (tmp_path / f".net.pth.{SHA256[:16]}.part").write_bytes(b"?" * HALF)
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert site.ranges == [f"bytes={HALF}-", None]


def test_complete_part_is_taken(site: Site, tmp_path: Path) -> None:
    """A process that was killed between the last byte and the name has lost nothing."""
    (tmp_path / f".net.pth.{SHA256[:16]}.part").write_bytes(CONTENT)
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert site.ranges == [f"bytes={len(CONTENT)}-"]


def test_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.plans = ["busy", "busy"]
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT


def test_missing_file_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    """404 is an answer: the message says how to get the file otherwise."""
    site.plans = ["gone"]
    with pytest.raises(DownloadError, match=rf"404.*get {site.url} by other means.*{SHA256}.*put it at .*net\.pth"):
        fetch(site.url, tmp_path / "net.pth", SHA256)
    assert len(site.ranges) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_redirect_off_the_web_is_refused(site: Site, tmp_path: Path, scheme: str) -> None:
    """A server can't make us read a file of this machine."""
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    site.plans, site.elsewhere = ["hop"], f"{scheme}://127.0.0.1{secret}"
    with pytest.raises((DownloadError, ValueError), match=f"{scheme}:"):
        fetch(site.url, tmp_path / "net.pth", SHA256)
    assert left(tmp_path) == ["secret"]


def test_redirect_on_the_web_is_followed(site: Site, tmp_path: Path) -> None:
    site.plans, site.elsewhere = ["hop"], site.url.replace("models", "mirror")
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT


def test_address_off_the_web_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(download.OFFLINE, raising=False)
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(ValueError, match="by http or https, got file:"):
        fetch((tmp_path / "secret").as_uri(), tmp_path / "net.pth", SHA256)
    assert left(tmp_path) == ["secret"]


def test_silent_server(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a byte for the time-out counts as broken."""
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    site.plans = ["stall"]
    begin = time.monotonic()
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert time.monotonic() - begin < 3
    assert site.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_names_the_file(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Without a network a user learns which file to bring, from where, how to know it, and where to put it."""
    monkeypatch.setenv("LOSSLAB_OFFLINE", value)
    to = tmp_path / "cache" / "net.pth"
    words = rf"LOSSLAB_OFFLINE.*get {site.url} by .*sha256 {SHA256} and {len(CONTENT)} bytes, and put it at {to}"
    with pytest.raises(DownloadError, match=words):
        fetch(site.url, to, SHA256, len(CONTENT))
    assert site.ranges == []
    assert left(tmp_path) == []


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the same is said."""
    monkeypatch.delenv(download.OFFLINE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    with socket.socket() as bound:  # a port that nobody listens on
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/net.pth"
        with pytest.raises(
            DownloadError, match=rf"refused.*get {url} .* begins with {SHA256[:8]}, and put it at .*net"
        ):
            fetch(url, tmp_path / "net.pth", SHA256[:8])


def another(url: str, to: Path) -> "subprocess.Popen[str]":
    """Fetch in a process of its own."""
    code = (
        f"from pathlib import Path; from losslab.download import fetch; fetch({url!r}, Path({str(to)!r}), {SHA256!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    """One gets the file, the other one waits and uses it."""
    site.plans = ["slow"]
    processes = [another(site.url, tmp_path / "net.pth") for _ in range(2)]
    assert [(process.wait(30), process.communicate()[1]) for process in processes] == [(0, ""), (0, "")]
    assert site.ranges == [None]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert left(tmp_path) == ["net.pth"]


def test_killed_download_is_continued(site: Site, tmp_path: Path) -> None:
    """After a kill there is no half file under the name, no lock that holds, and the next process goes on."""
    site.plans = ["stall"]
    killed = another(site.url, tmp_path / "net.pth")
    assert site.stalled.wait(30)
    part = tmp_path / f".net.pth.{SHA256[:16]}.part"
    while not part.exists() or not part.stat().st_size:
        time.sleep(0.01)
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "net.pth").exists()
    assert fetch(site.url, tmp_path / "net.pth", SHA256).read_bytes() == CONTENT
    assert site.ranges[1] == f"bytes={HALF}-"
    assert left(tmp_path) == ["net.pth"]


def test_checksum_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that stands still is read once; one that was changed behind the same size and time is read again."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    reads: list[object] = []
    real = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        reads.append(file)
        return real(file, name)

    monkeypatch.setattr("hashlib.file_digest", counted)
    assert sha256_of(path) == sha256_of(str(path)) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
    times = path.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("sha256", ["", "abc", "z" * 64, "0" * 65])
def test_what_is_no_checksum_is_refused(tmp_path: Path, sha256: str) -> None:
    """An empty prefix would fit every file."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a sha256 is 64 hexadecimal digits"):
        difference(tmp_path / "file", sha256)


def test_bar_only_where_a_person_looks(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A log file gets no progress bar."""
    fetch(site.url, tmp_path / "net.pth", SHA256)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def tree_site(site: Site) -> Iterator[bapps_tree.Site]:
    """Give a server that names the state of its files."""
    with bapps_tree.serving(bapps_tree.Site({"/jnd.tar.gz": CONTENT})) as found:
        yield found


def test_unknown_checksum_is_allowed_when_said(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """With None for it the file comes whole; one that is there is taken as it is."""
    to = tmp_path / "jnd.tar.gz"
    assert fetch(f"{tree_site.url}/jnd.tar.gz", to, None).read_bytes() == CONTENT
    assert fetch(f"{tree_site.url}/jnd.tar.gz", to, None) == to
    assert len(tree_site.asked) == 1
    assert left(tmp_path) == ["jnd.tar.gz"]


def test_unchecked_file_has_its_size(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes, expected 5"):
        fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None, 5)
    assert left(tmp_path) == []


def test_unchecked_web_page_is_refused(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """What is no data at all is told without a checksum too."""
    tree_site.plans = ["page"]
    with pytest.raises(ValueError, match="sent another file .*it holds a web page"):
        fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None)
    (tmp_path / "jnd.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="is not the file of .*it is empty; remove it"):
        fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None)
    assert left(tmp_path) == ["jnd.tar.gz"]


def test_unchecked_file_is_resumed_in_its_state(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """Without a checksum the server's word for the state of its file joins the parts, in this process or later."""
    tree_site.plans = ["half", "half", "half"]
    with pytest.raises(DownloadError, match="closed the connection early"):
        fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None)
    assert fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None).read_bytes() == CONTENT
    begins = [asked and int(asked[6:-1]) for _, asked in tree_site.asked]
    assert begins == [None, HALF, HALF * 3 // 2, HALF * 7 // 4]
    assert left(tmp_path) == ["jnd.tar.gz"]


def test_unchecked_file_of_another_state_begins_anew(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """Two states of a file are never joined, neither by a server that knows better nor by one that is deaf."""
    other = CONTENT[::-1]
    for ranges in ("heard", "deaf"):
        tree_site.files["/jnd.tar.gz"], tree_site.plans = CONTENT, ["half", "gone"]
        with pytest.raises(DownloadError, match="404"):
            fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / ranges, None)
        tree_site.files["/jnd.tar.gz"] = other
        tree_site.plans = ["ignorant"] if ranges == "deaf" else []
        tree_site.asked = []
        assert fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / ranges, None).read_bytes() == other
        assert len(tree_site.asked) == (2 if ranges == "deaf" else 1)


def test_unchecked_file_without_a_state_begins_anew(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """Where the server names no state, a part is worth nothing."""
    tree_site.plans = ["stateless"]
    assert fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "jnd.tar.gz", None).read_bytes() == CONTENT
    assert [asked for _, asked in tree_site.asked] == [None, None]


def test_login_is_told_to_its_address_alone(tree_site: bapps_tree.Site, tmp_path: Path) -> None:
    """A key goes to who asks for it, not to where that one leads, and into no message."""
    login = ("me", "secret-key")
    tree_site.login, tree_site.plans = login, ["hop", "free"]
    tree_site.elsewhere = f"{tree_site.url}/jnd.tar.gz"
    assert fetch(f"{tree_site.url}/go", tmp_path / "a", None, login=login).read_bytes() == CONTENT
    assert tree_site.told == [bapps_tree.basic(login), None]
    tree_site.login = ("me", "another")
    with pytest.raises(DownloadError, match="401") as error:
        fetch(f"{tree_site.url}/jnd.tar.gz", tmp_path / "b", None, login=login)
    assert "secret" not in str(error.value)
    assert bapps_tree.basic(login)[6:] not in repr(download._Wanted("", tmp_path, None, None, login))
    assert "secret" not in repr(download._Wanted("", tmp_path, None, None, login))
