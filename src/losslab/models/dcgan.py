"""The generator of DCGAN: a code becomes an image."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from losslab.types import Image

SMALLEST = 4
"""Side of the first map, in pixels; each further layer doubles it."""


class DCGANGenerator(nn.Module):
    """Transposed convolutions from a code to an image in [0, 1].

    Args:
        code_size: numbers in a code.
        image_size: side of the image in pixels, 4 · 2^len(widths).
        widths: channels of the inner maps, from the 4×4 one upwards; None takes 512, 256, 128 and 64 for 64 pixels, one
            less from the left for half the size, and one more 512 for twice the size, as the source does.

    Source: Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks", ICLR 2016; kernels of 4, batch norm, no bias, and Xavier's start with gain √2 as in
        ariel415el/PerceptualLossExperiments. Its tanh gives [-1, 1], which is mapped to [0, 1] here.

    Example:
        >>> import torch
        >>> DCGANGenerator(code_size=64)(torch.zeros(2, 64)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(self, code_size: int = 64, image_size: int = 64, widths: Sequence[int] | None = None) -> None:
        """Stack the layers.

        Raises:
            ValueError: `image_size` is no doubling of 4, or `widths` has another length than its doublings.
        """
        super().__init__()
        doublings = round(math.log2(image_size / SMALLEST))
        if doublings < 1 or SMALLEST * 2**doublings != image_size:
            raise ValueError(f"a DCGAN makes images of 8, 16, 32, 64, 128, ... pixels, not of {image_size}")
        if widths is None:
            widths = [min(64 * 2**left, 512) for left in reversed(range(doublings))]
        if len(widths) != doublings:
            raise ValueError(
                f"images of {image_size} pixels need {doublings} widths in task.generator, got {len(widths)}"
            )
        self.code_size, self.image_size = code_size, image_size
        layers: list[nn.Module] = [nn.ConvTranspose2d(code_size, widths[0], SMALLEST, bias=False)]
        for narrow, wide in zip(widths, [*widths[1:], 3], strict=True):
            layers += [nn.BatchNorm2d(narrow), nn.ReLU(), nn.ConvTranspose2d(narrow, wide, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        for layer in layers:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.xavier_normal_(layer.weight, gain=math.sqrt(2))

    def forward(self, codes: Float[Tensor, "batch code"]) -> Image:
        """Give the images of codes (N, code_size), (N, 3, image_size, image_size) in [0, 1]."""
        signed: Tensor = self.layers(codes[:, :, None, None])
        return (signed + 1) / 2
