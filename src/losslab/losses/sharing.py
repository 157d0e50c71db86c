"""Which deep losses read the same network, and one network for these."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.deep import Deep
from losslab.networks.base import LossNetwork, Part
from losslab.networks.graph import GraphNetwork
from losslab.networks.weights import Architecture, Pair, Weights


def share(losses: Sequence[Deep]) -> dict[Deep, LossNetwork]:
    """Give each loss the network that it reads in a panel: losses over equal networks have one."""
    found: dict[Deep, LossNetwork] = {}
    for group in _groups([*dict.fromkeys(losses)]):
        first = group[0].network
        one = first.whole if isinstance(first, Part) else first if len(group) == 1 else _merged(group)
        found |= {loss: one or loss.network for loss in group}
    return found


def _merged(group: Sequence[Deep]) -> LossNetwork | None:
    """Give a network with the layers of all, which from now on has its tensors in common with theirs.

    None, where numbers differ: someone has changed a network, or its draw depends on where it is cut.
    """
    for loss in group:
        loss.draw(0)
    whole = group[0].make_network(select=[*dict.fromkeys(name for loss in group for name in loss.network.layers)])
    fresh, common = _tensors(whole), dict[str, Tensor]()
    for path, own in (item for loss in group for item in _tensors(loss.network).items()):
        first = common.setdefault(path, own)
        if path not in fresh or not (_same(first, own) and _same(fresh[path].to(own), own)):
            return None
    for network in (whole, *(loss.network for loss in group)):
        for path in _tensors(network):
            module, _, name = path.rpartition(".")
            setattr(network.get_submodule(module), name, common[path])
    _draw_once(whole, [loss.network for loss in group])
    return whole


def _draw_once(whole: LossNetwork, parts: Sequence[LossNetwork]) -> None:
    """Let a redraw of any of these networks, which have their tensors in common, be one of all."""
    if isinstance(whole, GraphNetwork) and whole.extractor is not None:
        weights = _Common(whole.weights, whole.extractor)
        for network in (whole, *parts):
            if isinstance(network, GraphNetwork):
                network.weights = weights


class _Common(Weights):
    """Weights of several networks that have their tensors in common with one of them, which is filled for all.

    Args:
        own: the weights themselves.
        whole: the one.
    """

    def __init__(self, own: Weights, whole: nn.Module) -> None:
        """Begin before the first draw."""
        super().__init__(own.input)
        self.own, self.whole, self.index, self.name = own, whole, -1, ""

    def own_input(self, architecture: Architecture) -> Pair:
        """Give the range of the weights themselves."""
        return self.own.own_input(architecture)

    def draw_index(self, step: int) -> int:
        """Count the draws before `step`'s."""
        return self.own.draw_index(step)

    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Fill the one where that is still to be done; a network that has been moved without it is filled alone."""
        common = {id(tensor) for tensor in _tensors(self.whole).values()}
        if any(id(tensor) not in common for tensor in _tensors(cut).values()):
            return self.own.fill(cut, architecture, step)
        index = self.draw_index(step)
        if index != self.index:
            self.name, self.index = self.own.fill(self.whole, architecture, step), index
        return self.name


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _groups(losses: Sequence[Deep]) -> list[list[Deep]]:
    groups: list[list[Deep]] = []
    for loss in losses:
        group = next((some for some in groups if _alike(some[0], loss)), None)
        if group is None:
            groups.append([loss])
        else:
            group.append(loss)
    return groups


def _alike(a: Deep, b: Deep) -> bool:
    if a.network.trainable or b.network.trainable:
        return False
    if isinstance(a.network, Part) or isinstance(b.network, Part):
        return getattr(a.network, "whole", a) is getattr(b.network, "whole", b)
    return a.make_network is b.make_network or _equal(a.make_network, b.make_network)


def _equal(a: Any, b: Any) -> bool:
    """Compare what makes two networks: calls with their arguments set, and these by value."""
    if isinstance(a, partial) and isinstance(b, partial):
        return _equal([a.func, a.args, a.keywords], [b.func, b.args, b.keywords])
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(*both) for both in zip(a, b, strict=True))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return bool(a == b)
