"""Make the tables and pictures of docs/gim.md from finished cells.

python docs/make_gim.py OUTPUTS [FIGURE ...]    # the folder in which the page's commands have put their cells
"""

import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from losslab.config import CONF, load, plain
from losslab.reports.grid import draw_grid, strips_of
from losslab.runs.journal import Journal
from losslab.runs.plan import Request, make_plan
from losslab.runs.results import latest, read_results

PAGE, PICTURES = ROOT / "docs" / "gim.md", ROOT / "docs" / "images"
BLOCK = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
COMMAND = re.compile(r"^    python src/train\.py (.*)$", re.MULTILINE)
NAMES = {"ghosting": "ghosting", "sharpness": "sharpness", "variation": "variation", "colour_error": "colour error"}
LARGEST = 2000
"""Pixels across of a picture in the page."""
WIDEST, AT_ONCE = 8, 2
"""How many times wider than high a picture may be, and cells in a line of one that would be wider."""


def points(command: str) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Expand a command as its sweep does: what each point chooses, and its settings."""
    words = [word.strip("'\"") for word in re.findall(r"(?:'[^']*'|\S)+", command) if word != "-m"]
    given = {word.partition("=")[0]: word for word in words if not word.startswith("measures=")}
    params: dict[str, Any] = {}
    if "experiment" in given:
        name = given["experiment"].partition("=")[2]
        text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        params = yaml.safe_load(text).get("hydra", {}).get("sweeper", {}).get("params", {})
    parsed = OverridesParser.create().parse_overrides(
        [*given.values(), *(f"{key}={value}" for key, value in params.items() if key not in given)]
    )
    swept = [one for one in parsed if one.is_sweep_override()]
    fixed = [one.input_line or "" for one in parsed if not one.is_sweep_override()]
    for point in product(*(one.sweep_string_iterator() for one in swept)):
        choice = {str(one.key_or_group): str(value) for one, value in zip(swept, point, strict=True)}
        yield choice, plain(load(*fixed, *(f"{key}={value}" for key, value in choice.items())))


def cells(command: str) -> dict[str, dict[str, str]]:
    """Name the cells of a command, in the order of its sweep, each with the choices that tell it from the others."""
    found: dict[str, dict[str, str]] = {}
    for choice, settings in points(command):
        told = {key.rpartition(".")[2]: value.strip("[]") for key, value in choice.items() if _counts(key, settings)}
        network = settings["loss"].get("network", {}).get("name")
        loss = choice.get("loss") or ("scnn" if network == "scnn" else network or "loss")
        found.setdefault(make_plan(Request(settings)).cell.id, {"loss": loss, **told})
    return found


def _counts(key: str, settings: dict[str, Any]) -> bool:
    """Tell whether a loss has what a choice is about."""
    group = key.partition(".")[0]
    return group not in ("network", "weights", "layer", "compare") or "network" in settings["loss"]


def caption(entry: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """Tell a cell from the others."""
    axes = entry["axes"]
    differing = [key for key in axes if key != "loss" and len({one["axes"].get(key) for one in others}) > 1]
    return ", ".join([axes["loss"], *(f"{key} {axes[key]}" for key in differing)])


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Write the scores of cells."""
    spread = any("colour_error_sd_of_draws" in entry["rows"][0] for entry in entries)
    yield f"| | {' | '.join(NAMES.values())} |{' spread of it |' if spread else ''} loss, start → end | settled after |"
    yield "|---|" + "---|" * (len(NAMES) + spread + 2)
    for entry in entries:
        row = entry["rows"][0]
        numbers = ["" if row[name] is None else f"{row[name]:.3f}" for name in NAMES]
        numbers += [f"{row['colour_error_sd_of_draws']:.3f}"] if spread else []
        ends = f"{row['loss_start']:.3g} → {row['loss_end']:.3g}"
        steps = f"{row['steps_to_converge']:.0f} of {row['steps']} steps, {row['seconds_to_converge']:.0f} s"
        yield f"| {caption(entry, entries)} | {' | '.join(numbers)} | {ends} | {steps} |"


def matrix(entries: list[dict[str, Any]], outputs: Path) -> Iterator[str]:
    """Write what each cell's images are under further losses, as a share of their start."""
    table = read_results(outputs).set_index("cell")
    names = [name.partition("/")[2] for name in map(str, table) if name.startswith("end/")]
    ids = [entry["cell"] for entry in entries]
    names = [name for name in names if table.loc[ids, f"end/{name}"].notna().all()]
    if not names:
        return
    yield ""
    yield "Under further losses, as a share of the start's (the smallest of a column is bold):"
    yield ""
    yield "| optimised | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    shares = {name: table.loc[ids, f"end/{name}"] / table.loc[ids, f"start/{name}"] for name in names}
    for entry in entries:
        each = [(shares[name][entry["cell"]], shares[name].min()) for name in names]
        told = [f"**{value:.3f}**" if value == least else f"{value:.3f}" for value, least in each]
        yield f"| {caption(entry, entries)} | {' | '.join(told)} |"


def picture(name: str, entries: list[dict[str, Any]], outputs: Path) -> str:
    """Draw the grid of cells, and give its name."""
    found = [one for entry in entries if (one := strips_of(entry, outputs / entry["folder"] / "images")) is not None]
    grid = draw_grid(found)
    if grid.width > WIDEST * grid.height:  # of one set: a line for some cells each
        lines = [draw_grid(found[first : first + AT_ONCE]) for first in range(0, len(found), AT_ONCE)]
        grid = Image.new("RGB", (max(line.width for line in lines), sum(line.height for line in lines)), "white")
        for number, line in enumerate(lines):
            grid.paste(line, (0, sum(each.height for each in lines[:number])))
    if grid.width > LARGEST:
        grid = grid.resize((LARGEST, round(grid.height * LARGEST / grid.width)), Image.Resampling.LANCZOS)
    path = PICTURES / f"gim-{name.replace('_', '-')}.jpg"
    grid.save(path, quality=88)
    return path.name


def block(name: str, text: str, journal: Journal, outputs: Path) -> str:
    """Write a figure: its commands as they are, the picture of their cells, and the table."""
    commands = COMMAND.findall(text)
    known = {entry["cell"]: entry for entry in latest(journal) if entry["state"] == "done"}
    ids = {cell: told for command in commands for cell, told in cells(command).items()}
    missing = [cell for cell in ids if cell not in known]
    if missing:
        raise SystemExit(
            f"{name}: {len(missing)} of {len(ids)} cells of these commands are not done in {outputs}: {missing}"
        )
    entries = [{**known[cell], "axes": told} for cell, told in ids.items()]
    shown = picture(name, entries, outputs)
    body = [f"    python src/train.py {command}" for command in commands]
    body += ["", f"![{name}](images/{shown})", "", *lines(entries), *matrix(entries, outputs)]
    return f"<!-- {name} -->\n" + "\n".join(body) + "\n<!-- end -->"


def main(outputs: Path, *names: str) -> None:
    """Put pictures and tables into the page."""
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        BLOCK.sub(lambda m: block(m[1], m[2], journal, outputs) if not names or m[1] in names else m[0], text),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
