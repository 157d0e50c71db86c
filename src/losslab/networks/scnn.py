"""The simple random network whose infinite width gives a distance in closed form."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from losslab.images import SIGNED
from losslab.networks.base import LossNetwork
from losslab.networks.layers import PIXELS, canonical_layers
from losslab.seeds import Draws
from losslab.types import Features, Image

LEAST_NORM = 1e-3
"""Norm below which a patch in [-1, 1] counts as faint: its direction is noise, and its gradient would have no bound."""

NUMBERS_A_CHUNK = {True: 2**23, False: 2**27}
"""Of one layer; with more images than that, layers are computed again in the backward pass instead of kept."""


class SCNN(LossNetwork):
    """One random 3×3 convolution and random 1×1 convolutions, each with its ReLU, and an average over windows.

    Formula: conv1 = 3×3, zero padding, 3 → width channels; relu1; conv2 = 1×1, width → width; …; relu`depth`;
    pool = mean over window×window pixels. Weights are N(0, 2 / fan_in), biases 0, images are taken in [-1, 1].
    With `unit_norm`, conv1 is divided at each pixel by the root mean square of the 3×3 patch that it sees.

    Its pooled features, compared by their mean squared difference, tend with the width to the squared MMD of the
    windows' patches under `losslab.losses.kernels.ArcCosine(depth)`, where `zero_mean` is off.

    Args:
        name: of the network.
        layers: its layers by name; `conf/network/scnn.yaml` has the table.
        slots: the four study layers.
        select: the layers to read: anything that `canonical_layers` takes.
        width: channels of each layer; the relative error of the loss falls as 1/√width.
        depth: number of ReLUs.
        window: side of a window of the last layer in pixels.
        stride: step from window to window in pixels.
        zero_mean: take the mean over its 3×3 weights off each of the first filters, for each of their channels.
        unit_norm: see patches without their contrast.
        seed: of the weights.
        redraw_every: steps between two draws; 0 keeps the first one.

    Raises:
        ValueError: a size below 1, or a layer that a network of this depth does not have.
        KeyError: an unknown layer.

    Paper and code: With `ignore_patch_norm`, the original's default, it divides by the patch's norm instead of its
        root mean square, so that its distances are those here over 27; and by norms down to 1e-10 instead of 1e-3,
        below which gradients grow as large as 1e10 where an image is grey.

    Source: Amir and Weiss, CVPR 2021, theorem 2.1; SCNNNetwork of ariel415el/PerceptualLossExperiments.

    Example:
        >>> network = SCNN("tiny", {"conv1": "", "relu1": ""}, [], "relu1", width=8)
        >>> network.read(torch.rand(2, 3, 16, 16))["relu1"].shape
        torch.Size([2, 8, 16, 16])
    """

    first: Tensor
    others: Tensor

    def __init__(
        self,
        name: str,
        layers: Mapping[str, str],
        slots: Sequence[str],
        select: str | int | Sequence[str | int],
        width: int = 1024,
        depth: int = 7,
        window: int = 32,
        stride: int = 16,
        *,
        zero_mean: bool = False,
        unit_norm: bool = True,
        seed: int = 0,
        redraw_every: int = 0,
    ) -> None:
        """Check the sizes and make the first draw."""
        super().__init__()
        if min(width, depth, window, stride) < 1:
            raise ValueError(f"width, depth, window and stride are at least 1, got {[width, depth, window, stride]}")
        self.name, self.width, self.window, self.stride = name, width, window, stride
        self.layers = canonical_layers({"name": name, "layers": layers, "slots": slots}, select)
        self.min_side = window if "pool" in self.layers else 1
        self.zero_mean, self.unit_norm, self._draws = zero_mean, unit_norm, Draws(seed, redraw_every)
        self.stages = [f"{kind}{index + 1}" for index in range(depth) for kind in ("conv", "relu")] + ["pool"]
        if missing := [layer for layer in self.layers if layer not in (PIXELS, *self.stages)]:
            raise ValueError(f"{name} of depth {depth} has the layers {', '.join(self.stages)}, not {missing[0]}")
        self.register_buffer("first", torch.empty(width, 3, 3, 3), persistent=False)
        self.register_buffer("others", torch.empty(depth - 1, width, width, 1, 1), persistent=False)
        self.draw(0)
        self.freeze()

    def draw(self, step: int) -> str:
        """Draw the weights of `step`, where new ones are due, and name the draw."""
        if random := self._draws.due(step):
            first = torch.randn(self.first.shape, generator=random) * math.sqrt(2 / 27)
            if self.zero_mean:
                first -= first.mean(dim=(-2, -1), keepdim=True)
            self.first.copy_(first)
            self.others.copy_(torch.randn(self.others.shape, generator=random) * math.sqrt(2 / self.width))
        switches = f"zero mean {self.zero_mean}, unit norm {self.unit_norm}"
        return f"{self.name} of {list(self.others.shape[:2])}, {switches}, {self._draws}"

    def read(self, images: Image) -> dict[str, Features]:
        """Give the features of each layer, (*, C, h, w), for images (*, 3, H, W) in [0, 1].

        Raises:
            ValueError: the images have another number of channels than 3.
        """
        if images.shape[-3] != 3:
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        batch = (SIGNED * images - 1).reshape(-1, *images.shape[-3:])
        numbers = self.width * images.shape[-2] * images.shape[-1]
        chunks = batch.split(max(1, NUMBERS_A_CHUNK[images.device.type == "cpu"] // numbers))
        if len(chunks) == 1:
            found = [self._run(batch)]
        else:
            found = [checkpoint(self._run, some, use_reentrant=False, preserve_rng_state=False) for some in chunks]
        maps = {layer: torch.cat([one[layer] for one in found]) for layer in self.layers}
        return {layer: of.reshape(*images.shape[:-3], *of.shape[1:]) for layer, of in maps.items()}

    def _run(self, signed: Tensor) -> dict[str, Tensor]:
        """Give the chosen layers for a few images in [-1, 1], and compute none behind the last of them."""
        found, maps, last = {PIXELS: signed}, signed, self.layers[-1]
        for stage in self.stages[: self.stages.index(last) + 1] if last != PIXELS else []:
            maps = self._stage(stage, maps)
            found |= {stage: maps} if stage in self.layers else {}
        return found

    def _stage(self, stage: str, maps: Tensor) -> Tensor:
        if stage == "pool":
            return functional.avg_pool2d(maps, self.window, self.stride)
        if stage.startswith("relu"):
            return maps.relu()
        index = int(stage.removeprefix("conv")) - 1
        if index > 0:
            return functional.conv2d(maps, self.others[index - 1])
        responses = functional.conv2d(maps, self.first, padding=1)
        return responses / _root_mean_square(maps) if self.unit_norm else responses


def _root_mean_square(signed: Tensor) -> Tensor:
    """Give the root mean square of the 3×3 patch at each pixel, over its channels, at least that of a faint one."""
    squares = functional.avg_pool2d(signed.square().mean(1, keepdim=True), 3, stride=1, padding=1)
    return squares.clamp(min=LEAST_NORM**2 / 27).sqrt()
