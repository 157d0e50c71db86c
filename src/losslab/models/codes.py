"""Learnable codes, one an image: how they start, where they are kept, and how new ones are sampled."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losslab.images import to_float
from losslab.seeds import generator

Codes: TypeAlias = Float[Tensor, "codes size"]
"""One code a row."""


MOST_EXACT = 4096
"""Images of which principal components are computed exactly; of more, by torch's randomised method."""


def start_codes(start: str, images: Tensor, size: int, seed: int) -> Codes:
    """Give the codes that training begins with.

    Args:
        start: "normal" is N(0, 0.01²) (ariel415el/PerceptualLossExperiments), "unit_gaussian" is N(0, 1) (GLO), "pca"
            the scores of the images on their principal components, all divided by the largest norm, so that the codes
            keep the images' geometry and fit into the unit ball (GLO; minimal_glo found it decisive).
        images: (N, C, H, W) bytes, of which "pca" takes the components.
        size: numbers in a code.
        seed: of the random starts.

    Raises:
        ValueError: unknown start.
    """
    if start == "pca":
        return _principal_scores(to_float(images).flatten(1), size, seed)
    normal = torch.randn(len(images), size, generator=generator(seed))
    if start == "unit_gaussian":
        return normal
    if start == "normal":
        return 0.01 * normal
    raise ValueError(f"init of codes is 'normal', 'unit_gaussian' or 'pca', got {start!r}")


def _principal_scores(points: Tensor, size: int, seed: int) -> Codes:
    if len(points) > MOST_EXACT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            left, singular, _ = torch.pca_lowrank(points, min(size, *points.shape))
        return _scaled(left * singular, size)
    centred = (points - points.mean(0)).double()
    variances, vectors = torch.linalg.eigh(centred @ centred.T)  # the N×N Gram matrix: far smaller than pixels²
    scores = vectors[:, -size:].flip(1) * variances[-size:].flip(0).clamp(min=0).sqrt()
    return _scaled(scores, size)


def _scaled(scores: Tensor, size: int) -> Codes:
    scores = functional.pad(scores, (0, size - scores.shape[1]))  # N images have no components beyond the Nth
    return (scores / scores.norm(dim=1).max().clamp(min=1e-12)).float()


def project(codes: Codes, projection: str) -> Codes:
    """Bring codes to where they are kept.

    Args:
        codes: one a row.
        projection: "none"; "sphere", unit norm (GLANN); "ball", norm of at most 1 (GLO).

    Raises:
        ValueError: unknown projection.
    """
    if projection == "none":
        return codes
    norms = codes.norm(dim=1, keepdim=True)
    if projection == "sphere":
        return codes / norms.clamp(min=1e-12)
    if projection == "ball":
        return codes / norms.clamp(min=1)
    raise ValueError(f"projection is 'none', 'sphere' or 'ball', got {projection!r}")


def sample_gaussian(codes: Codes, count: int, seed: int) -> Float[Tensor, "count size"]:
    """Sample from the Gaussian with the mean and the full covariance of `codes`.

    It multiplies normal numbers with the centred codes themselves, which has exactly their covariance, where a Cholesky
    factor would fail as soon as there are fewer codes than numbers in a code.

    Source: GLO samples from a Gaussian fitted to its codes (Bojanowski et al., ICML 2018, section 4).
    """
    mean = codes.mean(0)
    noise = torch.randn(count, len(codes), generator=generator(seed)).to(codes)
    return mean + noise @ (codes - mean) / max(len(codes) - 1, 1) ** 0.5
