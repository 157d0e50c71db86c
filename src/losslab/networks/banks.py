"""Fixed banks of filters as loss networks: edges and Gabor's patches, of no training and no chance."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losslab.images import SIGNED
from losslab.networks.base import LossNetwork
from losslab.networks.layers import PIXELS, canonical_layers
from losslab.types import Features, Image

Filters = Float[Tensor, "filters side side"]


class FilterBank(LossNetwork):
    """The responses of a grey image to fixed filters, rectified, and averaged over windows.

    Formula: response = filters * g, relu = max(0, response + bias), pool = mean of relu over window×window pixels,
    with g the mean of the channels, taken in [-1, 1]; filters are correlated with it, not mirrored.

    Args:
        name: of the bank.
        layers: its layers by name; `conf/network/prewitt.yaml` has the table.
        slots: the four study layers.
        select: the layers to read: anything that `canonical_layers` takes.
        filters: squares of one size, from `prewitt` or `gabor`.
        bias: added to all responses before they are rectified.
        pad: zeros (grey) beyond the border, so that responses are as many as pixels; otherwise they end at it.
        window: side of a window in pixels; None is one window over all responses.
        stride: step from window to window in pixels.

    Raises:
        ValueError: a window or stride below 1.
        KeyError: an unknown layer.

    Paper and code: EngeneeredPerceptualLoss pools over windows of 128 pixels at stride 1, which is the whole of its
        images, of 128 pixels; here the default is the whole of any image. GaborPerceptualLoss has a bank of Gabor
        filters in a comment only: it reads the first layer of a trained AlexNet from files that are in no repository.
        Here it is that bank, on grey images as where the source shows it, and without padding as in its loss.

    Source: EngeneeredPerceptualLoss and GaborPerceptualLoss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> bank = FilterBank("edges", {"response": "", "relu": "", "pool": ""}, [], "pool", prewitt())
        >>> bank.read(torch.rand(2, 3, 16, 16))["pool"].shape
        torch.Size([2, 2, 1, 1])
    """

    filters: Tensor

    def __init__(
        self,
        name: str,
        layers: Mapping[str, str],
        slots: Sequence[str],
        select: str | int | Sequence[str | int],
        filters: Filters,
        bias: float = 0.0,
        window: int | None = None,
        stride: int = 1,
        *,
        pad: bool = True,
    ) -> None:
        """Keep the filters."""
        super().__init__()
        if min(1 if window is None else window, stride) < 1:
            raise ValueError(f"window and stride are at least 1 pixel, got {window} and {stride}")
        self.name, self.bias, self.window, self.stride = name, bias, window, stride
        self.layers = canonical_layers({"name": name, "layers": layers, "slots": slots}, select)
        self.register_buffer("filters", filters[:, None].float(), persistent=False)
        side = filters.shape[-1]
        self.margin = side // 2 if pad else 0
        pooled = (window or 1) - 1 if "pool" in self.layers else 0
        self.min_side = 1 if self.layers == [PIXELS] else max(1, side - 2 * self.margin + pooled)
        self.freeze()

    def read(self, images: Image) -> dict[str, Features]:
        """Give the features of each layer, (*, C, h, w), for images (*, C, H, W) in [0, 1]."""
        signed = SIGNED * images - 1
        grey = signed.mean(-3, keepdim=True).reshape(-1, 1, *images.shape[-2:])
        found = {PIXELS: signed}
        if self.layers != [PIXELS]:
            response = functional.conv2d(grey, self.filters, padding=self.margin)
            rectified = (response + self.bias).relu()
            found |= {"response": response, "relu": rectified}
        if "pool" in self.layers:
            found["pool"] = functional.avg_pool2d(rectified, self.window or response.shape[-2:], self.stride)
        return {layer: found[layer].reshape(*images.shape[:-3], *found[layer].shape[-3:]) for layer in self.layers}


def prewitt() -> Filters:
    """Give Prewitt's two 3×3 filters, whose responses are differences from top to bottom and from left to right.

    Source: EngeneeredPerceptualLoss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> prewitt()[0]
        tensor([[ 1.,  1.,  1.],
                [ 0.,  0.,  0.],
                [-1., -1., -1.]])
    """
    down = torch.tensor([1.0, 0.0, -1.0])[:, None].expand(3, 3)
    return torch.stack([down, down.T])


def gabor(
    size: int = 11,
    orientations: int = 8,
    sigmas: Sequence[float] = (0.2, 0.4),
    wavelengths: Sequence[float] = (0.25, 0.5),
    aspects: Sequence[float] = (1.0, 2.0),
    phase: float = math.pi,
) -> Filters:
    """Give Gabor filters of all orientations, widths, wavelengths and aspects, the last of these changing fastest.

    Formula: exp(-(u² + γ² v²) / (2 σ²)) · cos(2π u / λ + ψ), u = x cos θ + y sin θ, v = y cos θ - x sin θ,
    with x to the right and y downwards from the centre, in pixels, and no normalisation.

    Args:
        size: side of a filter in pixels, odd.
        orientations: number of angles θ in [0, π).
        sigmas: of the envelope, as shares of the size, more than 0.
        wavelengths: λ, as shares of the size, more than 0.
        aspects: γ, the envelope's width along the wave over that across it.
        phase: ψ in radians.

    Raises:
        ValueError: an even size, or a number that is not more than 0.

    Source: get_gabors_cv of ariel415el/PerceptualLossExperiments, 64 filters; getGaborKernel of OpenCV.

    Example:
        >>> gabor().shape
        torch.Size([64, 11, 11])
    """
    if size % 2 == 0 or min(size, orientations, *sigmas, *wavelengths, *aspects) <= 0:
        raise ValueError(f"size is odd and all numbers are more than 0, got size {size}, {orientations} orientations")
    angles = torch.arange(orientations, dtype=torch.float64) * (math.pi / orientations)
    axes = [angles, *(torch.tensor(axis, dtype=torch.float64) for axis in (sigmas, wavelengths, aspects))]
    theta, sigma, wavelength, aspect = torch.cartesian_prod(*axes)[..., None, None].unbind(1)
    place = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = place, place[:, None]
    along, across = x * theta.cos() + y * theta.sin(), y * theta.cos() - x * theta.sin()
    envelope = (-(along.square() + (aspect * across).square()) / (2 * (sigma * size).square())).exp()
    return (envelope * (2 * math.pi * along / (wavelength * size) + phase).cos()).float()
