"""Table and page: what they say of cells in every state, and that nothing in a journal breaks them."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from losslab.reports.page import groups, make_page
from losslab.reports.terminal import show
from losslab.runs import read_results
from losslab.runs.journal import Journal, measure_line
from losslab.runs.results import latest

NASTY = "<script>alert('[/red]')</script>"
VOID = ("meta", "img")


class Page(HTMLParser):
    """What a browser would find; an element that is not closed in its turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def line(cell: str, state: str, loss: str = "l2", *, task: str = "glo", **more: Any) -> dict[str, Any]:
    """Write what `losslab.runs.states.entry_of` writes."""
    axes = {"task": task, "loss": loss, "data": "photos", "seed": 0}
    folder = f"{task}/{loss}-{cell}"
    found = {"cell": cell, "task": task, "label": loss, "folder": folder, "state": state, "axes": axes}
    return {**found, "finished": "2026-11-22T06:30:28+00:00", "sweep": "s", "code": "c", "rows": [], **more}


def done(cell: str, loss: str, psnr: float, **more: Any) -> dict[str, Any]:
    rows = [{"steps": 4, "psnr": psnr, "loss_after": 1 / psnr}]
    return line(cell, "done", loss, rows=rows, primary=psnr, seconds=3.5, **more)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Give the journal of a sweep with a cell in each state, and pictures of the two that are done."""
    found = Journal(tmp_path / "outputs" / "journal.jsonl")
    planned = [{key: line(f"c{n}", "", f"loss{n}")[key] for key in ("cell", "task", "label", "axes")} for n in range(6)]
    found.append({"sweep": "s", "began": "2026-11-22T06:30:24+00:00", "cells": planned})
    found.append(done("c1", "loss1", 12.5))
    found.append(done("c0", "loss0", 11.25))
    found.append(line("c2", "failed", "loss2", reason=f"no such layer {NASTY}", seconds=0.5))
    found.append(line("c3", "diverged", "loss3", reason="the loss became NaN", step=7, seconds=1.5))
    found.append(line("c4", "interrupted", "loss4", reason="stopped by SIGINT", seconds=2.5))
    for cell, name in [("loss0-c0", "samples"), ("loss1-c1", "samples"), ("loss1-c1", 'a "b" & 50%? #1'),
                       ("loss1-c1", "samples-step000001"), ("loss3-c3", "samples")]:  # fmt: skip
        picture = found.path.parent / "glo" / cell / "images" / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    found.read()
    return found


def page_of(journal: Journal) -> Page:
    journal.read()
    return Page(make_page(journal.path.parent, journal))


def test_page_tells_every_cell(journal: Journal) -> None:
    """No state is blank, a cell that diverged says so where its scores would be, and n of m counts planned ones."""
    page = page_of(journal)
    assert page.cells == [
        ["loss", "state", "psnr", "loss_after", "seconds", "reason"],
        ["loss0", "done", "11.25", "0.08889", "3.5", ""],
        ["loss1", "done", "12.5", "0.08", "3.5", ""],
        ["loss2", "failed", "–", "–", "0.5", f"no such layer {NASTY}"],
        ["loss3", "diverged", "diverged", "diverged", "1.5", "the loss became NaN"],
        ["loss4", "interrupted", "–", "–", "2.5", "stopped by SIGINT"],
        ["loss5", "planned", "–", "–", "–", "has not ended yet"],
    ]
    assert "2 of 6 cells done" in page.text
    assert "Results in outputs" in page.text


def test_terminal_tells_every_cell(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are not done have a line with their reason, word by word."""
    show(journal)
    shown, errors = capsys.readouterr()
    assert shown.splitlines()[-5:] == [
        f"failed  glo/loss2-c2: no such layer {NASTY}",
        "diverged  glo/loss3-c3: the loss became NaN",
        "interrupted  glo/loss4-c4: stopped by SIGINT",
        "planned  glo/loss5-c5: has not ended yet",
        "2 of 6 cells done",
    ]
    assert shown.index("loss0") < shown.index("loss1") < shown.index("loss5")
    assert errors == ""


