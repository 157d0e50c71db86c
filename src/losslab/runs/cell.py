"""A cell: one resolved config, known by what changes its numbers."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.config import NOT_BUILT
from losslab.runs.secrets import masked

SCHEMA = 1
"""Version of the identity; a change of the rules below makes new ids."""

COUNTED = ("task", "loss", "data", "seed", "trainer")
"""The subtrees that make the identity. What another group says reaches it by interpolation from inside one of these."""

NOT_COUNTED = (
    "data.root",  # data count by content, and so do the files left out of them
    "data.on_bad",
    "data.download",
    "data.mirrors",
    "data.table",  # a file, which counts by content
    "data.cache",  # where decoded pictures are kept
    "data.codes",  # a file, and what neighbours are cut from: the sets count by content
    "data.pictures.root",
    "data.pictures.on_bad",
    "task.save_distances",
    "trainer.accelerator",
    "trainer.devices",  # data.batch_size is the batch over all devices, and batch norm sees it whole on GPUs
    "trainer.strategy",
    "trainer.num_nodes",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
"""Keys inside them that change no number."""

NOT_COUNTED_AT_THE_END = (
    ".network.layers",  # tables of names: what is read stands, by its canonical name, in the loss's own layers
    ".network.slots",
    ".weights.path",  # weights count by content, their sha256
    ".heads_path",
)
"""Ends of further such keys, wherever in a loss they stand."""

SHARES = tuple(
    f"trainer.{key}"
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches",
                "overfit_batches", "val_check_interval")
)  # fmt: skip
"""Keys for which 1.0, a share, is another value than 1, a number of batches; elsewhere the two are one."""

PRECISIONS = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's short names of precisions, and what they mean."""

ADDED: dict[str, Any] = {
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": None,
    "loss.local_patch_size": 3,
    "loss.window": 32,
    "loss.stride": 16,
    "task.penalty": {"_target_": "losslab.losses.penalty.NoPenalty"},
}
"""Keys that came after the first cells were computed, with the values that those had without knowing: such a key and
value leave an id as it was."""

ADDED_AT_THE_END: dict[str, Any] = {".network.trainable": False}
"""Ends of further such keys, wherever in a loss they stand."""

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


def identify(
    settings: dict[str, Any], content: str, choices: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> Cell:
    """Name the cell of a resolved config.

    Args:
        settings: the resolved config as plain dicts.
        content: hash of the data's content.
        choices: the option that was chosen of each group, for the names; without them, the classes give names.
        overrides: the words of the command, for the axes.
    """
    found = {key: counted(settings[key], key) for key in COUNTED}
    text = json.dumps({"schema": SCHEMA, "content": content, **found}, sort_keys=True, allow_nan=False)
    given = masked(_given(settings, overrides))
    axes = masked(_axes(settings, choices or {}))
    return Cell(
        id=hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH],
        task=_name(settings["task"]),
        label=_label(axes, given),
        axes={**axes, **given},
        outputs=Path(settings["outputs"]),
    )


def _counts(path: str, value: Any) -> bool:
    if path in NOT_COUNTED or path.endswith(NOT_COUNTED_AT_THE_END):
        return False
    ends = any(path.endswith(end) and value == before for end, before in ADDED_AT_THE_END.items())
    return not (ends or (path in ADDED and value == ADDED[path]))


def _label(axes: dict[str, Any], given: dict[str, Any]) -> str:
    """Make a name that a person can read and every file system takes."""
    names = [axes[key] for key in ("loss", "network") if key in axes]
    layers = axes.get("layers", "").split("+")
    if layers != [""]:
        names.append("+".join(layers) if len(layers) <= NAMED_LAYERS else f"{len(layers)}layers")
    names += [axes["penalty"]] if "penalty" in axes else []
    names += [
        f"{key.rpartition('.')[2]}{value}"
        for key, value in given.items()
        if key.startswith(("loss.", "network.", "task."))
    ]
    safe = [re.sub(r"[^A-Za-z0-9_.+-]+", "_", str(name)).strip("_") for name in (*names, f"seed{axes['seed']}")]
    return "-".join(safe)[:LABEL_LENGTH].lstrip(".-") or "cell"


def _given(settings: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Give the values of those counted keys that the command sets one by one, such as loss.levels=3."""
    found = {}
    own = [group for group in ("network", "compare") if group in settings["loss"]]  # they reach it from inside the loss
    for word in overrides:
        path = word.lstrip("+").partition("=")[0]
        if path.split(".")[0] not in (*COUNTED, *own) or "." not in path or path in NOT_COUNTED:
            continue
        node: Any = settings
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            found[path] = node if isinstance(node, (int, float, str, bool)) else str(node)
    return found


def counted(node: Any, path: str) -> Any:
    """Give a subtree of a config without what changes no number.

    Args:
        node: the subtree, as plain dicts.
        path: its place in the config, such as "loss".
    """
    if isinstance(node, dict):
        kept = {key: inner for key, inner in node.items() if key != NOT_BUILT and _counts(f"{path}.{key}", inner)}
        return {key: counted(inner, f"{path}.{key}") for key, inner in kept.items()}
    if isinstance(node, list):
        return [counted(inner, path) for inner in node]
    if path == "trainer.precision":
        return PRECISIONS.get(str(node), node)
    if isinstance(node, float) and node.is_integer() and path not in SHARES:
        return int(node)
    return node


def _axes(settings: dict[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    loss = settings["loss"]
    chosen = {**choices, "loss": choices.get("loss") or choices.get("experiment")}  # a panel has no name but that
    axes = {group: chosen.get(group) or _name(settings[group]) for group in ("task", "loss", "data")}
    if "network" in loss:
        axes["network"] = loss["network"]["name"]
        if "weights" in loss["network"]:
            axes["weights"] = choices.get("weights") or _name(loss["network"]["weights"])
        axes["layers"] = _joined(loss["layers"])
    if "compare" in loss:
        own = choices.get("compare@loss.compare")  # a loss that brings its comparison has no say in the group's
        axes["compare"] = own or choices.get("compare") or _name(loss["compare"])
    # What is there unless asked for would only lengthen the tables.
    usual = {"trainer": "default", "penalty": "none"}
    axes |= {group: choices[group] for group, default in usual.items() if choices.get(group, default) != default}
    return {**axes, "seed": settings["seed"]}


def _joined(layers: str | list[str] | list[list[str]]) -> str:
    """Write layers in a word: those of one loss with a plus, the losses of a panel with a comma."""
    if isinstance(layers, str):
        return layers
    return ("+" if all(isinstance(one, str) for one in layers) else ",").join(map(_joined, layers))


def _name(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2].lower()
