"""Classifiers of libraries as architectures that loss networks are cut from."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torchvision import models

from losslab.networks.cutting import CANT_RUN, own_shape
from losslab.networks.names import TOKENS, TOKENS_REFUSED
from losslab.networks.weights import Architecture

ARGUMENTS = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}
"""What torchvision's builders ask for lest they warn."""


def torchvision_model(name: str) -> Architecture:
    """Give an architecture of torchvision.

    Args:
        name: as `torchvision.models.get_model` knows it.

    Raises:
        KeyError: no such classifier; the message names the nearest one.
        ValueError: a model of tokens.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise KeyError(f"unknown torchvision model {name!r}; did you mean {_nearest(name, known)!r}?")
    if name.startswith(TOKENS):
        raise ValueError(TOKENS_REFUSED.format(name))

    def make() -> nn.Module:
        model: nn.Module = models.get_model(name, weights=None, **ARGUMENTS.get(name, {}))
        return model.eval()

    return Architecture("torchvision", name, make, on_meta(make))


def timm_model(name: str) -> Architecture:
    """Give an architecture of timm, of the extra `losslab[timm]`.

    Args:
        name: as `timm.create_model` knows it.

    Raises:
        ValueError: timm is not installed, or it is a model of tokens.
        KeyError: no such model; the message names the nearest one.
    """
    try:
        import timm
        from timm.models._features_fx import get_notrace_functions, get_notrace_modules
    except ModuleNotFoundError as error:
        raise ValueError("network=timm needs an extra: pip install 'losslab[timm]'") from error
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise KeyError(f"unknown timm model {name!r}; did you mean {_nearest(name, known)!r}?")
    if name.startswith(TOKENS):
        raise ValueError(TOKENS_REFUSED.format(name))

    def make() -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False)
        return model.eval()

    whole = on_meta(make)
    has_patches = any(type(module).__name__.endswith("PatchEmbed") for module in whole.modules())
    if has_patches and not _ends_in_maps(whole):  # convolutional networks have such a module too, for their first layer
        raise ValueError(TOKENS_REFUSED.format(name))
    return Architecture("timm", name, make, whole, tuple(get_notrace_modules()), tuple(get_notrace_functions()))


@torch.no_grad()
def _ends_in_maps(whole: Any) -> bool:
    """Tell whether the last features of a model of timm are channels × height × width, for images of its own size."""
    try:
        made = whole.forward_features(torch.empty(1, *whole.pretrained_cfg["input_size"], device="meta"))
    except CANT_RUN:
        return False  # of several tensors, or with numbers of its own that say how to go on
    shape = own_shape(made)
    return len(shape) == 3 and shape[0] == whole.num_features


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a model without numbers."""
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # RegNets compute their widths by tensors
        return make().to("meta")


def _nearest(name: str, known: Sequence[str]) -> str:
    return get_close_matches(name, known, n=1, cutoff=0)[0]
