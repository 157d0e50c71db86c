"""Make docs/losses.md of what the losses themselves say: configs, docstrings, declared properties, measured costs.

python docs/make.py            # or: make docs
python docs/make.py --check    # exit code 1 if the page is not what would be made
"""

import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from losslab.config import CONF, load, plain

PAGE = ROOT / "docs" / "losses.md"
COSTS = ROOT / "benchmarks" / "losses.json"
YARDSTICK = "VGG-16 as the original"

FAMILIES = {
    "pixels": "Pixels",
    "structure": "Structure and gradients",
    "frequencies": "Frequencies",
    "pyramids": "Pyramids",
    "patches": "Patches at the same place",
    "distributions": "Distributions of patches",
    "networks": "Networks and filter banks",
    "sums": "Sums",
}

INTRODUCTION = """# Losses

Made by `make docs` from `conf/loss`, the docstrings and `benchmarks/losses.json`; edit those.

Every loss takes images in [0, 1], gives one number a pair, and keeps what needs one image only in an encoding
(`encode`, then `compare`). Bandwidths and weights that papers state for [-1, 1] are converted inside.
`tests/properties` tests each *yes* and *no* of this table, for each loss:

- **identity**: zero for two equal images; **offset**: blind to a constant added to a channel; **shuffle**: blind to the
  order of patches that tile an image (stride = patch, no border, one window)
- **channels** it takes; **side**: smallest legal height and width in pixels
- and of all: finite gradients everywhere that equal numerical ones, the batch's order and the memory layout without
  effect, half precision and autocast computed in full, no tensor left on another device, copies, odd sizes

| loss | what | identity | symmetric | ≥ 0 | offset | shuffle | channels | side |
|---|---|---|---|---|---|---|---|---|"""

MEASURED = """Measured by `python benchmarks/losses.py` on a quiet machine: {cores} cores ({processor}),
{threads} threads, `OMP_WAIT_POLICY={wait_policy}`, torch {torch}. *Step*: forward and backward to one side, the other
side's encoding kept; the two rows `as the original` compute both sides anew, as their sources do. *Forward*: the same
without a gradient. *Speed*: how many steps fit in one of the original's VGG-16 loss (five layers and pixels). *Peak*:
extra memory of a step. *Saved*: what autograd keeps for the backward pass. *GFLOP*: convolutions and matrix products of
a step (transforms, sorting and cosines are not counted)."""

HEADLINE = """**The random-feature MMD against its original** at 16×128², medians over eleven rounds of turns:
one step of VGG-16 as the original takes the time of {0:.1f} steps of `mmd`, one of the MMD as the original that of
{1:.1f}. For the backward pass `mmd` keeps {2:.1f} MiB, the original's form {3:.0f}."""

PENALTIES = "What a task adds for its images alone, with nothing to compare: `penalty=total_variation` in `task=glo`."

SECTIONS = ("Formula", "Args", "Raises", "Paper and code", "Source", "Example")
SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):\s*")


def sections(text: str) -> dict[str, str]:
    """Cut a docstring into its named sections; what stands before and between them is `Meaning`."""
    found: dict[str, list[str]] = {"Meaning": []}
    name = "Meaning"
    for paragraph in text.split("\n\n"):
        start = SECTION.match(paragraph)
        if start or not paragraph.startswith(" "):
            name = start[1] if start else "Meaning"
        found.setdefault(name, []).append(SECTION.sub("", paragraph))
    return {name: "\n\n".join(inspect.cleandoc(each) for each in parts) for name, parts in found.items()}


def arguments(text: str) -> Iterator[tuple[str, str]]:
    """Give name and meaning of each argument of an Args section."""
    for entry in re.split(r"\n(?=\S)", text):
        name, _, meaning = entry.partition(":")
        yield name.strip(), " ".join(meaning.split())


def class_of(target: str) -> type:
    """Import what a `_target_` names."""
    module, _, name = target.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


class Entry:
    """One file of conf/loss or conf/penalty.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        """Read its first line, and resolve it."""
        self.name = path.stem
        head = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        self.head, *more = (line.lstrip("# ") for line in head)
        self.note = " ".join(more)
        group = path.parent.name
        self.settings: dict[str, Any] = plain(load(f"{group}={self.name}"))[group]
        self.properties: dict[str, Any] = self.settings.get("properties", {})
        self.target = class_of(self.settings["_target_"])

    @property
    def given(self) -> str:
        """Its settings as the command line would give them."""
        return ", ".join(_flat(self.settings)) or "none"

    def row(self) -> str:
        """Its line in the table of all losses."""
        p = self.properties
        marks = [_mark(p[key]) for key in ("identity", "symmetric", "nonnegative", "colour_offset")]
        shuffles = _mark(bool(p["permutable"]))
        cells = [
            f"[`{self.name}`](#{_anchor(self.target)})",
            _cell(self.head),
            *marks,
            shuffles,
            p["channels"],
            p["min_side"],
        ]
        return f"| {' | '.join(map(str, cells))} |"


def parts_of(node: Any) -> Iterator[str]:
    """Give the `_target_` of everything inside a resolved config."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        if isinstance(inner, dict) and "_target_" in inner:
            yield inner["_target_"]
        yield from parts_of(inner)


