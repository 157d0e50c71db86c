"""A table of judgements is read as it stands, and what is wrong in it is named by its line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from losslab.config import build, load, plain
from losslab.data.judged import Pairs, Triplets
from losslab.data.triplet_table import TripletTable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make pictures of different sizes that are grey as their names say."""
    for value, shape in ((10, (8, 8)), (20, (5, 9)), (30, (30, 20)), (40, (4, 4))):
        path = tmp_path / "deep" / f"{value}.png" if value == 40 else tmp_path / f"{value}.png"
        path.parent.mkdir(exist_ok=True)
        Picture.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)
    return tmp_path


def table(folder: Path, *lines: str, start: bytes = b"") -> TripletTable:
    (folder / "table.csv").write_bytes(start + "\n".join(lines).encode())
    return TripletTable(folder / "table.csv", size=4)


def greys(held: Triplets | Pairs, places: torch.Tensor) -> list[int]:
    return [int(grey) for grey in held.pictures[places, 0, 0, 0]]


def test_triplets(folder: Path) -> None:
    """Columns may stand in any order, paths may be whole, and each picture lies once, in the order of first use."""
    held = table(
        folder,
        "judge,p1,ref,p0,votes,subset",
        "0.2,30.png,10.png,20.png,5,b",
        f"1,deep/40.png,10.png,{folder / '30.png'},1,a",
        ".5,10.png,30.png,20.png,2,b",
    ).load()
    assert isinstance(held, Triplets)
    assert held.pictures.shape == (4, 3, 4, 4)
    assert [greys(held, one) for one in (held.reference, held.p0, held.p1)] == [
        [10, 10, 30],
        [20, 30, 20],
        [30, 40, 10],
    ]
    assert held.judge.tolist() == pytest.approx([0.2, 1, 0.5])
    assert held.reference[0] == 0
    assert held.votes is not None
    assert held.votes.tolist() == [5, 1, 2]
    assert ([held.subsets[one] for one in held.subset], held.subsets) == (["b", "a", "b"], ("b", "a"))


def test_pairs(folder: Path) -> None:
    """The header tells a table of pairs; without subsets, all rows are of one; a byte order mark does no harm."""
    held = table(folder, "p0,p1,same", "10.png,20.png,0.25", "", "20.png,30.png,1", start=b"\xef\xbb\xbf").load()
    assert isinstance(held, Pairs)
    assert [greys(held, one) for one in (held.p0, held.p1)] == [[10, 20], [20, 30]]
    assert held.same.tolist() == [0.25, 1]
    assert held.subsets == ("all",)


def test_equal_pictures_under_two_names(folder: Path) -> None:
    """They are one picture: rows that show it under either name share it."""
    shutil.copy(folder / "10.png", folder / "again.png")
    held = table(folder, "ref,p0,p1,judge", "10.png,20.png,30.png,0", "20.png,again.png,30.png,1").load()
    assert isinstance(held, Triplets)
    assert [one.tolist() for one in (held.reference, held.p0, held.p1)] == [[0, 1], [1, 0], [2, 2]]
    assert len(held.pictures) == 3


def test_votes_may_be_unknown(folder: Path) -> None:
    held = table(folder, "ref,p0,p1,judge", "10.png,20.png,30.png,0").load()
    assert isinstance(held, Triplets)
    assert held.votes is None


def test_place_does_not_count(folder: Path, tmp_path: Path) -> None:
    """The content is that of pictures and judgements; the files that it hangs on are all listed."""
    first = table(folder, "p0,p1,same", "10.png,20.png,0.25", "10.png,30.png,0")
    assert [path.name for path in first.files()] == ["table.csv", "10.png", "20.png", "30.png"]
    other = tmp_path / "other.csv"
    other.write_text(f"p0,p1,same\n{folder}/10.png,{folder}/20.png,0.25\n{folder}/10.png,{folder}/30.png,0\n")
    assert TripletTable(other, size=4).fingerprint() == first.fingerprint()
    other.write_text(other.read_text().replace("0.25", "0.75"))
    assert TripletTable(other, size=4).fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("10.png,20.png,30.png,1.2,5", "line 3: judge is '1.2', expected a share from 0 to 1"),
        ("10.png,20.png,30.png,-0.1,5", "line 3: judge is '-0.1'"),
        ("10.png,20.png,30.png,nan,5", "line 3: judge is 'nan'"),
        ("10.png,20.png,30.png,p1,5", "line 3: judge is 'p1'"),
        ("10.png,20.png,30.png,1,0", "line 3: votes is '0', expected a whole number from 1"),
        ("10.png,20.png,30.png,1,2.5", "line 3: votes is '2.5'"),
        ("10.png,20.png,30.png,1,", "line 3: votes is empty"),
        ("10.png,,30.png,1,5", "line 3: p0 is empty"),
        ("10.png,gone.png,30.png,1,5", "line 3: p0 is 'gone.png', and there is no such file"),
        ("10.png,deep,30.png,1,5", "line 3: p0 is 'deep'"),
        ("10.png,20.png,30.png,1", "line 3: 4 cells, expected 5"),
        ("10.png,20.png,30.png,1,5,6", "line 3: 6 cells, expected 5"),
    ],
)
def test_bad_rows_are_named_by_line(folder: Path, row: str, words: str) -> None:
    good = "10.png,20.png,30.png,1,5"
    with pytest.raises(ValueError, match=rf"table\.csv has 1 bad rows of 3: {words}"):
        table(folder, "ref,p0,p1,judge,votes", good, row, good).load()


def test_bad_rows_are_counted(folder: Path) -> None:
    """All are counted, and no more than five told."""
    with pytest.raises(ValueError, match=r"8 bad rows of 8: line 2: .*line 6: .*; and 3 more$") as error:
        table(folder, "p0,p1,same", *["10.png,gone.png,0"] * 8).files()
    assert "line 7" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("ref,p0,p1", r"has the columns ref, p0, p1; expected ref,p0,p1,judge"),
        ("ref,p0,p1,judge,same", "expected ref,p0,p1,judge"),
        ("ref,p0,p1,judge,p1", "each once"),
        ("p0,p1,judge", "has judge, and no column ref"),
        ("ref,p0,p1,judge,subsets", "unknown column 'subsets'; did you mean 'subset'"),
        ("p0,p1,same,ref", "unknown column 'ref'"),
        ("", "an empty file"),
    ],
)
def test_header_that_fits_no_kind(folder: Path, header: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table(folder, header).load()


def test_what_is_no_table(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no rows"):
        table(folder, "p0,p1,same").load()
    with pytest.raises(ValueError, match="is no file"):
        TripletTable(folder / "gone.csv").files()
    with pytest.raises(ValueError, match=r"table\.csv can't be read as a CSV table"):
        table(folder, "p0,p1,same", start=b"\xff\xfe").load()
    with pytest.raises(ValueError, match=r"table\.csv can't be read as a CSV table"):
        table(folder, "p0,p1,same", '"10.png,20.png,0').load()


def test_config_names_the_table(folder: Path) -> None:
    """The option of the command builds the same data."""
    own = table(folder, "p0,p1,same", "10.png,20.png,0.25")
    settings = plain(load("data=triplet_table", f"data.table={own.table}", "data.size=4", f"outputs={folder / 'out'}"))
    assert build(settings["data"]).fingerprint() == own.fingerprint()
