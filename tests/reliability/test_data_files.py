"""Data from elsewhere arrive whole, checked and inside their folder, or a sentence says what is wrong."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bapps_tree import Site, basic, make_tree, packed, serving
from PIL import Image as Picture

from losslab import download, images
from losslab.data import bapps, bapps_download
from losslab.data.bapps import Bapps, BappsJND
from losslab.data.bapps_files import JND, TRAIN, VAL
from losslab.download import DownloadError
from losslab.unpack import unpack

SUBSETS = ("cnn", "color")
KAGGLE = "kaggle:somebody/bapps"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("bapps"), count=2)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """Give a server on this machine; nobody's key is known, and nothing else can be reached."""
    monkeypatch.setenv("LOSSLAB_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    real = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1", f"a test reaches for {host}"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with serving(Site()) as found:
        monkeypatch.setattr(bapps_download, "KAGGLE", f"{found.url}/api")
        yield found


Offer = Callable[..., bytes]


@pytest.fixture
def offer(site: Site, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Put the archive of a folder on the server, and let its checksum be the known one."""

    def put(folder: str = "2afc/val", kind: str = "tar", inside: str = "", *, known: bool = True) -> bytes:
        name = {"2afc/val": "VAL", "2afc/train": "TRAIN", "jnd/val": "JND"}[folder]
        part = {"VAL": VAL, "TRAIN": TRAIN, "JND": JND}[name]
        content = packed(tree, folder, kind, inside)
        site.files[f"/dataset/{part.name}.tar.gz"] = content
        sha256 = hashlib.sha256(content).hexdigest() if known else part.sha256
        monkeypatch.setattr(bapps, name, dataclasses.replace(part, sha256=sha256))
        return content

    return put


def triplets(root: Path, site: Site, mirrors: tuple[str, ...] = (), **options: Any) -> Bapps:
    mirrors = mirrors or (f"{site.url}/dataset", KAGGLE)
    return Bapps(root, SUBSETS, size=8, download=True, mirrors=mirrors, **options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("inside", ["", "dataset/", "./"])
@pytest.mark.parametrize("kind", ["tar", "gzip", "zip"])
def test_archive_is_unpacked_as_what_it_is(
    site: Site, offer: Offer, tree: Path, tmp_path: Path, kind: str, inside: str
) -> None:
    """Tar, gzip or zip under the same name, with or without a folder around it: the same data; the archive goes."""
    content = offer(kind=kind, inside=inside)
    root = tmp_path / "new" / "root"
    data = triplets(root, site)
    assert data.fingerprint() == Bapps(tree, SUBSETS, size=8).fingerprint()
    assert left(root) == ["2afc", "twoafc_val.source.json"]
    assert json.loads((root / "twoafc_val.source.json").read_text()) == {
        "url": f"{site.url}/dataset/twoafc_val.tar.gz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "sha256_was_known": True,
    }
    triplets(root, site).setup()
    assert len(site.asked) == 1


def test_each_part_comes_when_it_is_needed(site: Site, offer: Offer, tree: Path, tmp_path: Path) -> None:
    """Judging fetches no training triplets; an unknown checksum is noted down with the one found."""
    for folder in ("2afc/val", "2afc/train", "jnd/val"):
        offer(folder, "gzip", known=folder != "jnd/val")
    triplets(tmp_path / "root", site).setup()
    pairs = BappsJND(tmp_path / "root", download=True, mirrors=[f"{site.url}/dataset"], size=8)
    assert pairs.fingerprint() == BappsJND(tree, size=8).fingerprint()
    assert left(tmp_path / "root") == ["2afc", "jnd", "jnd.source.json", "twoafc_val.source.json"]
    note = json.loads((tmp_path / "root" / "jnd.source.json").read_text())
    assert note["sha256"] == hashlib.sha256(site.files["/dataset/jnd.tar.gz"]).hexdigest()
    assert note["sha256_was_known"] is False
    assert len(triplets(tmp_path / "root", site, train_subsets=["mix"]).train or ()) == 2
    assert left(tmp_path / "root" / "2afc") == ["train", "val"]


def test_broken_transfer_is_resumed(site: Site, offer: Offer, tmp_path: Path) -> None:
    """What came before the connection broke is not asked for again, with a checksum and without one."""
    for folder, kind in (("2afc/val", Bapps), ("jnd/val", BappsJND)):
        content = offer(folder, known=folder == "2afc/val")
        site.asked, site.plans = [], ["half"]
        kind(tmp_path, size=8, download=True, mirrors=[f"{site.url}/dataset"]).setup()
        assert [asked for _, asked in site.asked] == [None, f"bytes={len(content) // 2}-"]


def test_another_archive_is_refused(site: Site, offer: Offer, tmp_path: Path) -> None:
    """One wrong byte: nothing is unpacked, nothing is left."""
    content = bytearray(offer())
    content[3000] ^= 1
    site.files["/dataset/twoafc_val.tar.gz"] = bytes(content)
    with pytest.raises(DownloadError, match=r"sent another file than twoafc_val\.tar\.gz: its sha256 is .*KAGGLE_KEY"):
        triplets(tmp_path / "root", site).setup()
    assert left(tmp_path / "root") == []


@pytest.mark.parametrize("plan", ["page", "hop", "gone"])
def test_what_a_server_may_send_instead(site: Site, offer: Offer, tmp_path: Path, plan: str) -> None:
    """A log-in page, a way to a file of this machine, nothing at all: a clean error, and no file."""
    offer()
    (tmp_path / "secret").write_bytes(b"secret")
    site.plans, site.elsewhere = [plan] * 3, (tmp_path / "secret").as_uri()
    words = {"page": "it holds a web page", "hop": "Redirection to url 'file:", "gone": "404"}[plan]
    with pytest.raises(DownloadError, match=words):
        triplets(tmp_path / "root", site).setup()
    assert left(tmp_path / "root") == []


def test_mirrors_are_tried_in_order(site: Site, offer: Offer, tmp_path: Path) -> None:
    """The first one that has it gives it; when none has, each one's reason is told."""
    offer()
    mirrors = (f"{site.url}/elsewhere", KAGGLE, f"{site.url}/dataset")
    triplets(tmp_path / "a", site, mirrors).setup()
    assert [path for path, _ in site.asked] == ["/elsewhere/twoafc_val.tar.gz", "/dataset/twoafc_val.tar.gz"]
    with pytest.raises(DownloadError, match=r"/elsewhere/twoafc_val\.tar\.gz can't be fetched.*needs your key"):
        triplets(tmp_path / "b", site, mirrors[:2]).setup()


@pytest.mark.parametrize("place", ["variables", "file"])
def test_kaggle_with_a_key(
    site: Site, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, caplog: Any
) -> None:
    """One archive has all parts; the user's key opens it, and stands in no message and no file."""
    login = ("somebody", "very-secret")
    if place == "variables":
        monkeypatch.setenv("KAGGLE_USERNAME", login[0])
        monkeypatch.setenv("KAGGLE_KEY", login[1])
    else:
        (tmp_path / "home" / ".kaggle").mkdir(parents=True)
        (tmp_path / "home" / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": login[0], "key": login[1]}))
    site.login = login
    site.files["/api/somebody/bapps"] = packed(tree, ".", "zip", "dataset/")
    root = tmp_path / "root"
    with caplog.at_level("DEBUG"):
        data = triplets(root, site, (KAGGLE,))
        assert data.fingerprint() == Bapps(tree, SUBSETS, size=8).fingerprint()
    names = ["2afc", "jnd", "jnd.source.json", "twoafc_train.source.json", "twoafc_val.source.json"]
    assert left(root) == names
    BappsJND(root, size=8).setup()
    assert set(site.told) == {basic(login)}
    assert "very-secret" not in caplog.text + "".join(path.read_text() for path in root.glob("*.json"))
    site.login = ("somebody", "another")
    with pytest.raises(DownloadError, match="401") as error:
        triplets(tmp_path / "b", site, (KAGGLE,)).setup()
    assert "very-secret" not in str(error.value)


def test_kaggle_key_that_is_none(site: Site, tmp_path: Path) -> None:
    """The file is named, its content is not told."""
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    (tmp_path / "home" / ".kaggle" / "kaggle.json").write_text('{"key": "very-secret"')
    with pytest.raises(ValueError, match=r"kaggle\.json is no file of Kaggle's") as error:
        triplets(tmp_path / "root", site, (KAGGLE,)).setup()
    assert "very-secret" not in str(error.value)
    assert error.value.__suppress_context__


def test_without_a_network(site: Site, offer: Offer, tree: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The file to bring is named with its checksum and place; brought there, it is checked, unpacked and kept."""
    content = offer()
    monkeypatch.setenv("LOSSLAB_OFFLINE", "1")
    place = tmp_path / "twoafc_val.tar.gz"
    words = (
        rf"LOSSLAB_OFFLINE.*get {site.url}/dataset/twoafc_val\.tar\.gz .*sha256 [0-9a-f]{{64}}, and put it at {place}"
    )
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "very-secret")
    with pytest.raises(DownloadError, match=words) as error:
        triplets(tmp_path, site).setup()
    assert str(error.value).count("LOSSLAB_OFFLINE") == 1  # not once a mirror
    place.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"twoafc_val\.tar\.gz is not the file of .*remove it"):
        triplets(tmp_path, site).setup()
    place.write_bytes(content)
    assert triplets(tmp_path, site).fingerprint() == Bapps(tree, SUBSETS, size=8).fingerprint()
    assert site.asked == []
    assert place.exists()


def test_zip_that_was_brought_needs_no_key(site: Site, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bapps-kaggle.zip").write_bytes(packed(tree, ".", "zip"))
    assert triplets(tmp_path, site).fingerprint() == Bapps(tree, SUBSETS, size=8).fingerprint()
    assert site.asked == []


def test_nothing_is_fetched_unasked(site: Site, offer: Offer, tmp_path: Path) -> None:
    offer()
    with pytest.raises(ValueError, match="Add data.download=true to the command"):
        Bapps(tmp_path, SUBSETS, mirrors=[f"{site.url}/dataset"]).setup()
    assert site.asked == []


def test_no_room(site: Site, offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that can't take it is told before the first byte; what has come already counts."""
    offer()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_100_000_000))
    with pytest.raises(OSError, match=r"need about 2\.2 GB, and 2\.1 GB are free") as error:
        triplets(tmp_path / "root", site, (f"{site.url}/dataset", f"{site.url}/other")).setup()
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "root"))
    assert site.asked == []
    for size, enough in ((60_000_000, False), (200_000_000, True)):
        with (tmp_path / "root" / ".twoafc_val.tar.gz.0.part").open("wb") as begun:
            begun.truncate(size)
        if not enough:
            with pytest.raises(OSError, match=r"need about 2\.1 GB beside the 0\.1 GB that have come, and 2\.1 GB are"):
                triplets(tmp_path / "root", site).setup()
            assert left(tmp_path / "root") == [".twoafc_val.tar.gz.0.part"]
    triplets(tmp_path / "root", site).setup()


