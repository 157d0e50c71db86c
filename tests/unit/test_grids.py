"""The grid of strips: what stands beside what, and that every word can be read."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFont

from losslab.reports import grid as grids
from losslab.reports.grid import GAP, LETTERS, draw_grid, write_grids
from losslab.reports.page import make_page
from losslab.runs.journal import Journal

COLOURS = {"l1": (255, 0, 0), "l2": (0, 0, 255), "deep": (0, 128, 0)}
START, INPUTS = (90, 90, 90), (200, 200, 0)


def add(outputs: Path, loss: str, *, cell: str = "", height: int = 60, width: int = 30, start: Any = START,
        inputs: Any = INPUTS, **axes: Any) -> Path:  # fmt: skip
    """Write a done cell with its strips, and give their folder."""
    cell = cell or loss
    folder = outputs / "gim" / f"{loss}-{cell}"
    (folder / "images").mkdir(parents=True)
    for name, colour, wide in (
        ("result", COLOURS[loss], width),
        ("start", start, width),
        ("inputs", inputs, 2 * width),
    ):
        Image.new("RGB", (wide, height), colour).save(folder / "images" / f"{name}.png")
    Journal(outputs / "journal.jsonl").append(
        {"cell": cell, "task": "gim", "label": loss, "folder": f"gim/{folder.name}", "state": "done", "rows": [],
         "axes": {"task": "gim", "loss": loss, "data": "four crops", "seed": 0, **axes}}
    )  # fmt: skip
    return folder / "images"


def written(outputs: Path) -> dict[str, Image.Image]:
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    found = write_grids(outputs, journal)
    page = make_page(outputs, journal, found)
    links = [picture.link for some in found.values() for picture in some]
    assert all(f'src="{link}"' in page for link in links)
    assert [path.name for path in sorted((outputs / "report").glob("*"))] == sorted(links)
    return {link: Image.open(outputs / "report" / link).convert("RGB") for link in links}


def columns(picture: Image.Image) -> list[tuple[tuple[int, int, int], int]]:
    """Give colour and width of each strip along the lowest row that has any."""
    row = [picture.getpixel((place, picture.height - GAP - 1)) for place in range(picture.width)]
    found: list[list[Any]] = []
    for before, colour in zip([None, *row], row, strict=False):
        if colour != before:
            found.append([colour, 0])
        found[-1][1] += 1
    return [(colour, width) for colour, width in found if colour != (255, 255, 255)]


def test_columns_are_inputs_start_and_cells(tmp_path: Path) -> None:
    """Small pictures are enlarged by a whole number, the same for all columns; nothing is cut or smoothed."""
    for loss in ("l2", "deep", "l1"):
        add(tmp_path, loss)
    (picture,) = written(tmp_path).values()
    order = [INPUTS, START, COLOURS["deep"], COLOURS["l1"], COLOURS["l2"]]
    assert columns(picture) == [(colour, 240 if colour == INPUTS else 120) for colour in order]
    down = [picture.getpixel((GAP, place)) for place in range(picture.height)]
    assert down.count(INPUTS) == 240


def test_large_pictures_stay_as_they_are(tmp_path: Path) -> None:
    for loss in ("l2", "l1"):
        add(tmp_path, loss, width=96)
    (picture,) = written(tmp_path).values()
    assert [width for _, width in columns(picture)] == [192, 96, 96, 96]


def captions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """Note what is written above each column, line by line, and the column's width."""
    found: list[tuple[list[str], int]] = []
    ours = grids._wrapped

    def noting(words: str, width: int, font: Any) -> list[str]:
        found.append((ours(words, width, font), width))
        return found[-1][0]

    monkeypatch.setattr(grids, "_wrapped", noting)
    return found


def test_captions_are_wrapped_and_never_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every letter of a caption stands above its own column, however long its words are."""
    found = captions(monkeypatch)
    long = "a_name_that_is_much_wider_than_a_column_is_without_any_space"
    add(tmp_path, "l1", network=long)
    add(tmp_path, "l2", network="cnn1", cell="other")
    (picture,) = written(tmp_path).values()
    font = ImageFont.load_default(LETTERS)
    assert ["".join(lines).replace(" ", "") for lines, _ in found] == [
        "inputs", "start", f"l1,network{long}", "l2,networkcnn1",
    ]  # fmt: skip
    assert all(font.getlength(line) <= width for lines, width in found for line in lines)
    assert len(found[2][0]) > 3
    rows = [picture.crop((0, place, picture.width, place + 1)) for place in range(picture.height)]
    ink = [place for place, row in enumerate(rows) if len(row.getcolors(999) or []) > 1]
    assert ink[0] >= 4, "the first line is cut off above"


def test_other_starts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One start is shown, and the caption says whose it is."""
    found = captions(monkeypatch)
    add(tmp_path, "l1")
    add(tmp_path, "l2", start=(0, 0, 0))
    (picture,) = written(tmp_path).values()
    assert " ".join(found[1][0]) == "start of l1; others began elsewhere"
    assert columns(picture)[1][0] == START


def test_cells_with_other_inputs_have_their_own_grid(tmp_path: Path) -> None:
    """What was given other sets can't stand in the same rows; one cell alone makes no grid; old files go."""
    for number, inputs in enumerate([INPUTS, INPUTS, (1, 1, 1), (1, 1, 1), (2, 2, 2)]):
        add(tmp_path, "l1" if number % 2 else "l2", cell=str(number), inputs=inputs, **{"data.size": 60 + number // 2})
    found = written(tmp_path)
    assert list(found) == ["grid-gim-four_crops.png", "grid-gim-four_crops-2.png"]
    assert {columns(picture)[0][0] for picture in found.values()} == {INPUTS, (1, 1, 1)}
    for folder in tmp_path.glob("gim/*-[34]/images"):
        (folder / "result.png").write_bytes(b"no picture")
    assert list(written(tmp_path)) == ["grid-gim-four_crops.png"]


def test_strips_of_other_heights_are_left_out(tmp_path: Path) -> None:
    """A cell whose strips don't fit together is none of a grid, and without two cells there is no grid."""
    add(tmp_path, "l1")
    Image.new("RGB", (30, 10)).save(add(tmp_path, "l2") / "result.png")
    assert written(tmp_path) == {}


def test_a_grid_of_kept_cells_needs_no_files(tmp_path: Path) -> None:
    """What is drawn depends on the strips alone."""
    entry = {"axes": {"loss": "l1"}, "label": "l1", "state": "done", "rows": []}
    strip = Image.new("RGB", (100, 50))
    one = grids.Kept(entry, strip, strip, strip)
    assert draw_grid([one, one]).height == draw_grid([one]).height
