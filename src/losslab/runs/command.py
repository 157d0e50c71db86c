"""From an exception to one sentence and an exit code."""

import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab.config import CONF, load, plain

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's variable for tracebacks; whoever sets it wants them of us too."""
TRACEBACKS = os.environ.get(FULL_ERROR) == "1"

USAGE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: the command can't mean anything; a cell failed; Ctrl-C (128 + SIGINT, as shells have it)."""


failures: list[Exception] = []
"""What the cells of this process failed of; Hydra would let the first failure hide the others."""


def attempt(config: DictConfig) -> float:
    """Run the cell of a config; one that fails says so, and the cells after it still run.

    Returns:
        The cell's score, or NaN.
    """
    try:
        settings = plain(config)
        from losslab.runs.run import run  # here, since --help and a typo must not wait for torch

        return run(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's
        failures.append(error)
        _report(error)
        return math.nan


def guarded(main: Callable[[], Any]) -> int:
    """Run a Hydra program whose job is an `attempt`, and give its exit code."""
    os.environ[FULL_ERROR] = "1"  # so that Hydra lets exceptions through to here
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except (HydraException, OmegaConfBaseException) as error:
        failures.append(error)
        _report(error)
    return max((USAGE if _is_usage(error) else FAILED for error in failures), default=0)


def _report(error: Exception) -> None:
    if _is_users(error) and not TRACEBACKS:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {sentence(error)}{notes}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def _is_usage(error: Exception) -> bool:
    """Tell a command that can't mean anything from a cell that failed."""
    return isinstance(error, (HydraException, OmegaConfBaseException)) and not isinstance(error, InstantiationException)


def sentence(error: BaseException) -> str:
    """Say in one sentence what is wrong and what the nearest valid choice is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"there is no {group}={option}; {_nearest(option, list(error.options), list(error.options))}"
    if isinstance(error, OverrideParseException):
        return f"can't read {error.override!r}: a value with special characters needs quotes, as in 'key=\"value\"'"
    if isinstance(error, ConfigCompositionException):
        return _composition_sentence(error)
    # Hydra and OmegaConf wrap what a target or a resolver raised.
    if isinstance(error, (InstantiationException, OmegaConfBaseException)) and error.__cause__ is not None:
        return sentence(error.__cause__)
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def _is_users(error: BaseException) -> bool:
    """Tell a mistake in the command or the data from a mistake in the code, which deserves its traceback."""
    lightnings = type(error).__name__ == "MisconfigurationException"  # not imported: a typo must not wait for Lightning
    return lightnings or isinstance(error, (HydraException, OmegaConfBaseException, ValueError, KeyError, OSError))


def _composition_sentence(error: ConfigCompositionException) -> str:
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown is None:
        return " ".join(str(error).split())
    key = unknown.group(1)
    config = OmegaConf.to_container(load(*_choices(sys.argv[1:])), resolve=False)
    known = [other for other in _keys(config) if other != key]
    parent = key.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    return f"there is no key {key!r}; {_nearest(key, beside or known, beside or list(config))}"  # type: ignore[arg-type]


def _choices(arguments: list[str]) -> list[str]:
    """Give those arguments that choose one existing option of a group."""
    words = [word for word in arguments if (CONF / f"{word.replace('=', '/', 1)}.yaml").is_file()]
    return [word for word in words if not word.startswith(("-", "+", "~"))]


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield f"{prefix}{name}"
            yield from _keys(inner, f"{prefix}{name}.")


def _nearest(wanted: str, known: list[str], listed: list[str]) -> str:
    near = get_close_matches(wanted, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"the choices are {', '.join(sorted(listed))}"
