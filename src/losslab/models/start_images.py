"""How an image starts that is optimised: from the pictures it shall be near to, or from nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from losslab.seeds import generator
from losslab.types import Found, Pictures

NOISE = 0.075
"""Standard deviation; .15 for images in [-1, 1], from the starts of ariel415el/PerceptualLossExperiments."""

BLUR_SIDE, BLUR_SIGMA = 5, 3.0
"""In pixels, from the same."""

STARTS = ("mean", "zeros", "black", "gray", "noise", "blur", "split", "first")


def start_images(start: str, pictures: Pictures, sizes: Sequence[int], seed: int) -> Found:
    """Give the image that the search in each set begins with, (S, C, H, W) in [0, 1].

    Args:
        start: words that plus signs join, worked off from left to right. The first one says what there is: "mean" of
            the set's pictures; "zeros" or "black"; "gray", 0.5; "split", strips of the set's pictures side by side;
            "first", the set's first picture; "noise" is gray with noise. After it, "noise" adds normal numbers of
            deviation 0.075 and "blur" blurs (5 × 5 pixels, sigma 3).
        pictures: (N, C, H, W), those of a set side by side.
        sizes: pictures in each set.
        seed: of the noise, which is the same for all sets of a size, so that a set alone starts as it does in a batch.

    Raises:
        ValueError: an unknown word, or one that is in no place of its own.

    Source: the starts of perceptual_mean_optimization in ariel415el/PerceptualLossExperiments.

    Example:
        >>> start_images("mean+blur", torch.rand(4, 3, 16, 16), [2, 2], 0).shape
        torch.Size([2, 3, 16, 16])
    """
    first, *more = words = start.split("+") if isinstance(start, str) else [start]
    unknown = [word for word in words if word not in STARTS]
    if unknown:
        raise ValueError(f"task.start is made of {', '.join(STARTS)}, joined by +; got {unknown[0]!r}")
    wrong = [word for word in more if word not in ("noise", "blur")]
    if wrong or first == "blur":
        raise ValueError(
            f"task.start={start}: what there is comes first (mean, zeros, gray, noise, split, first), and noise or "
            "blur behind it"
        )
    found = torch.stack([_first(first, some) for some in pictures.split([*sizes])])
    for number, word in enumerate(more if first != "noise" else words):
        if word == "blur":
            found = gaussian_blur(found, [BLUR_SIDE, BLUR_SIDE], [BLUR_SIGMA, BLUR_SIGMA])
        else:
            random = generator(seed, number)
            found = found + torch.randn(found.shape[1:], generator=random).to(found) * NOISE
    return found.clamp(0, 1)


def _first(word: str, pictures: Pictures) -> Tensor:
    """Give what one set starts with, (C, H, W)."""
    if word == "mean":
        return pictures.mean(0)
    if word == "first":
        return pictures[0].clone()
    if word == "split":
        strips = [
            picture.tensor_split(len(pictures), dim=-1)[number] for number, picture in enumerate(pictures)
        ]  # each picture's own strip
        return torch.cat(strips, -1)
    return torch.full_like(pictures[0], 0.5 if word in ("gray", "noise") else 0.0)
