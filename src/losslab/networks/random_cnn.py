"""The small random networks of the generalized-image-mean experiments."""

from collections.abc import Sequence

from torch import nn

from losslab.networks.architectures import on_meta
from losslab.networks.weights import Architecture

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def random_cnn(
    channels: Sequence[int],
    kernels: Sequence[int],
    activation: str | None = "relu",
    padding: str = "valid",
    pool: Sequence[int] | None = None,
) -> Architecture:
    """Give a stack of convolutions of stride 1 for RGB images, with a child each for convolution, activation and pool.

    Args:
        channels: of each convolution's output.
        kernels: height and width of each convolution, in pixels.
        activation: "relu" or "gelu" after each convolution; null: none.
        padding: "valid": none; "same": zeros, so that features have the images' size.
        pool: window and stride of an average at the end, in pixels; null: none.

    Raises:
        ValueError: the numbers of channels and kernels differ, or the activation or padding is unknown.

    Source: models 1 and 2, the channel study and the kernel study of the text "Perceptual Distance and the
        Generalized Mean Image Problem" by defgsus; after Amir and Weiss, CVPR 2021, section 1.2.
    """
    if len(channels) != len(kernels) or not channels:
        raise ValueError(f"channels and kernels are as many as convolutions, got {[*channels]} and {[*kernels]}")
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, or null, got {activation!r}")
    if padding not in ("valid", "same"):
        raise ValueError(f"padding is 'valid' or 'same', got {padding!r}")

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for into, out, kernel in zip((3, *channels), channels, kernels, strict=False):
            layers.append(nn.Conv2d(into, out, kernel, padding=padding))
            layers += [ACTIVATIONS[activation]()] if activation else []
        layers += [nn.AvgPool2d(pool[0], pool[1])] if pool else []
        return nn.Sequential(*layers).eval()

    return Architecture("losslab", f"{len(channels)} convolutions", make, on_meta(make))
