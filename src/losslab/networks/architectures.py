"""Classifiers of libraries as architectures that loss networks are cut from."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torch
from torch import nn
from torchvision import models

from losslab.networks.weights import Architecture

TOKENS = ("vit_", "swin_", "maxvit")
"""What the names of torchvision's models begin with whose layers are tokens, not maps of places."""

TOKENS_REFUSED = "{} works on tokens, not on maps of places: choose a convolutional network"

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

    def make() -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False)
        return model.eval()

    whole = on_meta(make)
    if any(type(module).__name__.endswith("PatchEmbed") for module in whole.modules()):
        raise ValueError(TOKENS_REFUSED.format(name))
    return Architecture("timm", name, make, whole, tuple(get_notrace_modules()), tuple(get_notrace_functions()))


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a model without numbers."""
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # RegNets compute their widths by tensors
        return make().to("meta")


def _nearest(name: str, known: Sequence[str]) -> str:
    return get_close_matches(name, known, n=1, cutoff=0)[0]
