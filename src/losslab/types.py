"""The four stages between two images and their distance, each named once with its shape.

`*#batch` stands for any number of leading axes that broadcast as torch's do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from jaxtyping import Float, UInt8
from torch import Tensor

Image: TypeAlias = Float[Tensor, "*#batch channels height width"]
"""Images with values in [0, 1]; colour images have the channels red, green, blue."""

Pictures: TypeAlias = Float[Tensor, "pictures channels height width"]
"""The images of several sets, those of a set side by side; values as those of `Image`."""

Found: TypeAlias = Float[Tensor, "sets channels height width"]
"""One image a set."""

Bytes: TypeAlias = UInt8[Tensor, "... channels _ _"]
"""Images as they are stored and shown: whole numbers from 0 to 255."""

Features: TypeAlias = Float[Tensor, "*#batch features rows columns"]
"""What one layer of a loss network says about images."""

Distance: TypeAlias = Float[Tensor, "*#batch"]
"""One number a pair of images, never reduced over the batch."""


Value = TypeVar("Value")


@dataclass(frozen=True)
class Drawn(Generic[Value]):
    """An encoding that holds for one draw of a loss's random state only.

    Args:
        value: the encoding itself.
        draw: names the draw; encodings of different draws can't be compared.
    """

    value: Value
    draw: str


Encoding: TypeAlias = Tensor | Drawn[Any] | dict[str, Any] | tuple[Any, ...]
"""What a loss keeps of images: tensors with the batch axes first, alone, drawn, or nested in dicts and tuples."""


def map_encoding(function: Callable[[Tensor], Tensor], encoding: Encoding) -> Encoding:
    """Apply `function` to every tensor of an encoding, to index its batch, detach it or move it.

    Example:
        >>> import torch
        >>> map_encoding(lambda tensor: tensor[:1], {"pixels": torch.zeros(4, 3, 8, 8)})["pixels"].shape
        torch.Size([1, 3, 8, 8])
    """
    if isinstance(encoding, Tensor):
        return function(encoding)
    if isinstance(encoding, Drawn):
        return replace(encoding, value=map_encoding(function, encoding.value))
    if isinstance(encoding, dict):
        return {name: map_encoding(function, part) for name, part in encoding.items()}
    return tuple(map_encoding(function, part) for part in encoding)


def leaves(encoding: Encoding) -> list[Tensor]:
    """List every tensor of an encoding, in a fixed order.

    Example:
        >>> import torch
        >>> [leaf.shape[-1] for leaf in leaves({"a": torch.zeros(4, 3), "b": (torch.zeros(4, 2),)})]
        [3, 2]
    """
    if isinstance(encoding, Tensor):
        return [encoding]
    if isinstance(encoding, Drawn):
        return leaves(encoding.value)
    parts = encoding.values() if isinstance(encoding, dict) else encoding
    return [leaf for part in parts for leaf in leaves(part)]


def draw_names(encoding: Encoding) -> list[str]:
    """Name the draws of random state that an encoding holds for, in a fixed order.

    Example:
        >>> draw_names((Drawn({}, "seed 0, draw 3"),))
        ['seed 0, draw 3']
    """
    if isinstance(encoding, Tensor):
        return []
    if isinstance(encoding, Drawn):
        return [encoding.draw, *draw_names(encoding.value)]
    parts = encoding.values() if isinstance(encoding, dict) else encoding
    return [name for part in parts for name in draw_names(part)]