def test_tables_hold_what_can_be_compared(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores of another task have their own table, in the terminal and on the page."""
    journal.append(line("d0", "done", "l2", task="style", rows=[{"gram": 0.5}], primary=-0.5, seconds=1.0))
    page = page_of(journal)
    assert page.cells[-2:] == [["loss", "state", "gram", "seconds", "reason"], ["l2", "done", "0.5", "1.0", ""]]
    assert "3 of 7 cells done" in page.text
    show(journal)
    shown = capsys.readouterr().out
    assert "glo on photos\n" in shown
    assert "style on photos\n" in shown


def test_links_lead_to_final_pictures_of_done_cells(journal: Journal) -> None:
    """Every link is relative and leads to a file, so that the outputs folder can be moved as a whole."""
    page, place = page_of(journal), journal.path.parent / "report"
    place.mkdir()
    links = [str(element["href"]) for element in page.all("a")]
    assert links[0] == "results.csv"
    pictures = [place / unquote(urlsplit(link).path) for link in links[1:]]
    assert [picture.resolve().relative_to(place.parent.resolve()).as_posix() for picture in pictures] == [
        'glo/loss1-c1/images/a "b" & 50%? #1.png',
        "glo/loss0-c0/images/samples.png",
        "glo/loss1-c1/images/samples.png",
    ]
    assert all(
        picture.is_file() and link.startswith("../glo/") for picture, link in zip(pictures, links[1:], strict=True)
    )
    shown = page.all("img")
    assert [image["src"] for image in shown] == links[1:]
    assert all(image["loading"] == "lazy" for image in shown)
    assert [image["alt"] for image in shown][1:] == ["samples of loss loss0", "samples of loss loss1"]


def test_missing_pictures_leave_out_their_sections(journal: Journal) -> None:
    """A folder that is not there, or holds no picture, costs the cell its pictures and nothing else."""
    for picture in journal.path.parent.rglob("*.png"):
        picture.unlink()
    (journal.path.parent / "glo" / "loss0-c0" / "images").rmdir()
    page = page_of(journal)
    assert "samples" not in page.text
    assert not page.all("img")
    assert page.cells[1][:3] == ["loss0", "done", "11.25"]


def test_text_of_a_journal_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a label, an axis, a score, a reason or a folder is called, it runs nothing and breaks nothing."""
    journal = Journal(tmp_path / "<b>outputs" / "journal.jsonl")
    axes = {"task": NASTY, "data": NASTY, "loss": NASTY, NASTY: NASTY}
    journal.append(line("c0", "done", axes=axes, rows=[{NASTY: 1.5, "word": NASTY}], label=NASTY, folder=NASTY))
    journal.append(line("c1", "failed", axes={**axes, NASTY: "[bold]"}, label=NASTY, reason=f"{NASTY} :smile:"))
    picture = journal.path.parent / NASTY / "images" / "<i>.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    page = page_of(journal)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "b", "i"}
    assert page.text.count(NASTY) == 12  # 2 in the heading, 2 and 5 in the table, 3 in the caption
    assert (journal.path.parent / "report" / unquote(str(page.all("img")[0]["src"]))).resolve() == picture.resolve()
    show(journal)
    shown = capsys.readouterr().out
    assert f"{NASTY} on {NASTY}" in shown
    assert "[bold]" in shown
    assert f"{NASTY} :smile:" in shown


def test_page_needs_nothing_else(journal: Journal) -> None:
    """It has no script, and no address but those of its own folder's pictures and table."""
    page = make_page(journal.path.parent, journal)
    assert "http" not in page
    assert not {tag for tag, _ in Page(page).elements} & {"script", "link", "iframe"}
    assert page.startswith("<!DOCTYPE html>\n<html lang=")


def test_torn_line_is_told(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that a crash has torn counts as not done, and both the page and stderr say which it is."""
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 120, -7):
        journal.path.write_bytes(whole[:cut])
        torn = Journal(journal.path)
        page = page_of(torn)
        assert "journal.jsonl: line 6 is damaged" in page.text
        assert str(journal.path.parent) not in page.text
        assert page.cells[5][:2] == ["loss4", "planned"]
        show(torn)
        assert "journal.jsonl: line 6 is damaged" in capsys.readouterr().err
    journal.append(done("c5", "loss5", 9.5))  # the sweep goes on after the crash
    page = page_of(Journal(journal.path))
    assert "journal.jsonl: line 6 is damaged" in page.text
    assert [cells[:2] for cells in page.cells[5:]] == [["loss4", "planned"], ["loss5", "done"]]


def test_journal_without_lines_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that has just begun has a report too."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.touch()
    assert "0 of 0 cells done" in page_of(journal).text
    show(journal)
    assert capsys.readouterr().out == "0 of 0 cells done\n"


def test_matrix_of_measures(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are done cells, columns measures; the least of each column is bold, and a start of 0 has no share."""
    for cell, name, start, end in [("c0", "l2", 0.5, 0.25), ("c1", "l2", 1.0, 0.375), ("c1", "ssim", 0.0, 0.125),
                                   ("c3", "l2", 1.0, 0.01)]:  # fmt: skip
        journal.append(measure_line(f"{cell}{name}", cell=cell, measure=name, start=start, end=end, alike=start))
    page = page_of(journal)
    assert page.cells[7:] == [
        ["loss", "l2", "ssim"], ["loss0", "0.25", "–"], ["loss1", "0.375", "0.125"],
        ["loss", "l2", "ssim"], ["loss0", "0.5", "–"], ["loss1", "0.375", "–"],
    ]  # fmt: skip
    texts = [text for row in page.cells if row[0] != "loss" for text in row]
    marked = [text for cell, text in zip(page.all("td"), texts, strict=True) if "best" in str(cell.get("class"))]
    assert marked == ["12.5", "0.25", "0.375"]  # psnr, l2 and its share; of ssim there is one
    assert "different configs of l2" in page.text
    show(journal)
    shown = capsys.readouterr().out
    assert "glo on photos: share of the distance at the start" in shown
    assert "different configs of l2" in shown
    table = read_results(journal.path.parent).set_index("cell")
    assert table.loc["c1", "end/ssim"] == 0.125
    assert table["start/l2"].notna().sum() == 2


def test_animations_are_shown(journal: Journal) -> None:
    """A GIF stands in the walls as pictures do."""
    (journal.path.parent / "glo" / "loss0-c0" / "images" / "optimisation.gif").touch()
    links = [str(image["src"]) for image in page_of(journal).all("img")]
    assert "../glo/loss0-c0/images/optimisation.gif" in links


def best_of(*entries: dict[str, Any]) -> tuple[str, float] | None:
    (group,) = groups(entries)
    return group.best


def test_best_is_marked_where_the_journal_says_which_it_is(journal: Journal) -> None:
    """Only of the score that a sweep maximises or minimises is it known whether more is better."""
    page = page_of(journal)
    marked = [cell for cell in page.all("td") if "best" in str(cell.get("class"))]
    assert len(marked) == 1
    assert groups(latest(journal))[0].best == ("psnr", 12.5)

    def less(cell: str, value: float) -> dict[str, Any]:
        return line(cell, "done", rows=[{"lpips": value}, {"lpips": value + 1}], primary=-value)

    assert best_of(less("a", 0.25), less("b", 0.5)) == ("lpips", 0.25)


def test_no_best_where_it_is_unsure() -> None:
    """A NaN is never the best, and neither is one cell alone or one of two scores with the same values."""
    assert best_of(done("a", "l1", 12.0)) is None
    assert best_of(done("a", "l1", 12.0), line("b", "diverged")) is None
    twins = [
        line(cell, "done", rows=[{"a": value, "b": value}], primary=value) for cell, value in (("x", 1.0), ("y", 2.0))
    ]
    assert best_of(*twins) is None
    nan = float("nan")
    none = line("c", "done", rows=[{"psnr": nan, "loss_after": nan}], primary=nan)
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1]):
        entries = [done("a", "l1", 12.0), done("b", "l1", 11.0), none]
        assert best_of(*(entries[place] for place in order)) == ("psnr", 12.0)


