"""What must not be written down: the values of environment variables that hold keys."""

import os
import re
from collections.abc import Iterable
from typing import Any

VARIABLES = re.compile(r"(^|_)(API)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_|$)", re.IGNORECASE)
"""Names of environment variables whose values are secrets."""

KEYS = re.compile(r"(^|_)(key|token|secret|password|credentials?)$", re.IGNORECASE)
"""Names of config keys whose values are."""

LEAST = 6
"""Characters of a secret: shorter values would hide half of every text."""

MASK = "***"


def masked(node: Any) -> Any:
    """Give a config, or a text, in which no secret can be read.

    Args:
        node: dicts, lists, words and numbers.
    """
    return _masked(node, _secrets())


def masked_words(words: Iterable[str]) -> list[str]:
    """Give the words of a command in which no secret can be read, of variables nor of keys such as api_key=..."""
    return [str(masked(_hidden(word))) for word in words]


def _hidden(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={MASK}" if equals and _is_secret(key.rpartition(".")[2].lstrip("+"), value) else word


def _masked(node: Any, secrets: list[str]) -> Any:
    if isinstance(node, dict):
        return {key: MASK if _is_secret(key, inner) else _masked(inner, secrets) for key, inner in node.items()}
    if isinstance(node, (list, tuple)):
        return [_masked(inner, secrets) for inner in node]
    if isinstance(node, str):
        for secret in secrets:
            node = node.replace(secret, MASK)
    return node


def _is_secret(key: Any, value: Any) -> bool:
    """Tell a key such as `api_key` with a text; numbers under such a name (`token_size`) are none."""
    return isinstance(value, str) and len(value) >= LEAST and bool(KEYS.search(str(key)))


def _secrets() -> list[str]:
    found = {value for name, value in os.environ.items() if VARIABLES.search(name) and len(value) >= LEAST}
    return sorted(found, key=len, reverse=True)
