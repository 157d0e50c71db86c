"""Lay the reconstructions of many GLO cells out as one wall, a row a loss, and print their scores as a table.

python docs/glo_wall.py outputs/wall     # writes docs/images/glo-wall.jpg; docs/glo-wall.md has the commands before
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from losslab.runs import read_results

PICTURE = ROOT / "docs" / "images" / "glo-wall.jpg"
STEP = 66
"""Pixels from picture to picture in a grid of 64-pixel pictures with a border of 2."""
COLUMNS, LABEL = 8, 190
ORIGINALS, FOUND = 0, 1
"""Rows of a grid of reconstructions."""


def strip(folder: Path, row: int) -> Image.Image:
    """Cut one row out of a cell's grid."""
    with Image.open(folder / "images" / "reconstructions.png") as grid:
        return grid.crop((0, row * STEP, COLUMNS * STEP + 2, (row + 1) * STEP + 2)).convert("RGB")


def wall(rows: list[tuple[str, Image.Image]]) -> Image.Image:
    """Stack strips with their names at the left."""
    picture = Image.new("RGB", (LABEL + COLUMNS * STEP + 2, len(rows) * STEP + 2), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for index, (name, pixels) in enumerate(rows):
        picture.paste(pixels, (LABEL, index * STEP))
        pen.text((6, index * STEP + STEP // 2 - 7), name, "black", font)
    return picture


def main(outputs: Path) -> None:
    """Write the wall of all cells that are done, in the order of docs/losses.md, and print their scores."""
    table: Any = read_results(outputs)
    done = table[(table.state == "done") & (table.task == "glo")].copy()
    done["name"] = done.label.str.removesuffix("-seed0")
    done = done.drop_duplicates("name", keep="last")
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    done = done.sort_values("loss", key=lambda names: names.map(lambda name: page.index(f"| [`{name}`]")))
    places = {row.name: outputs / row.folder for row in done.itertuples(index=False)}
    first = strip(next(iter(places.values())), ORIGINALS)
    picture = wall([("originals", first), *((name, strip(place, FOUND)) for name, place in places.items())])
    picture.save(PICTURE, quality=90, subsampling=0)
    print("| loss | PSNR, dB | SSIM |\n|---|---|---|")
    for row in done.itertuples():
        print(f"| `{row.name}` | {row.psnr:.2f} | {row.ssim:.3f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
