"""A cell: one resolved config, known by what changes its numbers."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.config import NOT_BUILT

SCHEMA = 1
"""Version of the identity; a change of the rules below makes new ids."""

COUNTED = ("task", "loss", "data", "seed", "trainer")
"""The subtrees that make the identity. What another group says reaches it by interpolation from inside one of these."""

NOT_COUNTED = (
    "data.root",  # data count by content, and so do the files left out of them
    "data.on_bad",
    "trainer.accelerator",
    "trainer.devices",  # data.batch_size is the batch over all devices, and batch norm sees it whole on GPUs
    "trainer.strategy",
    "trainer.log_every_n_steps",
)
"""Keys inside them that change no number."""

SHARES = ("trainer.limit_train_batches", "trainer.limit_test_batches")
"""Keys for which 1.0, a share, is another value than 1, a number of batches; elsewhere the two are one."""

ID_LENGTH = 10
"""Hex digits of an id: 2^40 ids, so that 10,000 cells collide with a chance of 1 in 20,000."""

LABEL_LENGTH = 60
NAMED_LAYERS = 3
"""Layers that a label names; more are counted."""


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Args:
        id: hash of what changes its numbers.
        task: the task's name.
        label: a readable name, safe as a folder's.
        axes: what tells it from its neighbours, for the journal and the loggers.
        outputs: the folder of all results.
    """

    id: str
    task: str
    label: str
    axes: dict[str, Any]
    outputs: Path

    @property
    def folder(self) -> Path:
        """Where the cell's results are, found by the id: the label of an older version may differ."""
        home = self.outputs / self.task
        return next(home.glob(f"*-{self.id}"), home / f"{self.label}-{self.id}")


def identify(settings: dict[str, Any], content: str) -> Cell:
    """Name the cell of a resolved config.

    Args:
        settings: the resolved config as plain dicts.
        content: hash of the data's content.
    """
    counted = {key: _counted(settings[key], key) for key in COUNTED}
    text = json.dumps({"schema": SCHEMA, "content": content, **counted}, sort_keys=True, allow_nan=False)
    axes = _axes(settings)
    names = [axes[key] for key in ("loss", "network") if key in axes]
    layers = axes.get("layers", "").split("+")
    if layers != [""]:
        names.append("+".join(layers) if len(layers) <= NAMED_LAYERS else f"{len(layers)}layers")
    label = "-".join([*names, f"seed{axes['seed']}"])
    return Cell(
        id=hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH],
        task=_name(settings["task"]),
        label=re.sub(r"[^A-Za-z0-9_.+-]+", "_", label)[:LABEL_LENGTH],
        axes=axes,
        outputs=Path(settings["outputs"]),
    )


def _counted(node: Any, path: str) -> Any:
    if isinstance(node, dict):
        kept = {key: inner for key, inner in node.items() if f"{path}.{key}" not in NOT_COUNTED and key != NOT_BUILT}
        return {key: _counted(inner, f"{path}.{key}") for key, inner in kept.items()}
    if isinstance(node, list):
        return [_counted(inner, path) for inner in node]
    if isinstance(node, float) and node.is_integer() and path not in SHARES:
        return int(node)
    return node


def _axes(settings: dict[str, Any]) -> dict[str, Any]:
    loss = settings["loss"]
    axes = {"task": _name(settings["task"]), "loss": _name(loss), "data": _name(settings["data"])}
    if "network" in loss:
        axes["network"] = loss["network"]["name"]
        axes["weights"] = _name(loss["network"]["weights"])
        axes["layers"] = "+".join(loss["layers"])
        axes["compare"] = _name(loss["compare"])
    return {**axes, "seed": settings["seed"]}


def _name(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()
