"""What the tests of broken runs share: requests for stand-in cells, and the real command for them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT, quiet
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from losslab.config import CONF, TRUST, plain, register_resolvers
from losslab.runs.command import codes, run_sweep
from losslab.runs.crews import OneByOne
from losslab.runs.journal import Journal
from losslab.runs.plan import Request

HERE = Path(__file__).parent
SMALL = ("task=stand_in", "data=numbers", "loss=l2", "logger=csv", "trainer.max_epochs=4", "trainer.accelerator=cpu",
         "trainer.log_every_n_steps=1")  # fmt: skip
"""20 steps of five an epoch."""


def request_of(outputs: Path, *words: str) -> Request:
    """Resolve one cell's config as the command does."""
    register_resolvers()
    words = (*SMALL, f"outputs={outputs}", *words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*words, f"hydra.searchpath=[file://{HERE / 'conf'}]"], return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return Request(plain(config), choices, words)


def sweep_here(outputs: Path, *cells: str, crew: Any = None) -> list[float]:
    """Run a sweep in this process, a cell for each text of words."""
    codes.clear()
    requests = [request_of(outputs, *cell.split()) for cell in cells]
    return run_sweep(requests, lambda _: crew or OneByOne())


def asked(outputs: Path, *words: str) -> list[str]:
    """Spell the command for stand-in cells; -m must come first."""
    flags = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    program = [sys.executable, str(ROOT / "src" / "train.py"), "--config-dir", str(HERE / "conf"), *flags]
    return [*program, *SMALL, f"outputs={outputs}", *rest]


def surroundings(**more: str) -> dict[str, str]:
    """Give the environment in which stand-ins are found and trusted."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**quiet(), "PYTHONPATH": path, TRUST: "stand_ins.", **more}


def run_command(outputs: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(asked(outputs, *words), env=surroundings(**more), capture_output=True, text=True, timeout=300,
                          check=False, stdin=subprocess.DEVNULL)  # fmt: skip


def results(outputs: Path) -> Journal:
    """Read the journal."""
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    return journal


def scores(outputs: Path) -> dict[str, Any]:
    """Give what each done cell found, by its id: all that two runs must agree on."""
    return {cell: entry["rows"] for cell, entry in results(outputs).cells.items() if entry["state"] == "done"}


def states(outputs: Path) -> dict[str, str]:
    """Give the state of each cell by its label."""
    return {entry["label"]: entry["state"] for entry in results(outputs).cells.values()}
