"""What compares lists of picture files: partners by name, each picture encoded seldom, honest errors of means."""

import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from losslab import images
from losslab.comparing.distances import between, check_sizes, standard_error, table_of, within
from losslab.comparing.partners import named, partners, pictures_in
from losslab.data.tiles import tiles
from losslab.losses.pairs import PairDistances
from losslab.losses.panel import Panel
from losslab.losses.pixel import L1, L2
from losslab.words import ending, one_of, sort_words


@pytest.fixture
def panel() -> Panel:
    return Panel({"l1": L1(), "l2": L2()})


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def random_pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    made = [folder / f"{number}.png" for number in range(len(sizes))]
    for path, size in zip(made, sizes, strict=True):
        images.write(path, torch.randint(256, (3, *size), dtype=torch.uint8))
    return made


def test_pictures_in_a_folder(tmp_path: Path) -> None:
    """By name; what is hidden, no picture or a folder is none."""
    folder = touch(tmp_path / "one", "b.png", "a.JPG", ".c.png", "d.txt")
    touch(folder / "e.png", "f.png")
    assert [path.name for path in pictures_in(folder)] == ["a.JPG", "b.png"]
    with pytest.raises(ValueError, match=r"two holds no picture \(\.png"):
        pictures_in(touch(tmp_path / "two", "a.txt"))


def test_partners_by_name(tmp_path: Path) -> None:
    """Without the suffix while that is enough; with it as soon as a folder has two of one stem."""
    one, two = touch(tmp_path / "one", "a.png", "b.png", "c.png"), touch(tmp_path / "two", "b.jpg", "a.png", "d.png")
    pairs, alone = partners(one, two)
    assert pairs == {"a": (one / "a.png", two / "a.png"), "b": (one / "b.png", two / "b.jpg")}
    assert alone == [one / "c.png", two / "d.png"]
    (two / "a.bmp").touch()
    pairs, alone = partners(one, two)
    assert pairs == {"a.png": (one / "a.png", two / "a.png")}
    assert alone == [one / "b.png", one / "c.png", two / "a.bmp", two / "b.jpg", two / "d.png"]
    three = touch(tmp_path / "three", *(f"{letter}.png" for letter in "stuvwxyz"))
    with pytest.raises(ValueError, match=r"no picture in .*one has the name of one in .*three: .*; and 6 more"):
        partners(one, three)


def test_names_of_many_files_are_few() -> None:
    assert named([Path("a"), Path("b")]) == "a; b"
    assert named([Path("a")] * 9).endswith("and 4 more")


