"""The real command, as a user gives it: the distance of two files is the loss's own."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, quiet
from PIL import Image as Picture

from losslab import images
from losslab.config import build, load, plain
from losslab.losses.pixel import L2
from losslab.networks.base import LossNetwork

SCRIPT = ROOT / "src" / "compare.py"
EACH = ["network=squeezenet1_1", "layer=[1,2]", "compare=spatial"]
RANDOM = ["network=squeezenet1_1", "weights=random", "loss.heads=none"]
DATA = Path(os.environ.get("LOSSLAB_DATA", "none"))

Table = dict[str, float]
Compare = Callable[..., str]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Run the script in this process, which has torch already, and give what it prints."""

    def run(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Give two pictures of 40×48 pixels, and a third of another size."""
    made = []
    for name, size in (("a", (40, 48)), ("b", (40, 48)), ("c", (64, 48))):
        made.append(tmp_path / f"{name}.png")
        images.write(made[-1], images.to_bytes(torch.rand(3, *size)))
    return made


def pixels(file: Path) -> torch.Tensor:
    return images.to_float(images.read(file))[None]


def scaled(file: Path, side: int) -> torch.Tensor:
    """Read a picture as one of whole numbers from 0 to 255 and another size."""
    return images.to_float(images.to_bytes(images.resize(pixels(file), side, side)))


def rows(printed: str) -> Table:
    """Read the table, below its two first lines."""
    _, head, *lines = printed.splitlines()
    assert head.split() == ["loss", "distance"]
    assert len({line.rindex("  ") for line in lines if not line.startswith(" ")}) == 1, "the columns are not aligned"
    return {line.rpartition("  ")[0].rstrip(): float(line.rpartition("  ")[2]) for line in lines}


def test_distances_are_the_losses(compare: Compare, files: list[Path]) -> None:
    """Several losses by commas; each number is what the loss gives of the two files."""
    words = ["network=squeezenet1_1", "layer=[1,2]", "compare=spatial"]
    printed = compare(*files[:2], "loss=l2,ssim,deep", *words)
    assert printed.startswith(f"{files[0]} and {files[1]}, 40×48 pixels\n")
    found = rows(printed)
    assert list(found) == ["l2", "ssim", "deep"]
    for name, distance in found.items():
        loss = build(plain(load(f"loss={name}", *words))["loss"])
        assert distance == pytest.approx(float(loss(pixels(files[0]), pixels(files[1]))), rel=1e-5)


def test_what_varies_gives_the_names(compare: Compare, files: list[Path]) -> None:
    """A loss alone, what commas vary, and the losses of one panel or more."""
    assert list(rows(compare(*files[:2]))) == ["mmdpp"]
    words = ["loss=deep", "network=squeezenet1_1"]
    assert list(rows(compare(*files[:2], *words, "layer=1,2"))) == ["deep layer=1", "deep layer=2"]
    each = compare(*files[:2], *words, "layer=each", "compare=each", "normalize=each")
    assert len(rows(each)) == 40
    assert list(rows(each))[-1] == "fire9, spatial_sort, raw"
    assert rows(each)["fire2, spatial_sort"] == pytest.approx(
        rows(compare(*files[:2], *words, "layer=2", "compare=spatial_sort"))["deep"], rel=1e-5
    )
    mixed = rows(compare(*files[:2], "loss=l2,deep", "network=squeezenet1_1", "layer=each"))
    assert list(mixed) == ["l2", "deep: relu1", "deep: fire2", "deep: fire5", "deep: fire9"]


def test_terms_add_up(compare: Compare, files: list[Path]) -> None:
    """`parts=true` shows the terms or layers of each loss that has several, below it."""
    found = rows(compare(*files[:2], "loss=l2,deep", "network=squeezenet1_1", "layer=all", "parts=true"))
    layers = [f"  {layer}" for layer in ("relu1", "fire2", "fire5", "fire9")]
    assert list(found) == ["l2", "deep", *layers]
    assert sum(found[layer] for layer in layers) == pytest.approx(found["deep"], rel=1e-5)


def test_size_resizes_both(compare: Compare, files: list[Path]) -> None:
    """Antialiased and bilinear, and the output says so."""
    printed = compare(files[0], files[2], "loss=l2", "size=16")
    assert printed.splitlines()[0].endswith("resized to 16×16 pixels (bilinear, antialiased)")
    small = [scaled(file, 16) for file in (files[0], files[2])]
    assert rows(printed)["l2"] == pytest.approx(float(L2()(*small)), rel=1e-5)


def test_kinds_of_pictures(compare: Compare, tmp_path: Path) -> None:
    """Grey, 16 bits a channel, transparency and a path with `=` are the same picture here."""
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    one = tmp_path / "loss=l2" / "grey.png"
    one.parent.mkdir()
    Picture.fromarray(grey).save(one)
    Picture.fromarray(grey.astype(np.uint16) * 256 + 7).save(tmp_path / "deep.png")
    Picture.fromarray(np.stack([grey, grey, grey, 255 - grey], -1)).save(tmp_path / "alpha.png")
    for name in ("deep", "alpha"):
        assert rows(compare(one, tmp_path / f"{name}.png", "loss=l1"))["l1"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["A"], r"two pictures, two folders or one folder are compared, got 1: A$"),
        (["A", "B", "C"], r"two pictures, two folders or one folder are compared, got 3"),
        (["A", "FOLDER"], r"two pictures, two folders or one folder are compared, got 2"),
        ([], r"two pictures, two folders or one folder are compared, got 0: none$"),
        (["A", "missing.png"], r"there is no file missing\.png$"),
        (["A", "TEXT"], r"can't read .* as an image"),
        (["A", "C"], r"differ in height × width: A 40×48 and C 64×48; size=64 resizes all"),
        (["A", "C", "size=small"], r"size is a whole number from 1, got 'small'$"),
        (["A", "B", "pairs=all"], r"pairs is no word for two pictures; these take size, parts, map$"),
        (["A", "B", "out=a.csv"], r"out is no word for two pictures"),
        (["FOLDER", "FOLDER", "map=map.png"], r"map is no word for two folders; these take size, missing, out$"),
        (["FOLDER", "missing=skip", "pairs=all"], r"missing is no word for one folder"),
        (["FOLDER", "pairs=some"], r"pairs is consecutive or all, got 'some'$"),
        (["FOLDER", "pairs=all", "first=0"], r"first is a whole number from 1, got '0'$"),
        (["FOLDER", "pairs=all", "first=1", "loss=l2"], r"pairs are of two pictures at least, got .*a\.png alone$"),
        (["FOLDER", "pairs=all", "out=all.txt"], r"out is the name of a file that ends in \.csv, got all\.txt$"),
        (["FOLDER", "FOLDER", "missing=no"], r"missing is error or skip, got 'no'$"),
        (
            ["FOLDER", "pairs=all", "loss=l2"],
            r"differ in height × width: most have 40×48 and .*c\.png 64×48; size=64 resizes",
        ),
        (["FOLDER", "pairs=all", "size=16"], r"mmdpp needs images of at least 32×32 pixels, got 16×16$"),
        (["FOLDER", "FOLDER", "size=16"], r"mmdpp needs images of at least 32×32 pixels, got 16×16$"),
        (["EMPTY", "pairs=all", "loss=l2"], r"empty holds no picture \(\.png \.jpg"),
        (["A", "B", "map=map.jpg"], r"map is the name of a file that ends in \.png or \.npy, got map\.jpg$"),
        (
            ["A", "B", "loss=l2,fft", "map=map.png"],
            r"fft has no map .*: fourier does not go place by place; losses with maps are l1, l2, .*, deep, lpips$",
        ),
        (["A", "B", "parts=yes"], r"parts is true or false, got 'yes'$"),
        (["A", "C", "size=16"], r"mmdpp needs images of at least 32×32 pixels, got 16×16$"),
        (["A", "B", "loss=l2,mmdp"], r"there is no loss=mmdp; did you mean mmdpp\?$"),
        (["A", "B", "sise=64"], r"there is no key 'sise'"),
        (["A", "B", "loss=deep", "layer=relu9_1"], r"unknown layer 'relu9_1' of vgg16; did you mean 'relu\d_1'"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(
    compare: Compare, files: list[Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what is wrong and the nearest valid choice, and nothing is printed or written before."""
    text = files[0].with_suffix(".txt")
    text.write_text("no picture")
    folder, empty = files[0].parent, files[0].parent / "empty"
    empty.mkdir()
    names = {"A": str(files[0]), "B": str(files[1]), "C": str(files[2]), "TEXT": str(text)}
    names |= {"FOLDER": str(folder), "EMPTY": str(empty)}
    for name in "ABC":
        message = message.replace(f" {name} ", f" {names[name]} ").replace(f" {name}$", f" {names[name]}$")
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        compare(*(names.get(word, word) for word in words))
    assert capsys.readouterr().out == ""
    assert {*folder.iterdir()} == {*files, text, empty}


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["a.png", "b.png", "loss=mmdp"], 1)])
def test_help_and_mistakes_are_quick(tmp_path: Path, words: list[str], code: int) -> None:
    """They import no torch; a mistake ends with exit code 1, from any folder."""
    asked = [sys.executable, "-X", "importtime", str(SCRIPT), *words]
    done = subprocess.run(asked, cwd=tmp_path, env=quiet(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert told == ([] if code == 0 else ["error: there is no loss=mmdp; did you mean mmdpp?"])
    assert " hydra\n" in done.stderr
    assert " torch\n" not in done.stderr


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Give two folders: three pictures in both, the second of another size, one in each of them alone, and a text."""
    made = [tmp_path / "one", tmp_path / "two"]
    for folder, alone, suffix in zip(made, ("left", "right"), ("png", "bmp"), strict=True):
        folder.mkdir()
        (folder / "notes.txt").write_text("no picture")
        (folder / "inner").mkdir()
        for name, size in (("a", (40, 48)), ("b", (48, 40)), ("c", (40, 48)), (alone, (40, 48))):
            Picture.fromarray(images.to_bytes(torch.rand(*size, 3)).numpy()).save(folder / f"{name}.{suffix}")
    return made


def lines(printed: str, names: int = 1) -> dict[str, list[float]]:
    """Read the lines of pairs, mean and standard error, below the head."""
    told = [line for line in printed.splitlines() if line[:1] != " " and not line.startswith("left out")][1:]
    assert len({len(line) for line in told}) == 1, "the columns are not aligned"
    split = [line.split() for line in told]
    keys = [2 if one[0] == "±" else 0 if one[0] == "mean" else names - 1 for one in split]
    assert all(one[:3] == ["±", "standard", "error"] for one in split if one[0] == "±")
    starts = [3 if one[0] == "±" else 1 if one[0] == "mean" else names for one in split]
    return {
        "error" if key == 2 else " ".join(one[:start]): [float(part) for part in one[start:]]
        for key, start, one in zip(keys, starts, split, strict=True)
    }


def test_two_folders(compare: Compare, folders: list[Path], tmp_path: Path) -> None:
    """Pictures of one name, whatever the suffix, each pair in its own size; mean and standard error; and a file."""
    printed = compare(*folders, "loss=l2,deep", *EACH, "missing=skip", f"out={tmp_path}/new/distances.csv")
    first, left, head, *_ = printed.splitlines()
    assert first == f"3 pictures of {folders[0]} and {folders[1]}, each pair in its own size"
    assert left == f"left out, without a partner: {folders[0]}/left.png; {folders[1]}/right.bmp"
    assert head.split() == ["l2", "deep"]
    found = lines(printed)
    assert list(found) == ["a", "b", "c", "mean", "error"]
    deep = build(plain(load("loss=deep", *EACH))["loss"])
    for name in "abc":
        both = [pixels(folder / f"{name}.{suffix}") for folder, suffix in zip(folders, ("png", "bmp"), strict=True)]
        assert found[name] == pytest.approx([float(L2()(*both)), float(deep(*both))], rel=1e-5)
    table = np.array([found[name] for name in "abc"])
    assert found["mean"] == pytest.approx(table.mean(0), rel=1e-5)
    assert found["error"] == pytest.approx(table.std(0, ddof=1) / 3**0.5, rel=1e-3)
    written = pd.read_csv(tmp_path / "new" / "distances.csv", index_col="name")
    assert [*written.columns] == ["l2", "deep"]
    assert written.loc[[*"abc"]].to_numpy() == pytest.approx(table, rel=1e-5)


def test_folders_that_do_not_fit(compare: Compare, folders: list[Path]) -> None:
    """Files without a partner and pairs of two sizes are named; one size for all makes them fit."""
    with pytest.raises(SystemExit, match=r"2 pictures have no partner: .*left\.png; .*right\.bmp; missing=skip leaves"):
        compare(*folders, "loss=l2")
    images.write(folders[0] / "a.png", torch.zeros(3, 40, 40, dtype=torch.uint8))
    with pytest.raises(
        SystemExit, match=r"of a pair differ in .*: \S*one/a\.png 40×40 and \S*two/a\.bmp 40×48; size=64"
    ):
        compare(*folders, "loss=l2", "missing=skip")
    printed = compare(*folders, "loss=l2", "missing=skip", "size=16")
    assert "resized to 16×16 pixels (bilinear, antialiased)" in printed
    small = [scaled(folders[0] / "b.png", 16), scaled(folders[1] / "b.bmp", 16)]
    assert lines(printed)["b"] == pytest.approx([float(L2()(*small))], rel=1e-5)


def test_consecutive_pictures(compare: Compare, files: list[Path], tmp_path: Path) -> None:
    """Each picture and the next one by name, of the first ones only where that is asked for."""
    out = tmp_path / "out.csv"
    printed = compare(tmp_path, "loss=l2,l1", "pairs=consecutive", "size=16", f"out={out}")
    assert printed.startswith(f"2 pairs of 3 pictures in {tmp_path}, resized to 16×16")
    found = lines(printed, names=2)
    assert list(found) == ["a.png b.png", "b.png c.png", "mean", "error"]
    b, c = (scaled(tmp_path / f"{name}.png", 16) for name in "bc")
    assert found["b.png c.png"] == pytest.approx([float(L2()(b, c)), float((b - c).abs().mean())], rel=1e-5)
    written = pd.read_csv(out)
    assert [*written.columns] == ["first", "second", "l2", "l1"]
    assert written.iloc[1, :2].tolist() == ["b.png", "c.png"]
    assert written.iloc[1, 2:].tolist() == pytest.approx(found["b.png c.png"], rel=1e-5)
    assert compare(tmp_path, "loss=l2,l1", "size=16") == printed  # the default, as in lpips_1dir_allpairs.py of lpips
    few = lines(compare(tmp_path, "loss=l2", "pairs=consecutive", "size=16", "first=2"), names=2)
    assert list(few) == ["a.png b.png", "mean", "error"]
    assert few["mean"] == few["a.png b.png"]
    assert np.isnan(few["error"][0])


def test_all_pairs_and_their_matrix(compare: Compare, files: list[Path], tmp_path: Path) -> None:
    """Each two once on the screen; the file has a matrix a loss, both ways, as one of them is not symmetric."""
    out = tmp_path / "matrix.csv"
    words = ["loss=l2,coherence", "pairs=all", "size=16"]
    printed = compare(tmp_path, *words, f"out={out}")
    found = lines(printed, names=2)
    assert list(found) == ["a.png b.png", "a.png c.png", "b.png c.png", "mean", "error"]
    assert compare(tmp_path, *words) == printed
    table = pd.read_csv(out).set_index(["loss", "from"])
    names = [file.name for file in files]
    assert [*table.columns] == names
    assert [*table.index] == [(loss, name) for loss in ("l2", "coherence") for name in names]
    for loss in ("l2", "coherence"):
        one = build(plain(load(f"loss={loss}"))["loss"])
        wanted = [[float(one(scaled(a, 16), scaled(b, 16))) for b in files] for a in files]
        assert table.loc[loss].to_numpy() == pytest.approx(np.array(wanted), rel=1e-4, abs=1e-6)
        assert found["a.png c.png"][loss == "coherence"] == pytest.approx(wanted[0][2], rel=1e-4)
    one_way = table.loc["coherence"].to_numpy()
    assert one_way[0, 1] != one_way[1, 0]


def test_each_picture_is_encoded_once(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pairs of five pictures under three losses are five passes through the network, and one."""
    for name in "abcde":
        images.write(tmp_path / f"{name}.png", images.to_bytes(torch.rand(3, 32, 32)))
    seen, forward = [], LossNetwork.forward

    def counted(self: LossNetwork, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(LossNetwork, "forward", counted)
    compare(tmp_path, "loss=deep", "network=squeezenet1_1", "layer=1,2,3", "pairs=all", f"out={tmp_path}/all.csv")
    assert sum(seen) == 5 + 1  # one more to find out how much memory an encoding takes


@pytest.mark.parametrize("loss", ["deep", "lpips", "ssim"])
def test_map_as_picture_and_as_numbers(compare: Compare, files: list[Path], tmp_path: Path, loss: str) -> None:
    """What the loss itself says of each pixel, in the pictures' own size."""
    words = [f"loss={loss}", *({"lpips": RANDOM, "deep": EACH}.get(loss, []))]
    plain_ = compare(*files[:2], *words)
    assert compare(*files[:2], *words, f"map={tmp_path}/map.npy") == plain_
    one = build(plain(load(*words))["loss"])
    wanted = one.maps(*(one.encode(pixels(file)) for file in files[:2]))[0]
    found = np.load(tmp_path / "map.npy")
    assert found.shape == (1, 40, 48)
    assert found == pytest.approx(wanted.detach().numpy(), rel=1e-4)
    compare(*files[:2], *words, f"map={tmp_path}/map.png")
    assert images.read(tmp_path / "map.png").shape[-1] > 3 * 256


def test_several_maps_and_what_has_none(compare: Compare, files: list[Path], tmp_path: Path) -> None:
    """A panel's maps stand side by side; a loss that does not go place by place is named."""
    panel = ["loss=deep", "network=squeezenet1_1", "layer=[1,2]"]
    compare(*files[:2], *panel, "compare=spatial,cosine", f"map={tmp_path}/map.npy")
    assert np.load(tmp_path / "map.npy").shape == (2, 40, 48)
    with pytest.raises(SystemExit, match=r"deep compare=sort has no map of the distance at each pixel: Sort does not"):
        compare(*files[:2], *panel, "compare=spatial,sort", f"map={tmp_path}/other.png")
    assert not (tmp_path / "other.png").exists()


def test_weights_that_are_random_need_nothing(compare: Compare, files: list[Path]) -> None:
    """LPIPS of random weights without heads is a loss like the others, in a folder too."""
    words = ["loss=lpips", *RANDOM]
    alone = rows(compare(*files[:2], *words))["lpips"]
    folder = lines(compare(files[0].parent, *words, "pairs=all", "first=2"), names=2)
    assert folder["a.png b.png"] == pytest.approx([alone], rel=1e-4)


@pytest.mark.skipif(not DATA.is_dir(), reason="LOSSLAB_DATA has the weights")
def test_lpips_of_the_published_example(compare: Compare, tmp_path: Path) -> None:
    """With SqueezeNet's real weights, the README of richzhang/PerceptualSimilarity's pictures are as far as it says."""
    weights = DATA / "weights_squeezenet1_1_features" / "squeeze.backbone.pth"
    words = ["loss=lpips", "network=squeezenet1_1", "weights=file", f"weights.path={weights}"]
    folder = DATA / "2afc_example_triples"
    words.append("weights.prefix=features.")
    found = [
        rows(compare(folder / "lpips_ex_ref.png", folder / f"lpips_ex_{name}.png", *words)) for name in ("p0", "p1")
    ]
    assert [one["lpips"] for one in found] == pytest.approx([0.711, 0.148], abs=5e-4)
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("p0", "p1"):
        for to, source in ((one, "ref"), (two, name)):
            to.mkdir(exist_ok=True)
            shutil.copy(folder / f"lpips_ex_{source}.png", to / f"{name}.png")
    both = lines(compare(one, two, *words))
    assert [*both["p0"], *both["p1"]] == pytest.approx([0.711, 0.148], abs=5e-4)
    assert both["mean"] == pytest.approx([(0.711 + 0.148) / 2], abs=5e-4)
