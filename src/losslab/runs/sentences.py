"""From an exception to one sentence that says what is wrong and what the nearest valid choice is."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

from losslab.config import CONF, load, unlisted

RESOLVING = re.compile(r"\w+ raised while resolving interpolation: (.*?)(?:\n\s*full_key: .*)?", re.DOTALL)

QUOTED = re.compile(r"^(['\"])(.*)\1$", re.DOTALL)
"""A message between quotes, as a KeyError has it."""

EXPECTED = (HydraException, OmegaConfBaseException, ValueError, KeyError, OSError)
"""What a user's words or files can raise; anything else is our mistake and keeps its traceback."""


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """End the program with exit code 1 and one sentence where the user's words or files are wrong."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(1)
    except EXPECTED as error:
        sys.exit(f"error: {sentence(error)}")


def inner(error: BaseException) -> BaseException:
    """Give what a target or a resolver raised, out of what Hydra and OmegaConf wrap around it."""
    if isinstance(error, (InstantiationException, OmegaConfBaseException)) and error.__cause__ is not None:
        return inner(error.__cause__)
    return error


def sentence(error: BaseException, config: DictConfig | None = None) -> str:
    """Say in one sentence what is wrong and what the nearest valid choice is.

    Args:
        error: what was raised.
        config: what has the keys that are valid; None for what the words of the command choose.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options)
        return f"there is no {group}={option}; {unlisted(group, option, options) or _nearest(option, options, options)}"
    if isinstance(error, OverrideParseException):
        return f"can't read {error.override!r}: a value with special characters needs quotes, as in 'key=\"value\"'"
    if isinstance(error, ConfigCompositionException):
        return _composition_sentence(error, config)
    if (cause := inner(error)) is not error:
        return sentence(cause)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    # What a resolver raised, without what OmegaConf wraps around it
    resolved = RESOLVING.fullmatch(str(message).strip())
    return " ".join((QUOTED.sub(r"\2", resolved[1]) if resolved else str(message)).split())


def _composition_sentence(error: ConfigCompositionException, config: DictConfig | None) -> str:
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown is None:
        return " ".join(str(error).split())
    key = unknown.group(1)
    tree = OmegaConf.to_container(load(*_choices(sys.argv[1:])) if config is None else config, resolve=False)
    known = [other for other in _keys(tree) if other != key]
    parent = key.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    return f"there is no key {key!r}; {_nearest(key, beside or known, beside or list(tree))}"  # type: ignore[arg-type]


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
