"""Whether a loss sees an image at all."""

from typing import Any

import torch

from losslab.losses.base import Loss
from losslab.seeds import generator
from losslab.types import Image, leaves


@torch.enable_grad()
def sees(loss: Loss[Any], images: Image) -> bool:
    """Tell whether an encoding changes with the image, to first order: a network of dead features has none that does.

    Args:
        loss: whose encoding.
        images: (*, C, H, W), of any values.
    """
    images = images.detach().requires_grad_()
    parts = [part for part in leaves(loss.embed(images)) if part.requires_grad]
    if not parts:
        return False
    random = generator(0)
    along = [torch.randn(part.shape, generator=random).to(part) for part in parts]
    (gradient,) = torch.autograd.grad(parts, images, along)
    return bool(gradient.any())
