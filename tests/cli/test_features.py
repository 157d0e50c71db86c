"""Pictures of feature maps show what the network says: nothing blurred, clipped or left out."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from conftest import ROOT
from torch import Tensor

from losslab import images
from losslab.config import build, load, plain
from losslab.figures import feature_maps as module
from losslab.figures.feature_maps import feature_maps

SCRIPT = ROOT / "src" / "features.py"

Draw = Callable[..., list[Path]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Draw:
    """Run the script in this process, and give the paths that it prints."""

    def run(*words: str | Path) -> list[Path]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return [tmp_path / line for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "one.png", tmp_path / "two.png"]
    for file, size in zip(made, ((48, 64), (40, 40)), strict=True):
        images.write(file, images.to_bytes(torch.rand(3, *size)))
    return made


def colour(share: float) -> list[int]:
    return [int(part) for part in mpl.colormaps[module.COLOURS](share, bytes=True)[:3]]


def squares(page: Tensor, share: float, side: int) -> int:
    """Count the places of a picture where a whole square of the colour of a share begins."""
    hit = (page == torch.tensor(colour(share), dtype=torch.uint8)[:, None, None]).all(0)[None, None].float()
    rows = torch.nn.functional.avg_pool2d(hit, (side, 1), 1) == 1
    return int((torch.nn.functional.avg_pool2d(rows.float(), (1, side), 1) == 1).sum())


def test_each_place_is_a_square_of_one_colour() -> None:
    """Four places in one channel, with the darkest and the brightest colour for the ends of the scale."""
    maps = torch.tensor([[[0.0, 1.0], [3.0, 4.0]]])
    page = feature_maps("a title", {"a": (torch.zeros(3, 8, 8), maps)})
    for share in (0.25, 0.75):  # not drawn below, where the one channel is 0 or 1
        assert squares(page, share, 48) == 1
    assert squares(page, 0.0, 48) == 2
    assert squares(page, 1.0, 48) >= 2
    assert (page[:, :, -1] == 255).all()
    assert (page[:, -1, :] == 255).all()


def test_one_scale_for_all_images_and_channels() -> None:
    """Raw: from the smallest to the largest value of all; normalised: over all channels, also those not shown."""
    dark = torch.tensor([1.0, 2.0, 1.0])[:, None, None]
    bright = torch.tensor([3.0, 6.0, 200.0])[:, None, None]  # the third is not shown
    image = torch.zeros(3, 8, 8)
    page = feature_maps("a title", {"a": (image, dark), "b": (image, bright)}, channels=2)
    for share in (0.0, 0.2, 0.4, 1.0):  # of 1 to 6, and the ends below
        assert squares(page, share, 96) == (2 if share in (0.0, 1.0) else 1)


def test_dead_channels_are_named_in_red() -> None:
    """A channel that is constant over an image stands out, and only it."""
    maps = torch.rand(4, 5, 5)
    alive = feature_maps("t", {"a": (torch.zeros(3, 8, 8), maps)})
    maps[2] = 0
    dead = feature_maps("t", {"a": (torch.zeros(3, 8, 8), maps)})
    red = torch.tensor(module.RED, dtype=torch.uint8)[:, None, None]
    assert not (alive == red).all(0).any()
    assert (dead == red).all(0).any()
    for value in (0.0, -3.0):  # all of a layer constant: no scale to divide by
        page = feature_maps("t", {"a": (torch.zeros(3, 8, 8), torch.full((1, 4, 4), value))})
        assert squares(page, 0.0, 96) == 2


@pytest.mark.parametrize(("side", "times", "means"), [(2, 48, 1), (50, 2, 1), (96, 1, 1), (192, 1, 1), (300, 1, 2)])
def test_maps_are_enlarged_or_reduced_by_whole_numbers(side: int, times: int, means: int) -> None:
    """Enlarged by repeating places, reduced by their means, those at the border included."""
    maps = torch.rand(2, side, side - 1)
    found = module._fitted(maps)
    assert module._zoom(maps) == (times, means)
    assert found.shape == (2, -(-side * times // means), -(-(side - 1) * times // means))
    for y, x in ((0, 0), (side // 2, side - 2)):
        if means == 1:
            assert (
                found[:, y * times : (y + 1) * times, x * times : (x + 1) * times] == maps[:, y, x, None, None]
            ).all()
    if means == 2:
        torch.testing.assert_close(found[:, 3, 4], maps[:, 6:8, 8:10].mean((1, 2)))
        torch.testing.assert_close(found[:, 0, -1], maps[:, 0:2, -1].mean(1))


def test_what_can_not_be_drawn() -> None:
    image = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="a title: there are NaN or infinite features"):
        feature_maps("a title", {"a": (image, torch.full((1, 4, 4), torch.nan))})
    with pytest.raises(ValueError, match="no image"):
        feature_maps("a title", {})


def test_command_draws_the_layers(draw: Draw, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file a layer, with the features that the network reads of each picture, of any sizes."""
    asked = []

    def kept(title: str, pictures: dict[str, tuple[Tensor, Tensor]], channels: int) -> Tensor:
        asked.append((title, pictures, channels))
        return feature_maps(title, pictures, channels)

    monkeypatch.setattr(module, "feature_maps", kept)
    written = draw(*photos, "network=squeezenet1_1", "layer=[fire5,1]", "channels=9", "out=seen/maps.png")
    assert [path.name for path in written] == ["maps-relu1.png", "maps-fire5.png"]
    network = build(plain(load("network=squeezenet1_1"))["network"])(select=["relu1", "fire5"])
    for path, layer, (title, pictures, channels) in zip(written, ("relu1", "fire5"), asked, strict=True):
        assert images.read(path).float().std() > 10
        assert title.endswith(f"; {layer}")
        assert "squeezenet1_1, kaiming" in title
        assert channels == 9
        for (name, (image, maps)), photo in zip(pictures.items(), photos, strict=True):
            assert name == photo.name
            assert torch.equal(image, images.to_float(images.read(photo)))
            assert torch.equal(maps, network.read(image)[layer])