@pytest.mark.parametrize("capacity", [2, 3, 4, 100])
def test_within_whatever_memory_holds(panel: Panel, monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
    """Each pair once, with the losses' own distance, and no more encodings at a time than are allowed."""
    held = []
    encoded = PairDistances._encoded

    def counted(self: PairDistances, used: Tensor, device: torch.device) -> object:
        held.append(len(used))
        return encoded(self, used, device)

    monkeypatch.setattr(PairDistances, "capacity", lambda self, device: capacity)
    monkeypatch.setattr(PairDistances, "_encoded", counted)
    pictures = torch.randint(256, (7, 3, 8, 8), dtype=torch.uint8)
    pairs = torch.tensor([*combinations(range(7), 2), (5, 1), (2, 2)])
    found, seen = torch.empty(len(pairs), 2), []
    for numbers, rows in within(panel, pictures, pairs):
        found[numbers] = rows
        seen += numbers.tolist()
    assert sorted(seen) == list(range(len(pairs)))
    a, b = images.to_float(pictures)[pairs].unbind(1)
    torch.testing.assert_close(found, torch.stack([L1()(a, b), L2()(a, b)], 1))
    assert max(held) <= capacity
    assert held == [7] or capacity < 7


def test_within_encodes_seldom(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 pictures, eight at a time: six blocks of four, each alone and with each other one."""
    held = []
    encoded = PairDistances._encoded

    def counted(self: PairDistances, used: Tensor, device: torch.device) -> object:
        held.append(len(used))
        return encoded(self, used, device)

    monkeypatch.setattr(PairDistances, "capacity", lambda self, device: 8)
    monkeypatch.setattr(PairDistances, "_encoded", counted)
    pictures = torch.randint(256, (24, 3, 4, 4), dtype=torch.uint8)
    assert len([*within(panel, pictures, torch.tensor([*combinations(range(24), 2)]))]) == 6 + 15
    assert sorted(held) == [4] * 6 + [8] * 15


def test_tiles_hold_near_pairs() -> None:
    """Every pair is in one tile, whose first and second pictures are each of one block."""
    pairs = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    for some in tiles(pairs, 4):
        assert (pairs[some] // 4).unique(dim=0).shape == (1, 2)
    assert torch.equal(torch.cat([*tiles(pairs, 4)]).sort().values, torch.arange(100))
    assert len(tiles(pairs, 4)) == 9


def test_between_files_of_many_sizes(panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, some of one size at a time; scaled, all have one."""
    sizes = [(8, 8), (8, 8), (8, 8), (6, 8), (8, 8)]
    (tmp_path / "two").mkdir()
    pairs = [*zip(random_pictures(tmp_path, *sizes), random_pictures(tmp_path / "two", *sizes), strict=True)]
    monkeypatch.setattr(Panel, "at_once", lambda self, pixels: 2)
    blocks = [*between(panel, pairs, None)]
    assert [numbers.tolist() for numbers, _ in blocks] == [[0, 1], [2], [3], [4]]
    wanted = [
        [float(loss(*(images.to_float(images.read(path)) for path in pair))) for loss in (L1(), L2())] for pair in pairs
    ]
    torch.testing.assert_close(torch.cat([rows for _, rows in blocks]), torch.tensor(wanted))
    assert [numbers.tolist() for numbers, _ in between(panel, pairs, 4)] == [[0, 1], [2, 3], [4]]


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    """Those that are unlike most of a folder, or the one beside them."""
    paths = random_pictures(tmp_path, (8, 8), (6, 8), (8, 8), (8, 9))
    with pytest.raises(ValueError, match=r"most have 8×8 and \S*/1\.png 6×8; \S*/3\.png 8×9; size=64 resizes all"):
        table_of(paths, None)
    assert table_of(paths, 5).shape == (4, 3, 5, 5)
    assert table_of(paths[::2], None).shape == (2, 3, 8, 8)
    check_sizes([(paths[0], paths[2])])
    with pytest.raises(ValueError, match=r"of a pair differ .*: \S*/0\.png 8×8 and \S*/1\.png 6×8; size=64"):
        check_sizes([(paths[0], paths[2]), (paths[0], paths[1])])


def test_standard_error_of_pairs_that_share_nothing() -> None:
    """Then it is the known one: the deviation over the root of their number."""
    rows = torch.rand(9, 2, dtype=torch.float64)
    wanted = rows.std(0) / 3
    torch.testing.assert_close(standard_error(rows, torch.arange(9)[:, None]), wanted)


def test_standard_error_by_its_definition() -> None:
    """One picture left out at a time, with all its pairs."""
    pairs = torch.tensor([*combinations(range(6), 2)])
    rows = torch.rand(15, 2, dtype=torch.float64)
    means = torch.stack([rows[(pairs != one).all(1)].mean(0) for one in range(6)])
    wanted = (5 / 6 * (means - means.mean(0)).square().sum(0)).sqrt()
    torch.testing.assert_close(standard_error(rows, pairs), wanted)
    assert standard_error(rows[:1], pairs[:1]).isnan().all()


def test_standard_error_tells_how_much_means_vary() -> None:
    """Over many draws of ten pictures: as the mean over all pairs does, twice as much as that of 45 numbers alone."""
    pairs = torch.tensor([*combinations(range(10), 2)])
    values = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distances = (values[:, pairs[:, 0]] + values[:, pairs[:, 1]]).T  # a loss that one bad picture makes large
    spread = distances.mean(0).std()
    assert standard_error(distances, pairs).square().mean().sqrt() == pytest.approx(float(spread), rel=0.05)
    assert (distances.std(0) / math.sqrt(45)).mean() < 0.6 * spread


def test_words_of_small_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders with `=` in their names are folders where they are written as paths; wrong words are named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loss=l2").mkdir()
    assert sort_words(["./loss=l2", "loss=l2"], {}) == ([Path("loss=l2")], {}, ["loss=l2"])
    assert ending("map", "", [".png"]) is None
    assert ending("map", "a/b.png", [".png"]) == Path("a/b.png")
    (tmp_path / "c.png").mkdir()
    for wrong in ("a.jpg", "png", "c.png"):
        with pytest.raises(ValueError, match=rf"map is the name of a file that ends in \.png, got {wrong}"):
            ending("map", wrong, [".png"])
    assert one_of("missing", "skip", ["error", "skip"]) == "skip"
    with pytest.raises(ValueError, match="missing is error or skip, got 'x'"):
        one_of("missing", "x", ["error", "skip"])
