"""The grid of the papers: rows are sets of images; columns what was given, the start, and what each loss has made."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from losslab.files import write_bytes
from losslab.reports.page import Grids, Group, Picture, groups, shown
from losslab.runs.journal import Journal
from losslab.runs.results import latest

STRIPS = ("inputs.png", "start.png", "result.png")
"""In a cell's images/, all of one height: a set below the other. A start is one picture wide."""

LEAST = 96
"""Pixels across of a start below which all is enlarged by a whole number."""

GAP, LETTERS, LINE = 12, 14, 18
"""Pixels between columns, of the letters, and of a line of them."""

INK, PAPER = "#1c1c1c", "#ffffff"


@dataclass(frozen=True)
class Kept:
    """A cell whose pictures can be put side by side with others'.

    Args:
        entry: its line of the journal.
        inputs: the strip of what it was given.
        start: that of what it began with.
        result: that of what it found.
    """

    entry: dict[str, Any]
    inputs: Image.Image
    start: Image.Image
    result: Image.Image


def write_grids(outputs: Path, journal: Journal) -> Grids:
    """Write report/grid-TASK-DATA.png for each group of cells that have strips, and remove what is there of others.

    Args:
        outputs: the folder that holds the cells' folders.
        journal: its journal, read.

    Returns:
        What was written, by the groups' titles.
    """
    place, written = outputs / "report", dict[str, list[Picture]]()
    taken: set[str] = set()
    for group in groups(latest(journal)):
        for cells in _alike(group, outputs):
            name = _unused(_safe(f"grid-{group.task}-{group.data}"), taken)
            file = io.BytesIO()
            draw_grid(cells).save(file, "PNG")
            write_bytes(place / name, file.getvalue())
            written.setdefault(group.title, []).append(Picture(name, _shared(group, cells)))
    for old in place.glob("grid-*.png"):
        if old.name not in taken:
            old.unlink()
    return written


def draw_grid(cells: Sequence[Kept]) -> Image.Image:
    """Draw the strips of cells with the same inputs side by side, and what each is above it.

    Args:
        cells: the start that is shown is the first one's.
    """
    first = cells[0]
    group = Group("", "", [cell.entry for cell in cells])
    same = all(_content(cell.start) == _content(first.start) for cell in cells)
    whose = "start" if same else f"start of {_caption(group, first.entry)}; others began elsewhere"
    columns = [("inputs", first.inputs), (whose, first.start)]
    columns += [(_caption(group, cell.entry), cell.result) for cell in cells]
    factor = max(1, math.ceil(LEAST / first.start.width))
    return _side_by_side([(words, _enlarged(strip, factor)) for words, strip in columns])


def _side_by_side(columns: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    font = ImageFont.load_default(LETTERS)
    captions = [_wrapped(words, strip.width, font) for words, strip in columns]
    top = GAP + LINE * max(map(len, captions)) + GAP // 2
    width = GAP + sum(strip.width + GAP for _, strip in columns)
    grid = Image.new("RGB", (width, top + columns[0][1].height + GAP), PAPER)
    draw, left = ImageDraw.Draw(grid), GAP
    for lines, (_, strip) in zip(captions, columns, strict=True):
        for number, line in enumerate(lines):  # a short one stands at the bottom, by its pictures
            draw.text((left, top - GAP // 2 - LINE * (len(lines) - number)), line, INK, font)
        grid.paste(strip, (left, top))
        left += strip.width + GAP
    return grid


def _wrapped(words: str, width: int, font: Any) -> list[str]:
    """Break words into lines, and a word that is wider than a line where it has to be."""
    lines = [""]
    for word in words.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _alike(group: Group, outputs: Path) -> Iterator[list[Kept]]:
    """Give the cells that were given the same, several at a time."""
    found: dict[bytes, list[Kept]] = {}
    for entry in group.done:
        kept = strips_of(entry, outputs / entry["folder"] / "images")
        if kept is not None:
            found.setdefault(_content(kept.inputs), []).append(kept)
    yield from (cells for cells in found.values() if len(cells) > 1)


def strips_of(entry: dict[str, Any], folder: Path) -> Kept | None:
    """Read the strips of a cell from its folder of pictures; None where it has none that fit together."""
    try:
        inputs, start, result = (Image.open(folder / name).convert("RGB") for name in STRIPS)
    except OSError:  # not there, not copied here, or no picture
        return None
    return Kept(entry, inputs, start, result) if inputs.height == start.height == result.height else None


def _content(strip: Image.Image) -> bytes:
    return repr(strip.size).encode() + strip.tobytes()


def _caption(group: Group, entry: dict[str, Any]) -> str:
    """Name the loss, and what else tells the cell from the others."""
    axes = entry["axes"]
    told = [f"{name} {shown(axes[name])}" for name in group.axes if name in axes and name != "loss"]
    return ", ".join([str(axes.get("loss", entry["label"])), *told])


def _shared(group: Group, cells: Sequence[Kept]) -> str:
    """Name what is the same for all cells of a grid, and not for all of the group."""
    axes = [cell.entry["axes"] for cell in cells]
    same = [name for name in group.axes if len({str(one.get(name)) for one in axes}) == 1 and name in axes[0]]
    return ", ".join([f"{len(cells)} cells", *(f"{name} {shown(axes[0][name])}" for name in same)])


def _enlarged(strip: Image.Image, factor: int) -> Image.Image:
    return strip.resize((strip.width * factor, strip.height * factor), Image.Resampling.NEAREST)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)


def _unused(stem: str, taken: set[str]) -> str:
    """Give a file's name that no grid has yet."""
    name, number = f"{stem}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.png"
    taken.add(name)
    return name
