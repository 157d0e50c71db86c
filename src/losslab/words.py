"""What a small program is told: files, words of its own, and words for the config."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def sort_words(words: Sequence[str], own: Mapping[str, str]) -> tuple[list[Path], dict[str, str], list[str]]:
    """Tell files, a program's own words and the config's words apart.

    Args:
        words: of the command; one without `=` is a file, and so is one that names an existing file.
        own: the program's own keys, with their defaults.

    Returns:
        The files; the value of each of `own`; the words that are left, in their order.

    Example:
        >>> sort_words(["a.png", "size=64", "loss=l2"], {"size": "", "parts": "false"})
        ([PosixPath('a.png')], {'size': '64', 'parts': 'false'}, ['loss=l2'])
    """
    files = [word for word in words if "=" not in word or Path(word).is_file() or ("/" in word and Path(word).is_dir())]
    settings = [word for word in words if word not in files]
    pairs = [word.partition("=") for word in settings]
    given = {key: value for key, _, value in pairs if key in own}
    return (
        [Path(file) for file in files],
        {**own, **given},
        [word for word in settings if word.split("=")[0] not in own],
    )


def whole(key: str, value: str) -> int:
    """Read a whole number from 1.

    Raises:
        ValueError: it is none.
    """
    if not (value.isascii() and value.isdecimal() and int(value)):
        raise ValueError(f"{key} is a whole number from 1, got {value!r}")
    return int(value)


def switch(key: str, value: str) -> bool:
    """Read true or false.

    Raises:
        ValueError: it is neither.
    """
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{key} is true or false, got {value!r}")
    return value.lower() == "true"


def one_of(key: str, value: str, choices: Sequence[str]) -> str:
    """Read one of several words.

    Raises:
        ValueError: it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{key} is {' or '.join(choices)}, got {value!r}")
    return value


def ending(key: str, value: str, suffixes: Sequence[str]) -> Path | None:
    """Read the name of a file to write, None for no word.

    Raises:
        ValueError: it ends otherwise, or is a folder.
    """
    if value and (Path(value).suffix not in suffixes or Path(value).is_dir()):
        raise ValueError(f"{key} is the name of a file that ends in {' or '.join(suffixes)}, got {value}")
    return Path(value) if value else None


def present(files: Sequence[Path]) -> None:
    """Refuse files that are not there, before anything slow begins.

    Raises:
        FileNotFoundError: the message names the first one.
    """
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