def test_names_of_files_and_layers(draw: Draw, photos: list[Path]) -> None:
    """One layer goes to `out` itself, `each` means the four slots, and pictures of one name are told apart."""
    (path,) = draw(photos[0], "network=squeezenet1_1", "layer=fire9")
    assert path.name == "features.png"
    assert path.is_file()
    words = ["network=squeezenet1_1", "channels=1"]
    assert len(draw(photos[0], *words, "layer=each")) == 4
    twin = photos[0].parent / "twin" / photos[0].name
    twin.parent.mkdir()
    photos[1].rename(twin)
    (path,) = draw(photos[0], *words, "layer=pixels")
    (both,) = draw(photos[0], twin, *words, "layer=pixels", "out=both.png")
    assert images.read(both).shape[-1] > images.read(path).shape[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layer=1"], "which pictures"),
        (["missing.png", "layer=1"], r"there is no file missing\.png"),
        (["PHOTO", "layer=1", "out=maps.jpg"], r"ends in \.png, got maps\.jpg"),
        (["PHOTO", "channels=0"], "channels is a whole number from 1, got '0'"),
        (["PHOTO", "layer=relu9_1"], "unknown layer 'relu9_1' of vgg16"),
        (["PHOTO", "layer=pool5", "network=alexnet"], "alexnet needs images of at least 63×63 pixels, got 48×64"),
        (["PHOTO", "network=vgg61"], "there is no network=vgg61"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(draw: Draw, photos: list[Path], words: list[str], message: str) -> None:
    """It names what is wrong, and nothing is written."""
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        draw(*(str(photos[0]) if word == "PHOTO" else word for word in words))
    assert sorted(photos[0].parent.iterdir()) == photos
