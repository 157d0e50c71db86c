"""Random weights for what is cut out of an architecture: the same ones wherever it is cut."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

ORDER = "layers"
"""Under which a cut graph's `meta` has the names of all layers of the whole graph, in the order in which they run."""

DRAWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
RESET = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
NORMALISING = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""Tensors of normalisation layers that torch starts with one and zero."""

Make = Callable[[], nn.Module]


def draw_layers(cut: nn.Module, whole: nn.Module, make: Make, init: str, random: torch.Generator) -> None:
    """Draw convolutions and linear layers, on the CPU, so that every device sees the same.

    Layers of the graph that the cut has not are drawn too, where they come before others that it has. What is neither
    drawn nor a normalisation, such as the scale of a channel, is what the library's constructor starts with.

    Args:
        cut: part of an architecture; it may have taken layers apart that can be traced.
        whole: the architecture on the meta device, which knows what kind of layer each was.
        make: builds the architecture.
        init: "kaiming" or "conv2d", as for `RandomWeights`.
        random: what draws come from.

    Raises:
        ValueError: the constructor draws something for a layer that is no convolution and not linear.
    """
    own, kinds, tensors = dict(cut.named_modules()), dict(whole.named_modules()), cut.state_dict()
    left = {
        f"{name}.{part}".lstrip(".") for name, layer in own.items() for part in layer.state_dict() if "." not in part
    }
    for name in _order(cut, own):
        kind = kinds.get(name, own.get(name))
        if isinstance(kind, DRAWN):
            for part, numbers in _drawn(kind, init, random).items():
                if f"{name}.{part}" in left:
                    tensors[f"{name}.{part}"].copy_(numbers)
                    left.remove(f"{name}.{part}")
        elif isinstance(layer := own.get(name), RESET):
            layer.reset_parameters()
            left -= {f"{name}.{part}" for part in NORMALISING}
    if missing := left & {*whole.state_dict()}:
        _copy_constants(tensors, kinds, make, missing)


def constructed(make: Make, seed: int) -> dict[str, Tensor]:
    """Give what a library's constructor starts with; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().state_dict()


def _order(cut: nn.Module, own: dict[str, nn.Module]) -> list[str]:
    """Name the layers to draw, up to the last one that the cut has."""
    names: list[str] = getattr(cut, "meta", {}).get(ORDER, [*own])
    while names and names[-1] not in own:
        names = names[:-1]
    return names


def _drawn(
    kind: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear, init: str, random: torch.Generator
) -> dict[str, Tensor]:
    weight = torch.empty(kind.weight.shape)
    found = {"weight": weight} if kind.bias is None else {"weight": weight, "bias": torch.zeros(kind.bias.shape)}
    if init == "kaiming":
        nn.init.kaiming_normal_(weight, generator=random)
        return found
    nn.init.kaiming_uniform_(weight, a=5**0.5, generator=random)  # ±1/√fan in: torch.nn.Conv2d.reset_parameters
    if kind.bias is not None:
        bound = weight[0].numel() ** -0.5
        nn.init.uniform_(found["bias"], -bound, bound, generator=random)
    return found


def _copy_constants(tensors: dict[str, Tensor], kinds: dict[str, nn.Module], make: Make, keys: Collection[str]) -> None:
    """Copy what the constructor does not draw: it is the same under two seeds.

    Raises:
        ValueError: it is not.
    """
    first, second = (constructed(make, seed) for seed in range(2))
    for key in sorted(keys):
        if not torch.equal(first[key], second[key]):
            name = key.rpartition(".")[0]
            kind = type(kinds[name]).__name__
            raise ValueError(
                f"no random weights are known for {key}, of a {kind}: weights=random_library takes the library's own"
            )
        tensors[key].copy_(first[key])
