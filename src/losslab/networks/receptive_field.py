"""How much of an image a layer sees: receptive fields and strides, read off the graph."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
GLOBAL = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
FUNCTIONS: dict[Any, tuple[str, ...]] = {
    functional.max_pool2d: ("kernel_size", "stride", "padding", "dilation"),
    functional.avg_pool2d: ("kernel_size", "stride", "padding"),
}
"""Functions of windows, and their arguments after the features, in order."""
GLOBAL_FUNCTIONS = (functional.adaptive_avg_pool2d,)
UNKNOWN_FUNCTIONS = (torch.conv2d, torch.matmul, torch.bmm, torch.einsum, operator.matmul, functional.interpolate,
                     functional.scaled_dot_product_attention)  # fmt: skip
"""Functions that make one place out of others, which only their tensors tell."""


@dataclass(frozen=True)
class Field:
    """What one place of a layer sees.

    Args:
        size: height and width of the part of the image, in pixels, border aside.
        stride: pixels between two neighbouring places.
        whole: a mean over the whole image has its say too, as in squeeze-and-excitation.
        known: whether size and stride are all there is; behind a block with windows of its own that can't be traced
            they are those before it.
    """

    size: int = 1
    stride: int = 1
    whole: bool = False
    known: bool = True

    def through(self, kernel: int, stride: int, dilation: int) -> "Field":
        """Give the field behind a window."""
        return replace(self, size=self.size + (kernel - 1) * dilation * self.stride, stride=self.stride * stride)

    def with_whole(self) -> "Field":
        """Give the field of a mean over the whole image: nothing local is left."""
        return replace(self, size=1, whole=True)


def fields(module: fx.GraphModule) -> dict[str, Field]:
    """Give what each returned node of a cut architecture sees."""
    seen: dict[fx.Node, Field] = {}
    for node in module.graph.nodes:
        before = _join([seen[one] for one in node.all_input_nodes])
        if node.op == "call_module":
            seen[node] = _through(module.get_submodule(str(node.target)), before)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            named = dict(zip(FUNCTIONS[node.target], node.args[1:], strict=False)) | dict(node.kwargs)
            seen[node] = before.through(*_window(named))
        elif node.target in GLOBAL_FUNCTIONS or _is_mean_of_places(node):
            seen[node] = before.with_whole()
        elif node.target in UNKNOWN_FUNCTIONS:
            seen[node] = replace(before, known=False)
        elif node.op == "output":
            return {name: seen[one] for name, one in node.args[0].items()}
        else:
            seen[node] = before
    raise ValueError("the graph has no output")


def _through(module: nn.Module, before: Field) -> Field:
    if isinstance(module, WINDOWS):
        return before.through(*_window(vars(module)))
    if isinstance(module, GLOBAL):
        return before.with_whole()
    if isinstance(module, SqueezeExcitation):
        return replace(before, whole=True)
    if isinstance(module, nn.Sequential):
        for inner in module:
            before = _through(inner, before)
        return before
    if any(isinstance(inner, (*WINDOWS, *GLOBAL)) for inner in module.modules()):
        return replace(before, known=False)
    return before


def _is_mean_of_places(node: fx.Node) -> bool:
    """Tell whether a node is `x.mean((2, 3))`, as squeeze-and-excitation has it."""
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return node.op == "call_method" and node.target == "mean" and isinstance(axes, (tuple, list)) and len(axes) == 2


def _join(fields: Sequence[Field]) -> Field:
    """Give the field of a sum, product or concatenation of maps: the largest, and the stride of a real map."""
    local = [one for one in fields if one.size > 1 or not one.whole] or [*fields]
    size, stride = (max((getattr(one, key) for one in local), default=1) for key in ("size", "stride"))
    return Field(size, stride, any(one.whole for one in fields), all(one.known for one in fields))


def _window(settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """Give kernel, stride and dilation of a window, its height's where they differ."""
    kernel = _side(settings["kernel_size"])
    stride = settings.get("stride")
    return kernel, _side(stride) if stride else kernel, _side(settings.get("dilation", 1))


def _side(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else max(value)
