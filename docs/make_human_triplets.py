"""Make the table of docs/human-triplets.md from the cells of experiment=human_triplets.

python docs/make_human_triplets.py OUTPUTS    # the folder with the two cells, of 64 and 128 pixels
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from losslab.reports.agreement import groups

PAGE = ROOT / "docs" / "human-triplets.md"
BEGIN, END = "<!-- made by docs/make_human_triplets.py -->", "<!-- end -->"


def interval(row: dict[str, Any]) -> str:
    """Write a score with its interval over pictures, and in small the one over triplets."""
    wide, narrow = (
        f"{row[low]:.3f} to {row[high]:.3f}" for low, high in (("low", "high"), ("low_alone", "high_alone"))
    )
    return f"**{row['score']:.3f}** ({wide}; {narrow})"


def table(outputs: Path) -> str:
    """Write the rows of both sizes side by side, the best one at 64 pixels first."""
    found = {int(group.facts["size"]): group.scored(2000, 0) for group in groups(outputs) if group.task == "twoafc"}
    sizes = sorted(found)
    rows = {size: {row["measure"]: row for row in found[size].rows()} for size in sizes}
    lines = ["| measure | " + " | ".join(f"{size} pixels" for size in sizes) + " | spread of draws |"]
    lines.append("|---|" + "---|" * (len(sizes) + 1))
    for name in sorted(rows[sizes[0]], key=lambda name: -rows[sizes[0]][name]["score"]):
        each = [rows[size][name] for size in sizes]
        cells = [f"{interval(row)}{' ●' if row['like_best'] == 'True' else ''}" for row in each]
        spread = f"{each[0]['sd_of_draws']:.4f}" if each[0].get("sd_of_draws") else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {spread} |")
    counts = []
    for size in sizes:
        pairs = found[size].differences()
        counts.append(f"{sum(one['real'] for one in pairs)} of {len(pairs)} differences at {size} pixels are real.")
    return "\n".join([*lines, "", *counts])


def main(outputs: Path) -> None:
    """Put the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(outputs)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
