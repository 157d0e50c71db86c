"""What can be said of an image that lies between others, whatever loss it was found with."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from losslab.types import Distance, Image, Pictures

One: TypeAlias = Float[Tensor, "channels height width"]
"""The image that is judged."""

LEAST = 1e-12
"""Of squared numbers in [0, 1]: below it there is nothing to compare with."""


def gradient_energy(images: Image) -> Distance:
    """Give the mean squared step to the next pixel, to the right and down, (*,).

    Formula: ½ (mean (∂_x)² + mean (∂_y)²), ∂ the forward difference.
    """
    return (
        images.diff(dim=-1).square().mean(dim=(-3, -2, -1)) + images.diff(dim=-2).square().mean(dim=(-3, -2, -1))
    ) / 2


def total_variation(images: Image) -> Distance:
    """Give the mean absolute step to the next pixel, to the right and down, (*,).

    Formula: mean |∂_x| + mean |∂_y|, ∂ the forward difference.
    """
    return images.diff(dim=-1).abs().mean(dim=(-3, -2, -1)) + images.diff(dim=-2).abs().mean(dim=(-3, -2, -1))


def sharpness(image: One, pictures: Pictures) -> float:
    """Give an image's gradient energy as a share of its inputs': 1 is as sharp as they are, noise has more.

    Formula: E(x) / mean_k E(y_k), E the gradient energy.

    Args:
        image: (C, H, W).
        pictures: (K, C, H, W).
    """
    return _share(gradient_energy(image), gradient_energy(pictures).mean())


def variation(image: One, pictures: Pictures) -> float:
    """Give an image's total variation as a share of its inputs'.

    Formula: V(x) / mean_k V(y_k), V the total variation.

    Args:
        image: (C, H, W).
        pictures: (K, C, H, W).
    """
    return _share(total_variation(image), total_variation(pictures).mean())


def colour_error(image: One, pictures: Pictures, weights: Tensor) -> float:
    """Give how far the mean colour is from that of the pictures, in [0, 1].

    Formula: sqrt mean_c (mean x_c - Σ_k w_k mean y_kc)², c the channels.

    Args:
        image: (C, H, W).
        pictures: (K, C, H, W).
        weights: w, (K,), with the sum 1.
    """
    wanted = (pictures.mean(dim=(-2, -1)) * weights[:, None]).sum(0)
    return float((image.mean(dim=(-2, -1)) - wanted).square().mean().sqrt())


def ghosting(image: One, pictures: Pictures, weights: Tensor) -> float:
    """Give how far an image is from its nearest input, as a share of how far the pixel mean is.

    1 is as far as the pixel mean, in which all inputs shine through; 0 is one of the inputs. What is sharp and lies
    elsewhere than all inputs has more than 1: pixels are compared, place by place. NaN where all inputs are equal.

    Formula: min_k mean (x - y_k)² / min_k mean (m - y_k)², m = Σ_k w_k y_k.

    Args:
        image: (C, H, W).
        pictures: (K, C, H, W).
        weights: w, (K,), with the sum 1.
    """
    mean = (pictures * weights[:, None, None, None]).sum(0)
    return _share(nearest(image, pictures), nearest(mean, pictures), torch.nan)


def nearest(image: One, pictures: Pictures) -> Tensor:
    """Give the mean squared difference to the nearest of some pictures."""
    return (image - pictures).square().mean(dim=(-3, -2, -1)).min()


def _share(value: Tensor, of: Tensor, where_none: float = 1.0) -> float:
    return float(torch.where(of > LEAST, value / of.clamp(min=LEAST), torch.full_like(of, where_none)))
