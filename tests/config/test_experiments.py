"""Each published table is one command: its rows, recipe and what it says of itself."""

import functools
import re
from pathlib import Path
from typing import Any

import make_experiments
import pytest
import torch
import yaml

from losslab.config import CONF, build, check_targets, load, plain
from losslab.runs.plan import Request, make_plan

FILES = sorted((CONF / "experiment").glob("*.yaml"))
NAMES = [file.stem for file in FILES]

TABLE_5 = ["L2", "SSIM", "FSIMc", "Gaussian", "SqueezeNet", "AlexNet", "VGG", "Squeeze-lin", "Alex-lin", "VGG-lin"]
RELEASED = ["Squeeze-lin v0.1", "Alex-lin v0.1", "VGG-lin v0.1"]
LISTS = {"ariel_two_afc_2021_03": 14, "ariel_two_afc_2021_07": 22, "ariel_two_afc_2021_09": 15}
PANELS = {"lpips_table5": 13, "lpips_table5_jnd": 13, **LISTS}
RECIPES = {f"{recipe}_{variant}": (recipe, variant)
           for recipe in ("lpips_table5", "ltu_lpips") for variant in ("lin", "tune", "scratch")}  # fmt: skip

# Pihlgren et al., arXiv 2302.04032: used_in_experiments in loss_networks.py
STUDY = ["alexnet", "vgg11", "vgg16", "vgg16_bn", "vgg19", "densenet121", "resnet18", "resnet50", "resnext50_32x4d",
         "googlenet", "inception_v3", "squeezenet1_1", "efficientnet_b0", "efficientnet_b7"]  # fmt: skip
THREE = ("squeezenet1_1", "alexnet", "vgg16")
CELLS = {"loss_networks_two_afc": [*STUDY], "loss_networks_jnd": [*STUDY], **{name: [*THREE] for name in RECIPES}}


MEASURED = {"human_triplets", *(name for name in NAMES if name.startswith("gim_"))}
"""Those whose numbers are ours."""


@functools.cache
def settings(name: str, *overrides: str) -> dict[str, Any]:
    return plain(load(f"experiment={name}", *overrides))


