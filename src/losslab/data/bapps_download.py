"""BAPPS from its mirrors: an archive of one part, or Kaggle's of all parts, unpacked into its place."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from losslab.alone import alone
from losslab.checksums import sha256_of
from losslab.data.bapps_files import PARTS, Listed, Part, list_part
from losslab.download import DownloadError, fetch, is_offline
from losslab.files import write_json
from losslab.unpack import unpack

MIRRORS = (
    # scripts/download_dataset.sh of richzhang/PerceptualSimilarity, since October 2023
    "https://perceptual-similarity.s3.us-west-2.amazonaws.com/dataset",
    # what the data collector of the study of 2302.04032 takes since January 2025
    "kaggle:chaitanyakohli678/berkeley-adobe-perceptual-patch-similarity-bapps",
)

KAGGLE = "https://www.kaggle.com/api/v1/datasets/download"
"""Kaggle's interface: behind it stand the owner's and the data set's names; what comes is a zip."""

KEY = "KAGGLE_USERNAME and KAGGLE_KEY, or kaggle.json in ~/.kaggle"

SPARE = 2
"""Times more than is known of an archive that its content may have."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An archive, and where to get it.

    Args:
        url: its address.
        to: where it goes.
        parts: of BAPPS in it.
        sha256: of the archive, where somebody has told it.
        login: name and key.
    """

    url: str
    to: Path
    parts: tuple[Part, ...]
    sha256: str | None
    login: tuple[str, str] | None = None


class Place:
    """Where BAPPS lies, or is to lie.

    Args:
        root: the folder that has `2afc` and `jnd`, or the one that has them in `dataset`.
        mirrors: where parts come from, see `get`.
        download: whether they do.
    """

    def __init__(self, root: str | Path, mirrors: Sequence[str], *, download: bool) -> None:
        """Keep the place."""
        self.root, self.mirrors, self.download = Path(root).expanduser(), mirrors, download
        self._found: dict[str, Listed] = {}

    def listed(self, part: Part, subsets: Sequence[str]) -> Listed:
        """Find the files of a part's subsets, once; get them before where that was asked for.

        Raises:
            ValueError: the part is not there, or its files don't belong together.
            DownloadError: no mirror gave it.
        """
        if part.name not in self._found:
            home = self.root / "dataset" if (self.root / "dataset").is_dir() else self.root
            if not (home / part.folder).is_dir():
                if not self.download:
                    raise ValueError(by_hand(part, home, self.mirrors))
                get(part, home, self.mirrors)
            self._found[part.name] = list_part(home, part, subsets)
            if differences := self._found[part.name].differences():
                log.warning("not the whole of BAPPS's %s: %s", part.folder, ", ".join(differences))
        return self._found[part.name]

    def files(self) -> list[Path]:
        """Give all labels and pictures of what was listed."""
        return [path for listed in self._found.values() for path in (*listed.labels, *listed.pictures)]

    def facts(self) -> dict[str, str]:
        """Tell where what was listed differs from what is known of BAPPS."""
        found = [part for part in self._found.values() if part.differences()]
        told = [f"{one.part.folder}: {', '.join(one.differences())}" for one in found]
        return {"incomplete": "; ".join(told)} if told else {}


def get(part: Part, home: Path, mirrors: Sequence[str]) -> None:
    """Have a part of BAPPS on this machine: of several processes one gets it, and the others wait.

    The archive is checked where its checksum is known, and removed when its content is in place, unless it lay there
    before: somebody else's it stays. What was taken is noted down in a small file beside the data. Where no checksum is
    known, one that can't be unpacked makes room for the next mirror's: it is removed, or gets another name if it lay
    there before.

    Args:
        part: what is wanted.
        home: the folder that gets `2afc` or `jnd`.
        mirrors: addresses of folders with the archives, or kaggle:owner/name, in the order in which they are tried.

    Raises:
        DownloadError: no mirror has it, or the network is forbidden; the message has each one's reason.
        ValueError: what lies there is not the archive of the known checksum.
        OSError: there is no room. What came is kept, and the next call goes on with it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with alone(home / "BAPPS", "gets"):
        if not (home / part.folder).exists():
            _get(part, home, mirrors)


def by_hand(part: Part, home: Path, mirrors: Sequence[str]) -> str:
    """Say what is missing, and how it comes here."""
    archive = f"{part.name}.tar.gz"
    url = next((f"{mirror}/{archive}" for mirror in mirrors if not mirror.startswith("kaggle:")), archive)
    return (
        f"BAPPS's {part.folder} is not in {home}. Add data.download=true to the command: it gets {url} "
        f"({part.size / 1e9:g} GB, and as much again unpacked) and unpacks it there. Without a network, bring it "
        f"to {home / archive} and give the same command. Or let data.root name the folder that has {part.folder}"
    )


def _get(part: Part, home: Path, mirrors: Sequence[str]) -> None:
    sources, locked = _sources(part, home, mirrors)
    troubles: list[str] = []
    for source in _in_order(sources):
        try:
            _take(source, part, home)
        except DownloadError as error:
            log.warning("%s", error)
            troubles.append(str(error))
        else:
            return
    raise DownloadError(f"no mirror gave {part.name}.tar.gz: " + "; ".join([*troubles, *locked]))


def _in_order(sources: Sequence[Source]) -> Iterator[Source]:
    """Give the archives that lie here, then those that don't: mirrors may have one name for theirs."""
    yield from {source.to: source for source in reversed(sources) if source.to.exists()}.values()
    for source in sources[:1] if is_offline() else sources:  # the first one says it for all
        if not source.to.exists():
            yield source


