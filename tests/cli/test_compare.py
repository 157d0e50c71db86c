"""The real command, as a user gives it: the distance of two files is the loss's own."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, quiet
from PIL import Image as Picture

from losslab import images
from losslab.config import build, load, plain
from losslab.losses.pixel import L2

SCRIPT = ROOT / "src" / "compare.py"
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
    small = [images.resize(pixels(file), 16, 16) for file in (files[0], files[2])]
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
        (["A"], r"two pictures are compared, got 1: A$"),
        (["A", "B", "C"], r"two pictures are compared, got 3"),
        (["A", "missing.png"], r"there is no file missing\.png$"),
        (["A", "TEXT"], r"can't read .* as an image"),
        (["A", "C"], r"differ in height × width: A 40×48 and C 64×48; size=64 resizes both"),
        (["A", "C", "size=small"], r"size is a whole number from 1, got 'small'$"),
        (["A", "B", "parts=yes"], r"parts is true or false, got 'yes'$"),
        (["A", "C", "size=16"], r"mmdpp needs images of at least 32×32 pixels, got 16×16$"),
        (["A", "B", "loss=l2,mmdp"], r"there is no loss=mmdp; did you mean mmdpp\?$"),
        (["A", "B", "sise=64"], r"there is no key 'sise'"),
        (["A", "B", "loss=deep", "layer=relu9_1"], r"unknown layer 'relu9_1' of vgg16; did you mean 'relu\d_1'"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(compare: Compare, files: list[Path], words: list[str], message: str) -> None:
    """It names what is wrong and the nearest valid choice, and nothing is printed before."""
    text = files[0].with_suffix(".txt")
    text.write_text("no picture")
    names = {"A": str(files[0]), "B": str(files[1]), "C": str(files[2]), "TEXT": str(text)}
    for name in "ABC":
        message = message.replace(f" {name} ", f" {names[name]} ").replace(f" {name}$", f" {names[name]}$")
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        compare(*(names.get(word, word) for word in words))


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


@pytest.mark.skipif(not DATA.is_dir(), reason="LOSSLAB_DATA has the weights")
def test_lpips_of_the_published_example(compare: Compare) -> None:
    """With SqueezeNet's real weights, the README of richzhang/PerceptualSimilarity's pictures are as far as it says."""
    weights = DATA / "weights_squeezenet1_1_features" / "squeeze.backbone.pth"
    words = ["loss=lpips", "network=squeezenet1_1", "weights=file", f"weights.path={weights}"]
    folder = DATA / "2afc_example_triples"
    found = [
        rows(compare(folder / "lpips_ex_ref.png", folder / f"lpips_ex_{name}.png", *words, "weights.prefix=features."))
        for name in ("p0", "p1")
    ]
    assert [one["lpips"] for one in found] == pytest.approx([0.711, 0.148], abs=5e-4)