def test_cells_stand_in_the_order_of_what_tells_them_apart() -> None:
    """Seed 10 comes after seed 9, whichever ended first, so that a picture is found where one looks for it."""
    entries = []
    for loss, seed in [("l2", 10), ("l1", 9), ("l2", 9), ("l1", 10)]:
        entry = line(f"{loss}{seed}", "done", loss)
        entries.append({**entry, "axes": {**entry["axes"], "seed": seed}})
    (group,) = groups(entries)
    assert [entry["cell"] for entry in group.entries] == ["l19", "l110", "l29", "l210"]
    assert group.caption(group.entries[1]) == "loss l1, seed 10"


WRITER = """
import json, sys, time
from pathlib import Path
from losslab.runs.journal import Journal
for line in sys.stdin:
    Journal(Path(sys.argv[1])).append(json.loads(line))
    time.sleep(0.005)
"""


def test_report_while_a_sweep_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells whole lines only, at any moment of 200 appends, and all of them at the end."""
    path = tmp_path / "journal.jsonl"
    lines = [json.dumps(done(f"c{number}", f"loss{number}", 10 + number / 7)) for number in range(200)]
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        writer.stdin.write("\n".join(lines))
        writer.stdin.close()
        counts, over = [0], False
        while not over:
            over = writer.poll() is not None
            if not path.exists():
                continue
            told = len(read_results(tmp_path))
            page = page_of(Journal(path))
            number = max(0, len(page.cells) - 1)
            assert told <= number
            assert f"{number} of {number} cells done" in page.text
            assert "damaged" not in page.text
            counts.append(number)
    assert writer.returncode == 0
    assert counts == sorted(counts)
    assert counts[-1] == 200
    assert len(set(counts)) > 5, "it saw no sweep that was writing"
    journal = Journal(path)
    journal.read()
    show(journal)
    assert capsys.readouterr().out.endswith("200 of 200 cells done\n")
