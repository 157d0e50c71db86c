"""Archives from elsewhere are unpacked whole inside their folder, or refused by the name of what is wrong."""

import gzip
import io
import os
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.unpack import OVERHEAD, unpack

Add = Callable[[tarfile.TarFile], None]
FILES = {"a/b/1.png": b"one" * 1000, "a/b/2.npy": b"", "a/3.txt": bytes(range(256)) * 50}


def entry(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> Add:
    """Give what puts an entry into a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    return lambda tar: tar.addfile(info, io.BytesIO(content))


def tar_of(*entries: Add, mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore[call-overload]
        for add in entries:
            add(tar)
    return content.getvalue()


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, held in entries:
            archive.writestr(name, held)
    return content.getvalue()


def whole(kind: str) -> bytes:
    if kind == "zip":
        return zip_of(*FILES.items())
    entries = [entry("a", kind=tarfile.DIRTYPE), *(entry(f"./{name}", content) for name, content in FILES.items())]
    return tar_of(*entries, mode="w:gz" if kind == "gzip" else "w")


def take(folder: Path, content: bytes, name: str = "data.tar.gz", most_bytes: int = 10**6, entries: int = 100) -> Path:
    """Unpack an archive, and look that nothing is left but itself and what was promised."""
    (folder / name).write_bytes(content)
    to = folder / "to"
    try:
        unpack(folder / name, to, most_bytes, entries)
    finally:
        assert sorted(path.name for path in folder.iterdir()) in ([name], sorted([name, "to"]))
    return to


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["data.tar.gz", "data.tar", "data.zip", "data"])
@pytest.mark.parametrize("kind", ["tar", "gzip", "zip"])
def test_content_tells_the_kind(tmp_path: Path, kind: str, name: str) -> None:
    """Whatever the name says: all files come, with all their bytes."""
    assert held(take(tmp_path, whole(kind), name)) == FILES


LONG = "deep/" * 60 + "long.png"
OUTSIDE = "its place would be outside"
PLAIN = "no plain file or folder"
TAKEN = "is taken"

HOSTILE: dict[str, tuple[list[Add], str]] = {
    "above": ([entry("../x")], rf"'\.\./x': {OUTSIDE}"),
    "above, further in": ([entry("a/../../x")], rf"'a/\.\./\.\./x': {OUTSIDE}"),
    "up and down": ([entry("a/../x")], rf"'a/\.\./x': {OUTSIDE}"),
    "absolute": ([entry("/tmp/losslab-x")], rf"'/tmp/losslab-x': {OUTSIDE}"),
    "absolute folder": ([entry("/tmp/losslab-x", kind=tarfile.DIRTYPE)], OUTSIDE),
    "of Windows": ([entry("a\\..\\..\\x")], OUTSIDE),
    "no name": ([entry(".")], "'.': it has no name"),
    "symlink": ([entry("link", kind=tarfile.SYMTYPE, link="/tmp")], f"'link': .*{PLAIN}"),
    "symlink, and a file through it": (
        [entry("link", kind=tarfile.SYMTYPE, link=".."), entry("link/x")],
        f"'link': .*{PLAIN}",
    ),
    "hard link": ([entry("a"), entry("link", kind=tarfile.LNKTYPE, link="/etc/passwd")], f"'link': .*{PLAIN}"),
    "device": ([entry("null", kind=tarfile.CHRTYPE)], f"'null': .*{PLAIN}"),
    "block device": ([entry("disk", kind=tarfile.BLKTYPE)], f"'disk': .*{PLAIN}"),
    "pipe": ([entry("pipe", kind=tarfile.FIFOTYPE)], f"'pipe': .*{PLAIN}"),
    "twice": ([entry("a/x"), entry("a//x")], f"'a/x': .*{TAKEN}"),
    "in other letters": ([entry("a/X.png"), entry("a/x.PNG")], rf"'a/x\.PNG': the name of 'a/X\.png' {TAKEN}"),
    "a folder in other letters": ([entry("A/1"), entry("a/2")], f"'a': the name of 'A' {TAKEN}"),
    "in another spelling": ([entry("\u00e9"), entry("e\u0301")], TAKEN),
    "a file as a folder": ([entry("a"), entry("a/b")], f"'a': the name of 'a' {TAKEN}"),
    "a folder as a file": ([entry("a/b"), entry("a")], f"'a': .*{TAKEN}"),
}


@pytest.mark.parametrize("kind", ["w", "w:gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    """The first bad entry ends it, named; what came before it is gone again, and nothing lies outside."""
    entries, words = HOSTILE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ValueError, match=rf"data\.tar\.gz is refused at .*{words}"):
        take(folder, tar_of(entry("good"), *entries, mode=kind))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not Path("/tmp/losslab-x").exists()


def zipped(name: str, mode: int = 0, flags: int = 0) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    content = zip_of((info, b"/etc/passwd"))
    return content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00" + bytes([flags, 0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped("../x"), rf"'\.\./x': {OUTSIDE}"),
        (zipped("/tmp/losslab-x"), OUTSIDE),
        (zipped("link", stat.S_IFLNK | 0o777), f"'link': .*{PLAIN}"),
        (zipped("null", stat.S_IFCHR), PLAIN),
        (zipped("secret", stat.S_IFREG, flags=1), PLAIN),
        (zip_of(("a", b"1"), ("A", b"2")), f"'A': the name of 'a' {TAKEN}"),
    ],
)
def test_hostile_zips_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=rf"is refused at .*{words}"):
        take(tmp_path, content)


def test_ten_thousand_entries(tmp_path: Path) -> None:
    """Entries are counted, not believed."""
    content = b"".join(tarfile.TarInfo(f"{number}").tobuf() for number in range(10_000)) + bytes(1024)
    with pytest.raises(ValueError, match="refused at '100': it has more than 100 entries"):
        take(tmp_path, content)


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_bomb_is_not_unpacked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive of a large file stops at what may be in it, before that is written."""
    monkeypatch.setattr(shutil, "copyfileobj", None)
    zeros = bytes(20_000_000)
    content = zip_of(("zeros", zeros)) if kind == "zip" else tar_of(entry("zeros", zeros), mode="w:gz")
    assert len(content) < 40_000
    with pytest.raises(ValueError, match="refused at 'zeros': it has more than .* 1000000 bytes"):
        take(tmp_path, content)


def test_many_files_are_added_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused at '10': it has more than"):
        take(tmp_path, tar_of(*(entry(f"{number}", b"x" * 100) for number in range(20))), most_bytes=1000)


@pytest.mark.parametrize("kind", ["behind", "name"])
def test_bomb_beside_the_files(tmp_path: Path, kind: str) -> None:
    """What stands in no file, as a name of 20 MB or zeros behind the end, has the same limit."""
    if kind == "name":
        content = gzip.compress(tar_of(entry("x" * 20_000_000)))
    else:
        content = gzip.compress(tar_of(entry("x")) + bytes(20_000_000))
    with pytest.raises(ValueError, match="is refused: it holds far more than is known of it"):
        take(tmp_path, content, most_bytes=10_000, entries=10)
    assert 10_000 + 10 * OVERHEAD < 20_000_000


def test_long_names_and_odd_ones(tmp_path: Path) -> None:
    """What is legal stays so: deep folders, folders named twice, names that are no UTF-8."""
    folder = entry("a", kind=tarfile.DIRTYPE)
    odd = os.fsdecode(b"caf\xe9.png")
    to = take(tmp_path, tar_of(folder, entry(LONG), folder, entry("a/" + odd), folder))
    assert held(to) == {LONG: b"x", f"a/{odd}": b"x"}


@pytest.mark.parametrize("kind", ["tar", "gzip", "zip"])
def test_truncated_archive_is_refused(tmp_path: Path, kind: str) -> None:
    """At whatever byte it stopped, also between two files, nothing is taken for the whole."""
    content = whole(kind)
    end = len(content) if kind != "tar" else content.rindex(FILES["a/3.txt"][-20:]) + 20
    cuts = {0, 1, 2, 3, 511, 512, 1024, end - 1, *random.Random(0).sample(range(end), 30)}
    if kind == "tar":  # of which each file ends with its block
        cuts |= set(range(0, end, 512))
    for cut in sorted(cut for cut in cuts if cut < end):
        with pytest.raises(ValueError, match=r"data\.tar\.gz is (no whole tar, gzip of one or zip|an empty archive)"):
            take(tmp_path, content[:cut])


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    """Where the format has a checksum, it is looked at, also at the end."""
    for kind in ("gzip", "zip"):
        content = bytearray(zip_of(("a", b"0123456789" * 50)) if kind == "zip" else whole(kind))
        content[-6 if kind == "gzip" else 40] ^= 1
        with pytest.raises(ValueError, match="is no whole tar"):
            take(tmp_path, bytes(content))


def test_archive_is_read_to_its_end(tmp_path: Path) -> None:
    """The checksum of a gzip stands behind everything, also behind a megabyte of padding."""
    content = bytearray(gzip.compress(tar_of(entry("x")) + bytes(1_000_000)))
    assert held(take(tmp_path, bytes(content))) == {"x": b"x"}
    shutil.rmtree(tmp_path / "to")
    content[-6] ^= 1
    with pytest.raises(ValueError, match="is no whole tar"):
        take(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html>" * 100, b"\x1f\x8b" + b"0" * 600, b"PK\x03\x04" + b"0" * 600, b"1" * 9999]
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"data\.tar\.gz is no whole tar"):
        take(tmp_path, content)


@pytest.mark.parametrize("content", [tar_of(), tar_of(mode="w:gz"), zip_of()], ids=["tar", "tar.gz", "zip"])
def test_empty_archive(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="is an empty archive|is no whole tar"):
        take(tmp_path, content)


def test_nothing_is_unpacked_over(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        take(tmp_path, whole("tar"))
    assert held(tmp_path / "to") == {}


def test_killed_unpacking_leaves_no_folder(tmp_path: Path) -> None:
    """What a killed process left is not taken for the content, and is gone after the next one."""
    left = tmp_path / ".to.unpacking" / "a" / "b"
    left.mkdir(parents=True)
    (left / "old.png").write_bytes(b"old")
    assert held(take(tmp_path, whole("gzip"))) == FILES


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's own error is told, and what was written is given back."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        take(tmp_path, whole("tar"))
