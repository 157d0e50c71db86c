"""Every config composes, the packaging files agree, and imports point one way."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from losslab.config import CONF, build, load, plain

ROOT = CONF.parent
FILES = [path.relative_to(CONF) for path in CONF.glob("*/*.yaml")]
OPTIONS = sorted(
    path.with_suffix("").as_posix() for path in FILES if path.parent.name != "experiment"
)  # test_experiments.py
NEEDS = {
    "data/folder": ["data.root=."],
    "data/set_folders": ["data.root=."],
    "data/neighbours_in_codes": ["data.codes=x.ckpt"],
    "loss/lpips": ["weights=random"],
    "loss/dists": ["weights=random"],
    "task/metric_training": ["loss=lpips", "weights=random"],
    "task/metric_training_ltu": ["loss=lpips", "weights=random"],
    "data/triplet_table": ["data.table=x.csv"],
    "network/torchvision": ["network.architecture.name=convnext_tiny"],
    "network/timm": ["network.architecture.name=resnet10t"],
    "weights/file": ["weights.path=README.md"],
    "trainer/optimisation": ["task=gim", "loss=l2"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str) -> None:
    """Each file of each group resolves beside the defaults of the others, and its targets exist."""
    group, _, name = option.partition("/")
    settings = plain(load(f"{group}={name}", *NEEDS.get(option, [])))
    if group != "logger":
        arguments = {"task": {"loss": build(settings["loss"])}, "trainer": {"logger": False}}.get(group, {})
        assert build(settings[group], **arguments) is not None


def requirements() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["install_requires"].split()


def test_environment_says_what_setup_says() -> None:
    """Conda and pip users get the same packages within the same bounds, and the same Python."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, inner = environment["dependencies"]
    assert python == f"python{config['options']['python_requires']}"
    options, packages = inner["pip"][0], inner["pip"][1:-1]
    assert options == "--constraint constraints.txt"
    assert packages == requirements()
    assert inner["pip"][-1] == "--editable ."


def test_constraints_pin_every_requirement_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines)
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for text in requirements() + config["options.extras_require"]["dev"].split():
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def imports(path: Path) -> set[str]:
    """List the losslab modules that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("losslab.")}


# What each part may import; config holds names and builds, and runs and science meet nowhere else.
MAY_IMPORT = {
    "types": set(),
    "allocator": set(),
    "checksums": set(),
    "alone": set(),
    "unpack": set(),
    "download": {"alone", "checksums", "files"},
    "seeds": set(),
    "checks": set(),
    "differences": set(),
    "files": set(),
    "words": set(),
    "divergence": set(),
    "images": {"types", "files", "divergence"},
    "optimizers": set(),
    "networks": {"types", "images", "seeds", "checks", "checksums", "download", "networks"},
    "comparisons": {"types", "images", "seeds", "checks", "differences", "comparisons"},
    "losses": {
        "types",
        "images",
        "seeds",
        "checks",
        "checksums",
        "differences",
        "networks",
        "comparisons",
        "losses",
    },
    "figures": {"types", "images", "comparisons", "losses", "figures"},
    "comparing": {"types", "images", "files", "losses", "data", "figures", "comparing"},
    "models": {"types", "images", "seeds", "models"},
    "data": {"types", "images", "seeds", "alone", "checksums", "download", "files", "unpack", "data"},
    "metrics": {"types", "metrics"},
    "tasks": {
        "types",
        "images",
        "seeds",
        "checks",
        "losses",
        "models",
        "data",
        "metrics",
        "optimizers",
        "divergence",
        "tasks",
    },
    "config": {"checksums", "networks"},
    "runs": {"types", "images", "files", "checksums", "config", "divergence", "allocator", "runs"},
    "reports": {"files", "config", "metrics", "runs", "reports"},
}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_never_point_back(part: str) -> None:
    place = ROOT / "src" / "losslab" / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for file in files:
        parts = {name.split(".")[1] for name in imports(file)}
        assert parts <= MAY_IMPORT[part], f"{file.relative_to(ROOT)} imports {sorted(parts - MAY_IMPORT[part])}"


def test_every_part_is_ruled() -> None:
    """A new file or folder of the package says here what it may import."""
    parts = {path.stem for path in (ROOT / "src" / "losslab").iterdir() if not path.name.startswith("__")}
    assert parts == set(MAY_IMPORT)


def test_config_is_read_without_torch() -> None:
    """Help and typos must not wait for it."""
    code = "import sys, losslab.config, losslab.runs.command; losslab.config.load(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert found.stdout.strip() == "False"
