"""The manifest of a sweep: all its configs as they were when it began, and what has changed since."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from losslab.files import read_json, write_json
from losslab.runs.cell import COUNTED
from losslab.runs.plan import Plan, Request, noted
from losslab.runs.provenance import code_hash, libraries
from losslab.runs.secrets import masked, masked_words
from losslab.runs.sentences import sentence

UNNAMED = ("outputs", "force", "on_error", "on_drift", "retries", "checkpoint_seconds", "stale_seconds", "logger",
           "measures")  # fmt: skip
"""Keys that say how a sweep is run, not what it asks: with other values of them it is the same sweep."""


def sweep_id(requests: Sequence[Request]) -> str:
    """Name a sweep by the words of its cells, so that the same command is the same sweep after an edit of conf/."""
    words = sorted(" ".join(sorted(_asking(request))) for request in requests)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def freeze(sweep: str, plans: Sequence[Plan], bad: Sequence[tuple[Request, Exception]], outputs: Path) -> list[Plan]:
    """Write down what the sweep is going to compute, and compare it with what it was when it began.

    Args:
        sweep: its id.
        plans: the cells.
        bad: the requests that can't be one, with what is wrong.
        outputs: where the manifest goes.

    Returns:
        The plans, with a note where the config is another than the one that the same words meant before.
    """
    folder = outputs / "sweeps" / sweep
    earlier = sorted(folder.glob("manifest-*.json"))
    before = read_json(earlier[-1]) if earlier else {}
    known = {cell["words"]: cell for cell in before.get("cells", [])}
    plans = [_compared(plan, known.get(_words(plan)), before.get("began", "")) for plan in plans]
    cells = [
        {"words": _words(plan), "cell": plan.cell.id, "label": plan.cell.label, "axes": plan.cell.axes,
         "settings": masked(plan.settings)}
        for plan in plans
    ]  # fmt: skip
    now = {"cells": cells, "unplanned": unplanned(bad), "code": code_hash(), "libraries": libraries()}
    if now == {key: before.get(key) for key in now}:
        return plans
    began = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / f"manifest-{len(earlier) + 1:03}.json", {"sweep": sweep, "began": began, **now})
    return plans


def unplanned(bad: Sequence[tuple[Request, Exception]]) -> list[dict[str, Any]]:
    """Tell of the requests that are no cells what they said and why."""
    return [
        {
            "words": request.words,
            "axes": {group: request.choices[group] for group in ("task", "data") if group in request.choices},
            "reason": str(masked(sentence(error))),
        }
        for request, error in bad
    ]


def _asking(request: Request) -> list[str]:
    return [word for word in request.overrides if word.lstrip("+~").partition("=")[0].split(".")[0] not in UNNAMED]


def _words(plan: Plan) -> str:
    return " ".join(masked_words(_asking(plan.request)))


def _compared(plan: Plan, before: dict[str, Any] | None, began: str) -> Plan:
    if before is None or before["cell"] == plan.cell.id:
        return plan
    old, new = (
        dict(_leaves({key: node[key] for key in COUNTED})) for node in (before["settings"], masked(plan.settings))
    )
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    changes = ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in keys) or "the data hold something else"
    return noted(plan, f"config changed since {began}: {changes}; a new cell, the one before is {before['cell']}")


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(node)
