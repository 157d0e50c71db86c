"""From an exception to one sentence and an exit code."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab.config import load

USAGE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: the command can't mean anything; a cell failed; Ctrl-C (128 + SIGINT, as shells have it)."""


def guarded(main: Callable[[], Any], *, show_traceback: bool) -> int:
    """Run a Hydra program; turn what it raises into one sentence on stderr and an exit code.

    Args:
        main: the program, decorated with `hydra.main`.
        show_traceback: let exceptions through as they are.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra lets exceptions through to here
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if show_traceback or not _is_users(error):
            raise
        print(f"error: {sentence(error)}", file=sys.stderr)
        return USAGE if isinstance(error, (HydraException, OmegaConfBaseException)) else FAILED
    return 0


def sentence(error: BaseException) -> str:
    """Say in one sentence what is wrong and what the nearest valid choice is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"there is no {group}={option}; {_nearest(option, list(error.options))}"
    if isinstance(error, ConfigCompositionException):
        return _composition_sentence(error)
    # Hydra and OmegaConf wrap what a target or a resolver raised.
    if isinstance(error, (InstantiationException, OmegaConfBaseException)) and error.__cause__ is not None:
        return sentence(error.__cause__)
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def _is_users(error: BaseException) -> bool:
    """Tell a mistake in the command or the data from a mistake in the code, which deserves its traceback."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return _is_users(error.__cause__)
    return isinstance(error, (HydraException, OmegaConfBaseException, ValueError, KeyError, OSError))


def _composition_sentence(error: ConfigCompositionException) -> str:
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown is None:
        return " ".join(str(error).split())
    key = unknown.group(1)
    return f"there is no key {key!r}; {_nearest(key, list(_keys(load())))}"


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in config:
        key = f"{prefix}{name}"
        yield key
        if OmegaConf.is_dict(config._get_node(name)):  # noqa: SLF001 - indexing would resolve interpolations
            yield from _keys(config._get_node(name), f"{key}.")  # type: ignore[arg-type]  # noqa: SLF001


def _nearest(wanted: str, known: list[str]) -> str:
    near = get_close_matches(wanted, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"the choices are {', '.join(sorted(known))}"
