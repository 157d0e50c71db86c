"""What `measures` asks for: further losses, resolved before anything is computed. Imports no torch."""

import copy
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from losslab.config import PANELS, load, plain
from losslab.runs.cell import counted
from losslab.runs.plan import Request
from losslab.runs.secrets import masked
from losslab.runs.sentences import EXPECTED, sentence

SCHEMA = 1
"""Version of the keys; a change of what they are made of makes new ones."""

KEY_LENGTH = 16
"""Hex digits of a key: a cell has many measures, and two must never be taken for one."""

NOT_OWN = ("hydra", "main", "schema")
"""Providers of configs that every command has; the others are folders that the user has added."""


@dataclass(frozen=True)
class Measure:
    """A loss that a cell is to be measured by.

    Args:
        name: the words that ask for it, such as "deep layer=relu3_3".
        loss: its resolved config, with the seed of the cell.
        alike: hash of that config under one fixed seed; cells that are compared must have been measured alike.
    """

    name: str
    loss: dict[str, Any]
    alike: str

    def key(self, cell: str, stored: str) -> str:
        """Name the result by what makes it.

        Args:
            cell: the cell's id.
            stored: sha256 of the file that is measured.
        """
        return _hash({"schema": SCHEMA, "cell": cell, "stored": stored, "loss": counted(self.loss, "loss")})


Asked = Mapping[str, Sequence[Measure]]
"""The measures that are asked for, by the ids of the cells."""


def measures_of(request: Request) -> list[Measure]:
    """Resolve the measures of a config; each is what `loss=NAME WORDS` alone would be with the cell's seed.

    Raises:
        ValueError: one names no loss, has words that can't be read, or is a panel; the message holds the nearest name.
    """
    return [_resolved(name, request.settings["seed"]) for name in _names(request.settings["measures"])]


def by_cell(cells: Mapping[int, str], measures: Mapping[int, Sequence[Measure]]) -> Asked:
    """Give each cell the measures of all configs that mean it, once each.

    Args:
        cells: the cell's id of each config, by its number.
        measures: of each config, by its number.
    """
    found: dict[str, dict[str, Measure]] = {}
    for number, cell in cells.items():
        found.setdefault(cell, {}).update({measure.name: measure for measure in measures[number]})
    return {cell: list(own.values()) for cell, own in found.items() if own}


def _names(asked: Any) -> list[str]:
    found: Sequence[Any] = [asked] if isinstance(asked, str) else asked or []
    if not (isinstance(found, list) and all(isinstance(name, str) and name.strip() for name in found)):
        raise ValueError(f'measures is a list of losses, such as [l2,mmdpp,"deep layer=relu3_3"], got {asked!r}')
    return list(dict.fromkeys(" ".join(name.split()).removeprefix("loss=") for name in found))


def _resolved(name: str, seed: int) -> Measure:
    option, *words = name.split()
    try:
        config = _composed((*_own_configs(), f"loss={option}", *words))
        own = any(word.startswith("seed=") for word in words)
        loss = _loss(config, None if own else seed)
        alike = _hash(counted(_loss(config, None if own else 0), "loss"))
    except EXPECTED as error:
        known = _composed((*_own_configs(), f"loss={option}")) if type(error) is ConfigCompositionException else None
        raise ValueError(f"measure {name!r}: {sentence(error, known)}") from error
    if loss["_target_"] in PANELS:
        raise ValueError(f"measure {name!r} is a panel of several losses: name one layer and one comparison")
    return Measure(str(masked(name)), loss, alike)


@functools.cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    within = GlobalHydra.instance().is_initialized()  # a program of Hydra, which finds its configs
    return compose("train", list(words)) if within else load(*words)


def _own_configs() -> list[str]:
    """Give the word that lets the user's own folders of configs be searched, as the command was told to."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    own = [source for source in sources if source.provider not in NOT_OWN and source.path]
    places = [json.dumps(f"{source.schema}://{source.path}", ensure_ascii=False) for source in own]
    return [f"hydra.searchpath=[{','.join(places)}]"] if places else []


def _loss(config: DictConfig, seed: int | None) -> dict[str, Any]:
    if seed is not None:
        config = copy.deepcopy(config)
        config.seed = seed
    return plain(config.loss)


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
