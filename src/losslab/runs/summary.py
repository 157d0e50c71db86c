"""What a run says at its start and its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from losslab.runs.cell import Cell


def announce(cell: Cell, facts: dict[str, int], resume: Path | None) -> None:
    """Say what is about to run."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in facts.items())
    how = "goes on from its last checkpoint" if resume else "starts"
    Console(soft_wrap=True).print(f"{cell.task}/{cell.label} {how}: {counts}\n  {cell.folder}", highlight=False)


def show(cell: Cell, entry: dict[str, Any], *, again: bool, other_code: bool) -> None:
    """Print a done cell's scores and where its pictures are."""
    console = Console(soft_wrap=True)
    table = Table(title=f"{cell.task}/{cell.label}  {cell.id}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for row in entry["rows"]:
        for name, value in row.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    table.add_row("seconds", str(entry["seconds"]))
    console.print(table)
    if again:
        how = "done before, by other code" if other_code else "done before"
        console.print(f"{how}; force=true computes it again", highlight=False)
    for path in sorted((cell.outputs / entry["folder"] / "images").glob("*.png")):
        if "-step" not in path.name:
            console.print(f"  {path}", highlight=False)
