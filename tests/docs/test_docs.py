"""What README and notebooks show can be run, and finds what it links to."""

import math
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT, Run, quiet
from nbclient import NotebookClient
from warm import Warm

from losslab import images
from losslab.config import load
from losslab.data.photos import Photos
from losslab.runs import read_results
from losslab.runs.journal import Journal

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.startswith("python ")
]
# A few batches of small things: what is tested is that the command exists, not what it finds.
TINY = ["trainer=fast", "data.train_count=66", "data.batch_size=16", "logger=csv"]
JUDGED = ["trainer=fast", "data.batch_size=16", "logger=csv", "data.size=32"]
"""For tasks that judge, and that learn from judgements."""


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own libraries
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    done = NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "it shows no picture"


@pytest.mark.parametrize("text", COMMANDS)
def test_readme_commands_run(
    train: Run,
    warm: Warm,
    tmp_path: Path,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command of the README, on a few batches; a folder and pictures of the test's stand for the reader's."""
    program, script, *overrides = shlex.split(text)
    assert program == "python"
    if script in ("src/report.py", "src/agreement.py"):
        first = (
            ["loss=l2", *TINY] if script == "src/report.py" else ["task=two_afc", "loss=l2", "data.count=20", *JUDGED]
        )
        assert train(*first).returncode == 0
        asked = [sys.executable, str(ROOT / script), str(tmp_path / "outputs")]
        assert warm.run(asked, ROOT, quiet(), timeout=300).returncode == 0
        return
    if script in ("src/compare.py", "src/features.py", "src/layers.py"):
        monkeypatch.chdir(tmp_path)
        for name in ("a", "b", *(f"{folder}/{k}" for folder in ("folder", "one_folder", "other_folder") for k in "ab")):
            images.write(tmp_path / f"{name}.png", images.to_bytes(torch.rand(3, 40, 48)))
        monkeypatch.setattr(sys, "argv", [script, *overrides])
        runpy.run_path(str(ROOT / script), run_name="__main__")
        assert capsys.readouterr().out
        return
    assert script == "src/train.py"
    if any(re.match("task=(two_afc|jnd|metric_training)", word) for word in overrides):
        _judge(train, tmp_path, overrides)
        return
    if any(word.startswith("task=gim") for word in overrides):
        _find(train, tmp_path, overrides)
        return
    photos = tmp_path / "photos"
    photos.mkdir()
    data = Photos(train_count=40, val_count=0)
    for number, image in enumerate(data.load()[0]):
        images.write(photos / f"{number}.png", image)
    own = any(word.startswith("data=folder") for word in overrides)
    small = [word for word in TINY if not (own and "train_count" in word)]
    done = train(*(word.replace("path/to/photos", str(photos)) for word in overrides), *small)
    assert done.returncode == 0, done.stderr
    cells = math.prod(word.count(",") + 1 for word in overrides) if "-m" in overrides else 1
    table = read_results(tmp_path / "outputs")
    assert list(table.state) == ["done"] * cells


def _judge(train: Run, tmp_path: Path, overrides: list[str]) -> None:
    """Run a command on judgements: some that are made where people's are not at hand, and without trained weights."""
    here = "LOSSLAB_DATA" in os.environ
    asked = [word for word in overrides if here or word != "data=material"]
    learns = "task=metric_training" in asked
    made = [] if "data=material" in asked else ["data.count=20"]
    small = [*JUDGED, *made, *(["data.train_count=32", "weights=random"] if learns else ["task.samples=20"])]
    done = train(*asked, *small)
    assert done.returncode == 0, done.stderr
    table = read_results(tmp_path / "outputs")
    assert table.cell.nunique() == math.prod(word.count(",") + 1 for word in asked if word.startswith("loss="))
    assert set(table.state) == {"done"}


def _find(train: Run, tmp_path: Path, overrides: list[str]) -> None:
    """Run a command for images between others on two small sets."""
    done = train(*overrides, "trainer=fast", "logger=csv", "data.size=32", "data.names=[coffee,chelsea]")
    assert done.returncode == 0, done.stderr
    table = read_results(tmp_path / "outputs")
    losses = next(word for word in overrides if word.startswith("loss="))
    assert list(table.state) == ["done"] * (losses.count(",") + 1)
    measures = next((word.partition("=")[2].strip("[]") for word in overrides if word.startswith("measures=")), "")
    assert all(table[f"end/{name}"].notna().all() for name in filter(None, measures.split(",")))


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets of the README, one after another."""
    scope: dict[str, object] = {}
    Journal(tmp_path / "outputs" / "journal.jsonl").append(
        {"cell": "a", "state": "done", "axes": {}, "rows": [{"psnr": 1.0}]}
    )
    monkeypatch.chdir(tmp_path)
    snippets = [block for language, block in BLOCKS if language == "python"]
    assert snippets
    for snippet in snippets:
        exec(snippet, scope)


def test_readme_names_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"\bmake ([a-z-]+)\b", README)
    assert {"run", "test", "help"} <= set(targets)
    for target in set(targets):
        assert f"\n{target}:" in makefile, target


def test_readme_names_keys_that_exist() -> None:
    """Every `key=value` in the text composes."""
    texts = [text.split() for text in re.findall(r"`([^`\n]+)`", README)]
    settings = [words for words in texts if all(re.match(r"[a-z_.]+=\w", word) for word in words)]
    assert len(settings) > 5
    for words in settings:
        load(*words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links and pictures exist."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text)
    for link in (first or second for first, second in links):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_catalogue_of_losses_is_what_the_losses_say() -> None:
    """docs/losses.md is what `make docs` would write now."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_speed_page_is_what_the_benchmark_measured() -> None:
    """`make docs` after `python benchmarks/networks.py`."""
    made = [sys.executable, str(ROOT / "docs" / "make_speed.py"), "--check"]
    assert subprocess.run(made, check=False).returncode == 0
