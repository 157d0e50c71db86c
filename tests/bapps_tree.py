"""A small tree that is shaped like BAPPS, its archives, and a server on this machine that has them."""

import base64
import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from losslab.data.bapps_files import JND, PARTS, Part


def make_tree(root: Path, parts: Sequence[Part] = PARTS, count: int = 3, side: int = 16) -> Path:
    """Write `count` judgements a subset; label k of a subset is k answers of all, round and round.

    Of each judgement, p1 is the reference with more noise than p0 where most answers are for p0, and the other way
    round; a pair is the more different the fewer took it for the same.
    """
    for part in parts:
        for place, subset in enumerate(part.subsets):
            for number in range(count):
                share = number % (part.votes + 1) / part.votes
                noise = np.random.default_rng([place, number, len(part.folder)])
                clean = noise.integers(60, 190, (side, side, 3))
                far, near = 40 * share, 40 * (1 - share)
                strengths = {"ref": 0.0, "p0": 0.0 if part is JND else far, "p1": near}
                folder = root / part.folder / subset
                for name in part.pictures:
                    picture = (clean + strengths[name] * noise.standard_normal(clean.shape)).clip(0, 255)
                    save(folder / name / f"{number:06}.png", picture.astype(np.uint8))
                (folder / part.label).mkdir(parents=True, exist_ok=True)
                np.save(folder / part.label / f"{number:06}.npy", np.array([share], np.float32))
    return root


def save(path: Path, pixels: "np.typing.NDArray[np.uint8]") -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels).save(path)


def packed(root: Path, folder: str, kind: str, inside: str = "") -> bytes:
    """Pack a folder of a tree as "tar", "gzip" or "zip", below the folder `inside`."""
    files = sorted(path for path in (root / folder).rglob("*") if path.is_file())
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as archive:
            for path in files:
                archive.write(path, f"{inside}{path.relative_to(root)}")
    else:
        with tarfile.open(fileobj=content, mode="w:gz" if kind == "gzip" else "w") as tar:
            for path in files:
                tar.add(path, f"{inside}{path.relative_to(root)}")
    return content.getvalue()


@dataclass
class Site:
    """A server: what it has under which path, and what it does with the next requests.

    Plans are "half" (close after half of what is left), "stateless" (the same, with no name for the file's state),
    "ignorant" (send the end of a file whatever its state), "page" (a log-in page), "gone", "free" (no login needed) and
    "hop" (lead to `elsewhere`).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    plans: list[str] = field(default_factory=list)
    login: tuple[str, str] | None = None
    elsewhere: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of each request."""
    told: list[str | None] = field(default_factory=list)
    """The credentials that came with each."""
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers as the site says, with ranges and the state of its files (ETag)."""

    site: Site

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep quiet."""

    def do_GET(self) -> None:
        """Send the file, or what the plan says."""
        site = self.site
        site.asked.append((self.path, self.headers["Range"]))
        site.told.append(self.headers["Authorization"])
        plan = site.plans.pop(0) if site.plans else "whole"
        if site.login and plan != "free" and self.headers["Authorization"] != basic(site.login):
            self.send_error(401)
        elif plan == "hop":
            self.send_response(302)
            self.send_header("Location", site.elsewhere)
            self.end_headers()
        elif plan == "gone" or self.path not in site.files:
            self.send_error(404)
        elif plan == "page":
            self.send(b"<!DOCTYPE html><title>Please log in</title>", 0, plan)
        else:
            self.send(site.files[self.path], self.begin(site.files[self.path], plan), plan)

    def begin(self, content: bytes, plan: str) -> int:
        """Tell where the answer begins: where the client has the beginning of another state, at the start."""
        asked = self.headers["Range"]
        is_same = self.headers["If-Range"] in (None, state(content)) or plan == "ignorant"
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and is_same else 0

    def send(self, content: bytes, begin: int, plan: str) -> None:
        """Send a file from `begin`."""
        if begin and begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if plan != "stateless":
            self.send_header("ETag", state(content))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        rest = content[begin:]
        self.wfile.write(rest[: len(rest) // 2] if plan in ("half", "stateless") else rest)


def state(content: bytes) -> str:
    """Name the state of a file, as a server does."""
    return f'"{hashlib.sha256(content).hexdigest()[:8]}"'


def basic(login: tuple[str, str]) -> str:
    """Spell a name and a password as HTTP's basic authentication does: RFC 7617."""
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Run the server meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"site": site}))
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