def _flat(node: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        if key in ("_target_", "_partial_", "properties") or (key in ("layers", "slots") and prefix):
            continue
        if isinstance(value, dict):
            kind = [f"{prefix}{key}: {value['_target_'].rpartition('.')[2]}"] if "_target_" in value else []
            found += kind + _flat(value, f"{prefix}{key}.")
        else:
            found.append(f"`{prefix}{key}={_short(value)}`")
    return found


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_short(each) for each in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _mark(value: bool) -> str:  # noqa: FBT001 - a cell of a table
    return "yes" if value else "no"


def _anchor(target: type) -> str:
    return target.__name__.lower()


def described(target: type, entries: list[Entry], group: str = "loss") -> str:
    """Describe a class and the configs that build it."""
    parts = sections(inspect.getdoc(target) or "")
    lines = [f"### {target.__name__}", "", parts["Meaning"], ""]
    if "Formula" in parts:
        lines += ["```text", parts["Formula"], "```", ""]
    lines += [f"| `{group}=` | what | settings |", "|---|---|---|"] if entries else []
    lines += [
        f"| `{one.name}` | {_cell('. '.join(filter(None, (one.head, one.note))))} | {_cell(one.given)} |"
        for one in entries
    ]
    lines += [""]
    if "Args" in parts:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in arguments(parts["Args"])] + [""]
    for name in ("Paper and code", "Source"):
        if name in parts:
            text = " ".join(parts[name].split())
            lines += [f"**{name}.** {text[0].upper()}{text[1:]}", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def costs() -> str:
    """Give the table of measured costs, relative to VGG-16."""
    if not COSTS.is_file():
        return "Not measured yet: `python benchmarks/losses.py`.\n"
    kept = json.loads(COSTS.read_text(encoding="utf-8"))
    machine, rows = kept["machine"], kept["rows"]
    sizes = list(rows[YARDSTICK])
    where = MEASURED.format(**machine)
    lines = [
        " ".join(where.split()),
        "",
        HEADLINE.format(*kept["ratios"].values(), *_saved(rows)).replace("\n", " "),
        "",
    ]
    for size in sizes:
        yard = rows[YARDSTICK][size]["both"]
        lines += [f"**{size}**", ""]
        lines += ["| loss | encode, ms | forward, ms | step, ms | speed | peak, MiB | saved, MiB | GFLOP |",
                  "|---|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [_cost(name, found[size], yard) for name, found in rows.items()] + [""]
    return "\n".join(lines)


def _saved(rows: dict[str, Any]) -> tuple[float, float]:
    return tuple(rows[name]["16×128²"]["saved_mib"] for name in ("mmd", "MMD as the original"))


def _cost(name: str, found: dict[str, float] | str, yard: float) -> str:
    if isinstance(found, str):
        return f"| `{name}` | {found} | | | | | | |"
    encode = "" if "original" in name else f"{1000 * found['encode']:.3g}"
    numbers = (f"{1000 * found['forward']:.3g}", f"{1000 * found['both']:.3g}", f"{yard / found['both']:.2g}×")
    memory = (f"{found['peak_mib']:.0f}", f"{found['saved_mib']:.3g}", f"{found['gflop']:.3g}")
    return f"| `{name}` | {encode} | {' | '.join((*numbers, *memory))} |"


def page() -> str:
    """Write the whole page."""
    entries = [Entry(path) for path in sorted((CONF / "loss").glob("*.yaml"))]
    ordered = sorted(entries, key=lambda one: list(FAMILIES).index(one.properties["family"]))
    lines = [INTRODUCTION, *(entry.row() for entry in ordered), ""]
    told: set[type] = set()
    for family, title in FAMILIES.items():
        lines += [f"## {title}", ""]
        for entry in entries:
            if entry.properties["family"] == family and entry.target not in told:
                told.add(entry.target)
                lines.append(described(entry.target, [one for one in entries if one.target is entry.target]))
    inner = {class_of(target) for entry in entries for target in parts_of(entry.settings)} - told
    lines += ["## What they are made of", ""]
    lines += [described(part, []) for part in sorted(inner, key=lambda one: one.__name__)]
    told |= inner
    lines += ["## Penalties", "", PENALTIES, ""]
    penalties = [Entry(path) for path in sorted((CONF / "penalty").glob("*.yaml"))]
    lines += [described(one.target, [one], "penalty") for one in penalties]
    lines += ["## Where papers and their code differ", "", differences(told), ""]
    lines += ["## What they cost", "", costs()]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def differences(told: set[type]) -> str:
    """Name the classes that have a paragraph about papers and code."""
    named = sorted(one.__name__ for one in told if "Paper and code" in sections(inspect.getdoc(one) or ""))
    links = ", ".join(f"[{name}](#{name.lower()})" for name in named)
    return (
        f"Each paragraph *Paper and code* above says what differs, which switch gives which, and the default: {links}."
    )


def main() -> int:
    """Write the page, or compare it."""
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what the losses say now: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