@pytest.mark.parametrize("number", [1, 20])
def test_disk_that_fills_up(
    site: Site, offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was unpacked is given back, the archive stays, and the next command goes on with it."""
    offer()
    copies, copy = iter(range(1, 100)), shutil.copyfileobj

    def fills_up(*args: Any) -> None:
        if next(copies) == number:
            raise OSError(28, "No space left on device")
        copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", fills_up)
        with pytest.raises(OSError, match="No space left"):
            triplets(tmp_path / "root", site).setup()
    assert left(tmp_path / "root") == ["twoafc_val.tar.gz"]
    triplets(tmp_path / "root", site).setup()
    assert len(site.asked) == 1


def test_archive_without_what_is_wanted(site: Site, offer: Offer, tree: Path, tmp_path: Path) -> None:
    """The right name around other data: said, and nothing of it settles."""
    content = packed(tree, "jnd/val", "tar")
    (tmp_path / "twoafc_val.tar.gz").write_bytes(content)
    offer()
    with pytest.raises(ValueError, match="is not the file of"):
        triplets(tmp_path, site).setup()
    (tmp_path / "twoafc_val.tar.gz").unlink()
    (tmp_path / "bapps-kaggle.zip").write_bytes(packed(tree, "jnd/val", "zip"))
    del site.files["/dataset/twoafc_val.tar.gz"]
    with pytest.raises(DownloadError, match=r"bapps-kaggle\.zip holds no 2afc/val; .*404") as error:
        triplets(tmp_path, site).setup()
    assert str(error.value).count("holds no") == 1
    assert left(tmp_path) == ["bapps-kaggle.zip", "jnd", "jnd.source.json"]
    offer()
    triplets(tmp_path, site).setup()


def test_hostile_archive_settles_nothing(site: Site, tree: Path, tmp_path: Path) -> None:
    """An archive whose checksum nobody knows may be anybody's."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(tree / "jnd", "jnd")
        tar.addfile(tarfile.TarInfo("../evil"))
    site.files["/dataset/jnd.tar.gz"] = content.getvalue()
    root = tmp_path / "root"
    with pytest.raises(DownloadError, match=r"jnd\.tar\.gz is refused at '\.\./evil'.*; it was removed"):
        BappsJND(root, download=True, mirrors=[f"{site.url}/dataset"]).setup()
    assert left(root) == []


@pytest.mark.parametrize("brought", [True, False])
def test_useless_archive_blocks_no_mirror(
    site: Site, offer: Offer, tree: Path, tmp_path: Path, brought: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of no known checksum and not to be unpacked: the next mirror's is taken, and what somebody brought is kept."""
    content = offer("jnd/val", "gzip", known=False)
    site.files["/bad/jnd.tar.gz"] = content[: len(content) // 2]
    if brought:
        (tmp_path / "jnd.tar.gz").write_bytes(content[:-9])
    mirrors = [f"{site.url}/{name}" for name in ("bad", "dataset")]
    data = BappsJND(tmp_path, size=8, download=True, mirrors=mirrors)
    assert data.fingerprint() == BappsJND(tree, size=8).fingerprint()
    assert left(tmp_path) == ["jnd", "jnd.source.json", *(["jnd.tar.gz.refused"] if brought else [])]
    assert [path for path, _ in site.asked] == ["/bad/jnd.tar.gz", "/dataset/jnd.tar.gz"]
    assert json.loads((tmp_path / "jnd.source.json").read_text())["url"] == f"{site.url}/dataset/jnd.tar.gz"
    assert caplog.text.count("jnd.tar.gz is no whole tar, gzip of one or zip") == 1 + brought
    assert ("it is jnd.tar.gz.refused now" in caplog.text) is brought
    assert "it was removed" in caplog.text
    assert not (tmp_path / "evil").exists()


def test_two_at_once_fetch_once(site: Site, offer: Offer, tmp_path: Path) -> None:
    """One gets it, the other one waits and uses it; the lock is of the file, so threads will do."""
    offer()
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda data: data.fingerprint(), [triplets(tmp_path / "root", site) for _ in range(2)])
    assert first == second
    assert len(site.asked) == 1
    assert left(tmp_path / "root") == ["2afc", "twoafc_val.source.json"]


def test_killed_unpacking_is_begun_anew(tree: Path, tmp_path: Path) -> None:
    """A process that is killed among the files leaves nothing that the next one takes for the whole."""
    archive = tmp_path / "data.tar"
    archive.write_bytes(packed(tree, "jnd", "tar"))
    code = (
        "import shutil, sys, time; from pathlib import Path; from losslab.unpack import unpack\n"
        "copy, left = shutil.copyfileobj, iter(range(5))\n"
        "def slow(*args): copy(*args); next(left, None) is None and (print('now', flush=True), time.sleep(60))\n"
        "shutil.copyfileobj = slow\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]), 10**6, 1000)"
    )
    command = [sys.executable, "-c", code, str(archive), str(tmp_path / "to")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert left(tmp_path) == [".to.unpacking", "data.tar"]
    unpack(archive, tmp_path / "to", 10**6, 1000)
    assert left(tmp_path) == ["data.tar", "to"]
    assert len(list((tmp_path / "to").rglob("*.png"))) == len(list((tree / "jnd").rglob("*.png")))


def bomb(path: Path) -> None:
    """Write a PNG whose header promises 20,000×20,000 pixels."""
    Picture.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.unlink()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Picture.fromarray(noise).save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").write_bytes(path.with_suffix(".jpg").read_bytes()[:900])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda path: path.write_bytes(b""), "cannot identify"),
    "truncated JPEG": (cut, "truncated"),
    "PNG with a wrong checksum": (flip, "broken|checksum|CRC|crc|truncated|decod"),
    "text": (lambda path: path.write_text("no picture"), "cannot identify"),
    "header of 20,000×20,000": (bomb, "decompression bomb|exceeds limit"),
}


def test_bad_pictures_are_all_listed(tmp_path: Path) -> None:
    """Each one with its reason, in one message; on_bad is always an error, as a triplet has no picture to spare."""
    root = make_tree(tmp_path, [VAL], count=6)
    for number, (damage, _) in enumerate(BAD.values()):
        damage(root / f"2afc/val/cnn/p1/{number:06}.png")
    with pytest.raises(images.UnreadableImageError) as error:
        Bapps(root, SUBSETS, size=8, cache=tmp_path / "cache").setup()
    message = str(error.value)
    assert message.startswith(f"{len(BAD)} of 36 pictures are bad: ")
    for number, (told, (_, words)) in enumerate(zip(message.split("; "), BAD.values(), strict=True)):
        assert f"cnn/p1/{number:06}." in told
        assert any(word in told for word in words.split("|")), told
    assert left(tmp_path / "cache") == []


def odd_pictures(folder: Path) -> None:
    """Write what looks odd and is legal."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    rgb = Picture.fromarray(noise[..., :3])
    turned = Picture.Exif()
    turned[0x0112] = 6
    Picture.fromarray(noise[..., 0].astype(np.uint16) << 8).save(folder / "000000.png")
    rgb.quantize().save(folder / "000001.png")
    rgb.convert("CMYK").save(folder / "000002.jpg")
    Picture.fromarray(noise).save(folder / "000003.png")
    Picture.new("RGB", (1, 1), (9, 8, 7)).save(folder / "000004.png")
    rgb.save(folder / "000005.jpg", exif=turned)


def test_odd_pictures_are_read(tmp_path: Path) -> None:
    """16 bits, palette, CMYK, alpha, one pixel, turned by EXIF: each becomes RGB of the size that was asked for."""
    root = make_tree(tmp_path, [VAL], count=6)
    folder = root / "2afc/val/cnn/p0"
    shutil.rmtree(folder)
    folder.mkdir()
    odd_pictures(folder)
    held = Bapps(root, ["cnn"], size=20).load()
    found = held.pictures[held.p0]
    assert found.shape == (6, 3, 20, 20)
    assert found[4, :, 0, 0].tolist() == [9, 8, 7]
    assert (found[0, 0] == found[0, 2]).all()
    upright = images.read(folder / "000005.jpg")
    assert upright.shape == (3, 30, 20)
    assert torch.stack([one.float().std() for one in found[[0, 1, 2, 3, 5]]]).min() > 20


def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    """It is no one's pair: named, in letters that any terminal can show."""
    root = make_tree(tmp_path, [VAL], count=2)
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(root / "2afc/val/cnn/p0/000000.png", root / "2afc/val/cnn/p0" / name)
    with pytest.raises(ValueError, match=r"1 extra \(.*p0/caf\\xe9\.png\)") as error:
        Bapps(root, SUBSETS).files()
    str(error.value).encode()


def test_killed_download_is_gone_on_with(site: Site, offer: Offer, tmp_path: Path) -> None:
    """Three connections break: a clean error; the next command asks for the rest alone."""
    content = offer()
    site.plans = ["half"] * 3
    with pytest.raises(DownloadError, match="closed the connection early"):
        triplets(tmp_path / "root", site).setup()
    sha256 = hashlib.sha256(content).hexdigest()
    assert left(tmp_path / "root") == [f".twoafc_val.tar.gz.{sha256[:16]}.part"]
    triplets(tmp_path / "root", site).setup()
    assert site.asked[-1][1] == f"bytes={len(content) - -(-len(content) // 8)}-"
