"""What README and notebooks show can be run, and finds what it links to."""

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, Run, quiet
from nbclient import NotebookClient

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


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own libraries
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    done = NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "it shows no picture"


@pytest.mark.parametrize("text", COMMANDS)
def test_readme_commands_run(train: Run, tmp_path: Path, text: str) -> None:
    """Each command of the README, on a few batches; a folder of the reader's stands for one of ours."""
    program, script, *overrides = shlex.split(text)
    assert (program, script) == ("python", "src/train.py")
    photos = tmp_path / "photos"
    photos.mkdir()
    from losslab import images
    from losslab.data.photos import Photos

    data = Photos(train_count=40, val_count=0)
    for number, image in enumerate(data.load()[0]):
        images.write(photos / f"{number}.png", image)
    own = any(word.startswith("data=folder") for word in overrides)
    small = [word for word in TINY if not (own and "train_count" in word)]
    done = train(*(word.replace("path/to/photos", str(photos)) for word in overrides), *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "journal.jsonl").exists()


def test_readme_python_runs() -> None:
    """The snippets of the README, one after another."""
    scope: dict[str, object] = {}
    snippets = [block for language, block in BLOCKS if language == "python"]
    assert snippets
    for snippet in snippets:
        exec(snippet, scope)


def test_readme_shows_the_commands_that_exist() -> None:
    """Every make target is one of the Makefile's, and every key of `python` commands was run above."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
    assert COMMANDS
    assert quiet()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links and pictures exist."""
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    for link in (first or second for first, second in links):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
