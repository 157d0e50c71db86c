"""What all tests share: quiet threads, checked shapes, and ways to build small things."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: two busy processes would slow each other down

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch too: workers share the cores, and so do what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("LOSSLAB_OFFLINE", "1")  # no test may need the network

from jaxtyping import install_import_hook

# Shapes and types in the annotations are checked at run time, here and nowhere else.
SCIENCE = ("images", "losses", "networks", "comparisons", "models", "data", "metrics", "tasks")
install_import_hook([f"losslab.{part}" for part in SCIENCE], "shape_checks.checked")

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from warm import Warm

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trust the stand-in task of tests/reliability, and keep its marks in the test's folder."""
    monkeypatch.setenv("LOSSLAB_TRUST", "stand_ins.")
    monkeypatch.setenv("LOSSLAB_TEST_ONCE", str(tmp_path))


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Give what runs scripts without the seconds that their imports take."""
    made = Warm(quiet())
    yield made
    made.close()


@pytest.fixture
def train(tmp_path: Path, warm: Warm) -> Run:
    """Give a function that runs the real command with results in a temporary folder; `fresh` ones import all anew."""

    def run(*overrides: str, cwd: Path = ROOT, fresh: bool = False) -> "subprocess.CompletedProcess[str]":
        asked = command(tmp_path / "outputs", *overrides)
        if not fresh:
            return warm.run(asked, cwd, quiet(), timeout=300)
        return subprocess.run(
            asked,
            cwd=cwd,
            env=quiet(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


def command(outputs: Path, *overrides: str) -> list[str]:
    """Spell the command that a user gives."""
    place = [] if any(word.startswith("outputs=") for word in overrides) else [f"outputs={outputs}"]
    return [sys.executable, str(ROOT / "src" / "train.py"), *overrides, *place]


def quiet() -> dict[str, str]:
    """Give the environment without what a developer's shell may hold of W&B."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
