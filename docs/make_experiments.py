"""Make docs/experiments.md of what the files in conf/experiment say of themselves.

python docs/make_experiments.py            # or: make docs
python docs/make_experiments.py --check    # exit code 1 if the page is not what would be made
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "conf" / "experiment"
PAGE = ROOT / "docs" / "experiments.md"

KEYS = ("Source", "Command", "Needs", "Expected", "Time")
"""What the comment at the top of each file says, in this order, behind its first sentence."""

KEY = re.compile(rf"({'|'.join(KEYS)}): (.*)")

INTRODUCTION = """# Experiments

Made by `make docs` from the comments at the top of the files in `conf/experiment`; edit those.

Published tables and figures, one command each. *Not verified here* is what we had no data or weights to run: the numbers
are their sources', the tolerances ours. Times are estimated from the processor time of a few triplets on one core, with
two cores taken as twice as fast, and without the time to read pictures.

All rows of a panel see the same pictures, and networks that rows share read each picture once. Rows with random weights
are measured under `draws` of them, with the spread in the column `sd_of_draws`. Any key can be overridden behind the
experiment, such as `data.root=...` or `network=alexnet`. To see one run without trained weights or anybody's data:

    python src/train.py experiment=lpips_table5 weights@trained=random data=known_order draws=2
    python src/train.py experiment=ariel_two_afc_2021_09 weights@trained=random data=known_order '~data.subsets'
    python src/train.py experiment=loss_networks_two_afc network=alexnet weights=random data=known_order
"""


def header(text: str) -> tuple[str, dict[str, list[str]]]:
    """Give the first sentence of a file, and the lines of each key.

    Raises:
        ValueError: the comment at its top does not have all keys, in their order.
    """
    lines = [line[2:] for line in text.splitlines()[1:] if line.startswith("# ")]
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        start = KEY.match(line)
        if start:
            found[start[1]] = [start[2]]
        elif line.startswith("  ") and found:
            found[[*found][-1]].append(line[2:])
        elif found:
            break  # comments that are no part of it
    if tuple(found) != KEYS:
        raise ValueError(f"the comment at the top has {', '.join(KEYS)}, in this order; found {', '.join(found)}")
    return lines[0], found


def section(name: str, text: str) -> str:
    """Write what a file says of itself."""
    sentence, says = header(text)
    first, *table = says["Expected"]
    lines = [f"## {name}", "", sentence, "", f"    {says['Command'][0]}", ""]
    lines += [f"- **{key}**: {' '.join(line.strip() for line in says[key])}" for key in ("Source", "Needs", "Time")]
    lines += [f"- **Expected**: {first}", *(["", *(f"      {line}".rstrip() for line in table)] if table else []), ""]
    return "\n".join(lines)


def page() -> str:
    """Write the whole page."""
    files = sorted(FOLDER.glob("*.yaml"))
    return "\n".join([INTRODUCTION, *(section(file.stem, file.read_text(encoding="utf-8")) for file in files)])


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with --check say whether it is what would be written."""
    made = page()
    if "--check" not in arguments:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
    if not current:
        print(f"{PAGE} is out of date: make docs", file=sys.stderr)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