def expected(name: str) -> str:
    """Give the numbers that an experiment says are to come."""
    _, says = make_experiments.header((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    return "\n".join(says["Expected"])


def networks(name: str) -> list[str]:
    """List the cells of an experiment that is a sweep, through what it includes."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    if "hydra" not in config:
        return networks(next(one for one in config["defaults"] if isinstance(one, str) and one != "_self_"))
    assert config["hydra"]["mode"] == "MULTIRUN"
    assert [*config["hydra"]["sweeper"]["params"]] == ["network"]
    return re.split(r",\s*", config["hydra"]["sweeper"]["params"]["network"])


def test_all_are_counted() -> None:
    """A new experiment says here, or in test_gim_experiments.py, how many rows or cells it has."""
    assert {*NAMES} == {*PANELS, *CELLS, *MEASURED}


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name: str) -> None:
    """The comment at the top names source, command, needs, numbers and time, and no number is passed off as ours."""
    sentence, says = make_experiments.header((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert sentence.endswith((".", "?"))
    assert f"experiment={name}" in says["Command"][0].split()
    assert all(says.values())
    if name in MEASURED:
        assert "as measured" in says["Expected"][0]
    else:
        assert re.search("not verified here|nothing is verified here", says["Expected"][0])
        assert "estimated" in says["Time"][0]


@pytest.mark.parametrize("name", NAMES)
def test_composes(name: str) -> None:
    """Every interpolation resolves and every target exists, without a word on the command line."""
    check_targets(settings(name))


@pytest.mark.parametrize("name", PANELS)
def test_panel_has_the_rows_of_its_table(name: str) -> None:
    """One row of the panel for each of the table, under the table's names."""
    rows = [*settings(name)["loss"]["losses"]]
    assert len(rows) == PANELS[name]
    if name in LISTS:
        assert {*rows} == {*re.findall(r"^([^ ].*?) +\.\d+", expected(name), re.MULTILINE)}
    else:
        assert rows == [*TABLE_5, *RELEASED]
        table = expected("lpips_table5")
        assert re.findall(r"^(\S+)(?: +\d\d\.\d){7}", table, re.MULTILINE) == [*TABLE_5, "Human"]


@pytest.mark.parametrize("name", CELLS)
def test_sweep_has_the_cells_of_its_table(name: str) -> None:
    """The command needs no -m, and has a cell for each network."""
    found = networks(name)
    assert found == CELLS[name]
    assert all((CONF / "network" / f"{network}.yaml").exists() for network in found)


def test_study_has_280_rows() -> None:
    """14 networks, the four layers of each, five comparisons, fed as the study feeds them."""
    rows = 0
    for network in STUDY:
        loss = settings("loss_networks_two_afc", f"network={network}")["loss"]
        assert loss["network"]["weights"]["input"] == "imagenet"
        assert loss["compare"]["normalize"] is True
        assert loss["layers"] == [[slot] for slot in loss["network"]["slots"]]
        rows += len(loss["layers"]) * len(loss["compare"]["names"])
    assert rows == 14 * 4 * 5


@pytest.mark.parametrize("name", RECIPES)
def test_training_follows_its_recipe(name: str) -> None:
    """Rates, batches, epochs and input are those of the two published programs, and weights the variant's."""
    recipe, variant = RECIPES[name]
    config = settings(name, "network=vgg16")
    task, loss, data = (config[key] for key in ("task", "loss", "data"))
    found = task["optimizer"]["lr"], data["batch_size"], loss["network"]["weights"]["input"]
    assert found == ((1e-4, 50, "signed") if recipe == "lpips_table5" else (1e-3, 256, "imagenet"))
    assert task["optimizer"]["betas"] == [0.5, 0.999]
    assert (task["variant"], task["ranking"], task["sync"], loss["heads"]) == (variant, "large", 0, "none")
    assert config["trainer"]["max_epochs"] == 10
    assert sorted(data["train_subsets"]) == ["cnn", "mix", "traditional"]
    assert loss["layers"] == ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    assert loss["network"]["trainable"] == (variant != "lin")
    kind = loss["network"]["weights"]["_target_"].rpartition(".")[2]
    assert kind == ("RandomWeights" if variant == "scratch" else "PretrainedWeights")


def test_heads_of_table_5() -> None:
    """The paper's heads are v0.0, the rows without heads have none, and the random row has an untrained network."""
    losses = settings("lpips_table5")["loss"]["losses"]
    heads = [losses[row]["heads"] for row in (*TABLE_5, *RELEASED) if "heads" in losses[row]]
    assert heads == ["none"] * 4 + ["v0.0"] * 3 + ["v0.1"] * 3
    assert [losses[row]["net"] for row in RELEASED] == ["squeezenet1_1", "alexnet", "vgg16"]
    assert losses["Gaussian"]["network"]["weights"]["_target_"].endswith("RandomWeights")


def test_features_are_those_of_their_date() -> None:
    """Maps lie behind their ReLUs until the source stopped overwriting them in August 2021, and before them later."""
    for name, kinds in zip(LISTS, ({"relu"}, {"relu", "conv"}, {"conv"}), strict=True):
        losses = settings(name)["loss"]["losses"].values()
        maps = {layer for one in losses for layer in one.get("layers", ()) if layer not in ("pixels", "pool")}
        assert {re.split(r"\d", layer)[0] for layer in maps} == kinds
        assert {layer for layer in maps if name.endswith("07") and layer.startswith("conv")} <= {"conv5_3"}


@pytest.mark.parametrize("name", LISTS)
def test_lists_judge_both_old_sets_in_signed_images(name: str) -> None:
    """The source's triplets are those of traditional and cnn, and its networks see [-1, 1], trained or not."""
    config = settings(name)
    assert config["data"]["subsets"] == ["traditional", "cnn"]
    trained = [
        one["network"]["weights"]
        for one in config["loss"]["losses"].values()
        if one.get("network", {}).get("weights", {}).get("_target_", "").endswith("PretrainedWeights")
    ]
    assert trained
    assert all(weights["input"] == "signed" for weights in trained)


@pytest.mark.parametrize("name", ["lpips_table5", *LISTS])
def test_rows_give_distances(name: str) -> None:
    """Each row of a panel can be built and gives numbers, with random weights in the place of trained ones."""
    panel = build(settings(name, "weights@trained=random")["loss"])
    x, y = torch.rand(2, 1, 3, 64, 64)
    (found,) = panel.measure(x, y)
    assert len(found) == PANELS[name]
    assert all(bool(one.isfinite().all()) and one.item() != 0 for one in found.values())


def test_rows_that_are_redrawn_know_it() -> None:
    """More draws than one give random rows new weights and features each time."""
    losses = settings("ariel_two_afc_2021_07")["loss"]["losses"]
    assert losses["VGG(NormFC)"]["network"]["weights"]["redraw_every"] == 1
    assert losses["MMD++"]["redraw_every"] == losses["VGG(_PT_M-swd)"]["compare"]["redraw_every"] == 1


@pytest.mark.parametrize("name", ["lpips_table5", "lpips_table5_jnd", "lpips_table5_lin"])
def test_missing_data_are_named_before_anything_runs(name: str, tmp_path: Path) -> None:
    """Without BAPPS the plan already fails, with what is missing and the word that gets it."""
    part = "jnd/val" if name.endswith("jnd") else "2afc/(val|train)"
    with pytest.raises((OSError, ValueError), match=rf"BAPPS's {part} is not in .*data.download=true"):
        make_plan(Request(settings(name, f"data.root={tmp_path}", f"outputs={tmp_path}")))


def test_page_is_what_the_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/experiments.md is made of the files as they are now."""
    assert make_experiments.main(["--check"]) == 0
    other = tmp_path / "experiments.md"
    other.write_text(make_experiments.PAGE.read_text(encoding="utf-8").replace("76.1", "76.2"), encoding="utf-8")
    monkeypatch.setattr(make_experiments, "PAGE", other)
    assert make_experiments.main(["--check"]) == 1


def test_header_without_a_key_is_refused() -> None:
    """An experiment that does not say how long it takes can't come into the page."""
    text = FILES[0].read_text(encoding="utf-8").replace("# Time:", "# Clock:")
    with pytest.raises(ValueError, match="Source, Command, Needs, Expected, Time, in this order; found Source"):
        make_experiments.header(text)
