"""Where the wings meet: the folder of configs, what its interpolations may call, and how a config becomes an object.

Imports no torch: help, typos and identities must not wait for it.
"""

import atexit
import functools
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from losslab.checksums import sha256_of
from losslab.networks.layers import chosen_layers, is_panel
from losslab.networks.names import instead

CHECKOUT = Path(__file__).resolve().parents[2]
CONF = CHECKOUT / "conf"

TRUSTED = ("losslab.", "torch.optim.", "pytorch_lightning.")
"""What a `_target_` may begin with: a config from a stranger must not run code of its choice."""

TRUST = "LOSSLAB_TRUST"
"""The environment variable by which a user adds prefixes, separated by commas; a config can't."""

SEVERAL = "losslab.comparisons.study.study"
"""The target of a comparison that is several."""

PANELS = ("losslab.losses.panel.each", "losslab.losses.panel.several")
"""Targets of losses that are several."""

NOT_BUILT = "properties"
"""The key of a YAML that tells tests and tasks about an object, and is no argument of it."""


def register_resolvers() -> None:
    """Let configs say `${checkout:}`, `${layers:${network},${layer}}` and the like; calling it twice does no harm."""
    OmegaConf.register_new_resolver("checkout", lambda: str(CHECKOUT), replace=True)
    OmegaConf.register_new_resolver("scratch", _scratch, replace=True)
    OmegaConf.register_new_resolver("layers", chosen_layers, replace=True)
    OmegaConf.register_new_resolver("one_or_each", _one_or_each, replace=True)
    OmegaConf.register_new_resolver("redraws", _redraws, replace=True)
    OmegaConf.register_new_resolver("sha256", lambda path: None if path is None else sha256_of(path), replace=True)


def _redraws(draws: Any) -> int:
    """Say that each of several draws is new, 1, and of a single one, 0, that it stays."""
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
        raise ValueError(f"draws is a whole number from 1, got {draws!r}")
    return int(draws > 1)


def _one_or_each(one: str, each: str, layer: Any, compare: Any) -> str:
    """Choose what is built: one loss, or a panel of one for each of several layers or comparisons."""
    return each if is_panel(layer) or compare["_target_"] == SEVERAL else one


@functools.cache
def _scratch() -> str:
    """Make a folder that goes with the process, for what Hydra writes of a sweep."""
    folder = tempfile.mkdtemp(prefix="losslab-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(*overrides: str) -> DictConfig:
    """Compose the config that `python src/train.py` would get with these overrides.

    Example:
        >>> load("loss=l2", "seed=3").seed
        3
    """
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def unlisted(group: str, option: str, known: Sequence[str]) -> str | None:
    """Say what to choose instead of an option without a file, where its group knows more than the nearest name."""
    return instead(option, known) if group == "network" else None


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config into plain dicts, lists, numbers and words.

    Raises:
        omegaconf.errors.InterpolationResolutionError: an interpolation fails, such as an unknown layer's.
        omegaconf.errors.MissingMandatoryValue: a key must be given and is not; the message names it.
    """
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        asked = re.search(r"resolving interpolation: Missing mandatory value: (\S+)", str(error))
        key = asked[1] if asked else error.full_key
        raise MissingMandatoryValue(f"{key} has no value: add {key}=... to the command") from None
    if not isinstance(resolved, dict):
        raise TypeError(f"expected a config with keys, got {type(resolved).__name__}")
    return {str(key): value for key, value in resolved.items()}


def build(node: Any, **arguments: Any) -> Any:
    """Make the object that a resolved config describes, and all objects inside it.

    Args:
        node: a plain dict with a `_target_`.
        **arguments: further arguments of the outermost object.

    Raises:
        ValueError: a target outside `TRUSTED` and $LOSSLAB_TRUST, or one that does not exist; the message names it.
    """
    check_targets(node)
    return instantiate(_buildable(node), _convert_="all", **arguments)


def check_targets(node: Any) -> None:
    """Import all that a resolved config would build.

    Raises:
        ValueError: a target outside what is trusted, or one that does not exist; the message names it.
    """
    trusted = (*TRUSTED, *filter(None, os.environ.get(TRUST, "").split(",")))
    for target in _targets(node):
        if not target.startswith(trusted):
            raise ValueError(
                f"_target_ {target!r} is refused: targets begin with {', '.join(trusted)}; "
                f"the variable {TRUST} adds prefixes that you trust"
            )
        _check_exists(target)


def modules(node: Any) -> set[str]:
    """Name the modules that a resolved config would build from."""
    return {target.rpartition(".")[0] for target in _targets(node)}


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _targets(inner)


def _check_exists(target: str) -> None:
    module, _, name = target.rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"_target_ {target!r} can't be imported: {error}") from error
    if not found:
        raise ValueError(f"_target_ {target!r} does not exist: {module} has no {name!r}")


def _buildable(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _buildable(inner) for key, inner in node.items() if key != NOT_BUILT}
    if isinstance(node, list):
        return [_buildable(inner) for inner in node]
    return node
