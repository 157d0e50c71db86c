"""docs/gim.md shows a picture and a row of scores for each cell of the commands above them."""

import re

import make_gim
import pytest
from conftest import ROOT
from PIL import Image as Picture

PAGE = (ROOT / "docs" / "gim.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", PAGE, re.DOTALL))


def test_the_blogs_conditions_are_here() -> None:
    """A block that is lost would not be missed by the others' tests."""
    assert {"first", "blog_pixels", "blog_cnn2", "blog_channels", "blog_kernels", "blog_fft", "blog_bands"} <= {*BLOCKS}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_has_all_cells(name: str) -> None:
    """Each command composes, and each of its cells has a row, under the caption that the maker gives it."""
    commands = make_gim.COMMAND.findall(BLOCKS[name])
    told = {cell: axes for command in commands for cell, axes in make_gim.cells(command).items()}
    entries = [{"axes": axes} for axes in told.values()]
    captions = [make_gim.caption(entry, entries) for entry in entries]
    table = BLOCKS[name].partition("Under further losses")[0]
    assert re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE) == captions
    (picture,) = re.findall(r"\]\((images/[^)]+)\)", BLOCKS[name])
    with Picture.open(ROOT / "docs" / picture) as shown:
        assert min(shown.size) > 100
        assert len(shown.convert("L").getcolors(256) or []) > 100
