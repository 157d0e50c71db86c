"""The weights of a trained network as a file that any loss can read them from again."""

import io

import torch

from losslab.networks.graph import GraphNetwork
from losslab.networks.state_dicts import COUNTER, State


def trunk_file(network: GraphNetwork) -> bytes:
    """Give a file from which `weights=file` fills the network with the numbers that it has now.

    It has the keys of the architecture's own state dict, and all those of each top-level child that the network reads
    something of: `weights=file` asks for no less. What lies behind the deepest layer has the weights that it had
    before the training.

    Args:
        network: its weights, not its range of images, which is to be given again as `weights.input` where it is not
            what files have (see `FileWeights`).

    Raises:
        ValueError: the network has no weights.
    """
    if network.extractor is None:
        raise ValueError(f"{', '.join(network.layers)} of {network.name} have no weights")
    own = network.extractor.state_dict()
    used = {_child(key) for key in own}
    wanted = [key for key in network.architecture.shapes() if _child(key) in used]
    rest = _rest(network, used) if any(key not in own and not key.endswith(COUNTER) for key in wanted) else {}
    numbers = {**rest, **own}
    file = io.BytesIO()
    torch.save({key: numbers[key].cpu().contiguous().clone() for key in wanted if key in numbers}, file)
    return file.getvalue()


def _rest(network: GraphNetwork, used: set[str]) -> State:
    """Give all numbers of some children, as they were before the training."""
    with torch.random.fork_rng(devices=[]):  # the library's constructor draws, for nothing
        whole = network.architecture.make()
    for name in [name for name, _ in whole.named_children() if name not in used]:
        delattr(whole, name)
    network.weights.fill(whole, network.architecture, 0)
    return whole.state_dict()


def _child(key: str) -> str:
    return key.partition(".")[0]