def _take(source: Source, part: Part, home: Path) -> None:
    """Have an archive here, and put its parts into their places.

    Raises:
        DownloadError: it is of no use, or not to be had, and another mirror's may be better.
        ValueError: an archive of a known checksum is of no use.
        OSError: there is no room.
    """
    is_ours = not source.to.exists()
    if is_ours:
        _check_room(source, home)
    try:
        fetch(source.url, source.to, source.sha256, login=source.login)
        _unpack(source, home)
    except ValueError as error:
        if not source.to.exists():
            raise DownloadError(str(error)) from error
        if source.sha256 is not None:
            raise
        raise DownloadError(f"{error}; {_put_away(source.to, is_ours=is_ours)}") from error
    if is_ours:
        source.to.unlink()
    if not (home / part.folder).is_dir():
        raise DownloadError(f"{source.to} holds no {part.folder}")


def _unpack(source: Source, home: Path) -> None:
    unpacked = home / f".{source.parts[0].name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    log.info("unpacking %s", source.to)
    try:
        unpack(source.to, unpacked, *_most(source.parts))
        _settle(source, unpacked, home)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _put_away(archive: Path, *, is_ours: bool) -> str:
    """Clear an archive's place for another one, and say how: what somebody brought is kept."""
    if is_ours:
        archive.unlink()
        return "it was removed"
    aside = archive.with_name(f"{archive.name}.refused")
    archive.replace(aside)
    return f"it is {aside.name} now"


def _sources(part: Part, home: Path, mirrors: Sequence[str]) -> tuple[list[Source], list[str]]:
    found, locked = [], []
    for mirror in mirrors:
        if not mirror.startswith("kaggle:"):
            archive = f"{part.name}.tar.gz"
            found.append(Source(f"{mirror.rstrip('/')}/{archive}", home / archive, (part,), part.sha256))
            continue
        url, to, login = f"{KAGGLE}/{mirror.removeprefix('kaggle:')}", home / "bapps-kaggle.zip", _login()
        if login or to.exists():
            found.append(Source(url, to, PARTS, None, login))
        else:
            locked.append(f"{mirror} needs your key ({KEY})")
    return found, locked


def _login() -> tuple[str, str] | None:
    """Find the user's name and key at Kaggle, as its own program does; they go into no message."""
    if "KAGGLE_USERNAME" in os.environ and "KAGGLE_KEY" in os.environ:
        return os.environ["KAGGLE_USERNAME"], os.environ["KAGGLE_KEY"]
    path = Path("~/.kaggle/kaggle.json").expanduser()
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return str(held["username"]), str(held["key"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no file of Kaggle's, which has a username and a key") from None


def _check_room(source: Source, home: Path) -> None:
    size = sum(part.size for part in source.parts)
    begun = sum(path.stat().st_size for path in home.glob(f".{source.to.name}.*.part"))
    needed, free = 2 * size - begun, shutil.disk_usage(home).free
    if free < needed:
        wants = f"{source.to.name} and its content need about {needed / 1e9:.1f} GB"
        also = f" beside the {begun / 1e9:.1f} GB that have come" if begun else ""
        raise OSError(errno.ENOSPC, f"{wants}{also}, and {free / 1e9:.1f} GB are free", str(home))


def _most(parts: Sequence[Part]) -> tuple[int, int]:
    """Give the bytes and entries that the content of an archive may have."""
    entries = sum(sum(part.subsets.values()) * (len(part.pictures) + 1) for part in parts)
    return SPARE * sum(part.size for part in parts), SPARE * entries


def _settle(source: Source, unpacked: Path, home: Path) -> None:
    """Put each part that came into its place, where there is none yet, and note down where it is from."""
    for part in source.parts:
        # Below no folder, `dataset`, or a further one: archives and mirrors differ.
        came = next((path for up in ("", "*/", "*/*/") for path in unpacked.glob(up + part.folder)), None)
        place = home / part.folder
        if came is None or place.exists():
            continue
        write_json(home / f"{part.name}.source.json", _note(source))
        place.parent.mkdir(parents=True, exist_ok=True)
        came.rename(place)


def _note(source: Source) -> dict[str, str | int | bool]:
    found, size = sha256_of(source.to), source.to.stat().st_size
    if source.sha256 is None:
        log.info("nobody has told the sha256 of %s: found %s, noted down beside the data", source.to.name, found)
    return {"url": source.url, "sha256": found, "bytes": size, "sha256_was_known": source.sha256 is not None}
