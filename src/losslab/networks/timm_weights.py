"""Trained weights by timm's own loader, which keeps its files where the Hugging Face hub keeps them."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from losslab.download import OFFLINE, DownloadError, is_offline
from losslab.networks.weights import Pair


def own_input(name: str, tag: str) -> Pair:
    """Give the mean and standard deviation that timm's config has for these weights."""
    config = _config(name, tag)
    return tuple(config.mean), tuple(config.std)


def state_dict(name: str, tag: str) -> dict[str, Tensor]:
    """Give the tensors of timm's whole model.

    Raises:
        ValueError: timm is not installed.
        KeyError: timm knows no such weights.
        DownloadError: the weights are not here and can't be fetched.
    """
    config = _config(name, tag)
    if is_offline() and not config.hf_hub_id:
        _check_here(config.url)
    try:
        with _offline():
            found: dict[str, Tensor] = _timm().create_model(_full(name, tag), pretrained=True).state_dict()
    except OSError as error:  # what the hub raises without a network, and where the file is not here and offline
        forbidden = f" ({OFFLINE} forbids the network)" if is_offline() else ""
        raise DownloadError(
            f"timm can't fetch {_full(name, tag)} from {config.hf_hub_id or config.url}{forbidden}: {error}; "
            "save its state_dict() on a machine that has it, and use weights=file"
        ) from error
    return found


def _full(name: str, tag: str) -> str:
    return f"{name.partition('.')[0]}.{tag}"


def _check_here(url: str) -> None:
    """Refuse a file of timm's that comes by torch's loader, which knows no offline mode, and is not here yet."""
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not place.exists():
        raise DownloadError(f"{place.name} is not here, and {OFFLINE} forbids the network: put {url} at {place}")


def _config(name: str, tag: str) -> Any:
    timm = _timm()
    known = [one.partition(".")[2] for one in timm.list_pretrained(_full(name, "*"))]
    if tag not in known:
        raise KeyError(f"timm has no weights {tag!r} for {name}; it has {', '.join(known) or 'none'}")
    return timm.get_pretrained_cfg(_full(name, tag))


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError("weights of timm need an extra: pip install 'losslab[timm]'") from error
    return timm


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Tell the Hugging Face hub that the network is forbidden, where it is.

    It reads its own variable, HF_HUB_OFFLINE, once when it is imported, and timm has imported it.
    """
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is None or not is_offline():
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
