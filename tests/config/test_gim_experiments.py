"""Each figure of generalized image means is one command, with the set-up of its source."""

from pathlib import Path
from typing import Any

import make_gim
import pytest

from losslab.config import CONF, load, plain
from losslab.runs.cell import identify

CELLS = {
    "gim_blog_pixels": 2,
    "gim_blog_cnn1": 2,
    "gim_blog_cnn2": 2,
    "gim_blog_channels": 6,
    "gim_blog_kernels": 5,
    "gim_blog_fft": 6,
    "gim_blog_bands": 4,
    "gim_scnn": 2,
    "gim_ariel_readme": 4,
    "gim_feature_inversion": 15,
    "gim_metamers": 4,
}


def cells(name: str) -> list[dict[str, Any]]:
    """Give the settings of an experiment's cells."""
    found = [settings for _, settings in make_gim.points(f"experiment={name}")]
    return [*{identify(one, "").id: one for one in found}.values()]


def test_all_are_here() -> None:
    """A new figure says how many cells it has."""
    assert {path.stem for path in Path(CONF / "experiment").glob("gim_*.yaml")} == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_has_the_cells_of_its_figure(name: str) -> None:
    """Unused axes make no cells of their own."""
    assert len(cells(name)) == CELLS[name]


@pytest.mark.parametrize("name", [name for name in CELLS if name.startswith("gim_blog")])
def test_blog_set_up(name: str) -> None:
    """Four crops 3 pixels apart, from black, Adam at 0.005, 625 updates, clipped at the end; images as they are."""
    for cell in cells(name):
        task, data = cell["task"], cell["data"]
        assert (task["optimizer"]["_target_"], task["optimizer"]["lr"]) == ("torch.optim.Adam", 0.005)
        assert (task["scheduler"], task["range"], task["tolerance"]) == (None, "end", 0)
        assert task["start"] == "zeros" or name == "gim_blog_cnn2"
        assert task["steps"] == 625 or name == "gim_blog_fft"
        assert (data["places"], data["offset"]) == ("corners", 3)
        if "network" in cell["loss"]:
            assert cell["loss"]["network"]["weights"]["init"] == "conv2d"
            assert cell["loss"]["network"]["weights"]["input"] == "raw"


def test_blog_studies() -> None:
    """4 to 128 channels in four draws, and kernels of 1 to 9 pixels."""
    channels = [cell["loss"]["network"]["architecture"]["channels"] for cell in cells("gim_blog_channels")]
    assert channels == [[count] * 3 for count in (4, 8, 16, 32, 64, 128)]
    assert {cell["task"]["draws"] for cell in cells("gim_blog_channels")} == {4}
    kernels = [cell["loss"]["network"]["architecture"]["kernels"] for cell in cells("gim_blog_kernels")]
    assert kernels == [[1], [3], [5], [7], [9]]


def test_seed_set_ups() -> None:
    """Rates are for images in [0, 1], half of the source's."""
    figure = cells("gim_ariel_readme")[0]["task"]
    assert (figure["start"], figure["steps"], figure["optimizer"]["lr"], figure["scheduler"]) == (
        "mean",
        200,
        0.05,
        None,
    )
    inversion = cells("gim_feature_inversion")[0]
    assert inversion["task"]["start"] == "noise"
    assert inversion["data"]["count"] == 1
    last = plain(load("task=gim_ariel_last"))["task"]
    assert last["steps"] - last["coarse"]["levels"] * last["coarse"]["steps"] == 15_000
    assert (last["scheduler"]["step_size"], last["scheduler"]["gamma"]) == (1000, 0.9)
