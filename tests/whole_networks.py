"""Whole architectures, cuts of them without numbers, and numbers for them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from losslab.networks.weights import Architecture

ASKING = ("googlenet", "inception_v3")
"""What torchvision builds with a warning, unless it is told how to begin."""


def architecture(name: str = "squeezenet1_1", make: Callable[[], nn.Module] | None = None) -> Architecture:
    make = make or partial(models.get_model, name, weights=None, **({"init_weights": False} if name in ASKING else {}))
    with torch.device("meta"):
        return Architecture("torchvision", name, make, make())


def cut(kind: Architecture, node: str = "features.3") -> nn.Module:
    """Cut after a node, numbers undefined."""
    with torch.device("meta"):
        whole = kind.make().eval()
    return create_feature_extractor(whole, [node]).to_empty(device="cpu")


def same(filled: nn.Module, right: dict[str, Tensor]) -> bool:
    own = filled.state_dict()
    return bool(own) and all(torch.equal(tensor, right[key]) for key, tensor in own.items())


def architecture_state(kind: Architecture | str, *, only: str = "") -> dict[str, Tensor]:
    """Give random numbers for all keys that begin with `only`, the same ones at every call."""
    random = torch.Generator().manual_seed(3)
    whole = (architecture(kind) if isinstance(kind, str) else kind).whole.state_dict()
    return {
        key: torch.randn(one.shape, generator=random) if one.is_floating_point() else torch.tensor(0)
        for key, one in whole.items()
        if key.startswith(only)
    }
