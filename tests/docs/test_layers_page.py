"""docs/layers.md tells what the networks are now."""

from pathlib import Path

import make_layers
import pytest

from losslab.config import build, load, plain
from losslab.networks.cutting import Traced, smallest_side


def test_two_networks_are_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make docs` would write now of a plain network and of a branched one, and nothing but that."""
    two = ["--check", "alexnet", "resnet18"]
    assert make_layers.main(two) == 0
    page = make_layers.PAGE.read_text(encoding="utf-8")
    other = tmp_path / "layers.md"
    monkeypatch.setattr(make_layers, "PAGE", other)
    monkeypatch.setattr(make_layers, "ROOT", tmp_path)
    assert make_layers.main(two) == 1
    other.write_text(page.replace("| `child:3` | 192 |", "| `child:3` | 191 |"), encoding="utf-8")
    assert other.read_text(encoding="utf-8") != page
    assert make_layers.main(two) == 1


def test_page_has_all_networks() -> None:
    """A section for each network of the study, and a line with the slots of every one that has a config."""
    page = make_layers.PAGE.read_text(encoding="utf-8")
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == [
        *make_layers.STUDY, "The four slots"
    ]  # fmt: skip
    lines = {line.split("|")[1].strip(" *"): line for line in page.partition("## The four slots")[2].splitlines()[6:]}
    assert [*lines] == make_layers.classifiers()
    assert len(lines) == 57
    for name in ("vgg16", "densenet121"):
        network = plain(load(f"network={name}"))["network"]
        for cell, slot in zip(make_layers.slot_cells(network), network["slots"], strict=True):
            assert cell in lines[name]
            assert cell.startswith(f"`{slot}`, ")


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_smallest_images(name: str) -> None:
    """They are what loss networks cut there ask for."""
    network = plain(load(f"network={name}"))["network"]
    architecture = build(network["architecture"])
    nodes = list(network["layers"].values())
    found = make_layers.smallest_sides(architecture, nodes)
    for node in nodes[1::3]:
        assert found[node] == smallest_side(Traced(architecture).cut([node]), name)
