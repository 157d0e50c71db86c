"""Kernels of patches: each is one function of the inner product of two vectors, so that tiles of it are fast."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from torch import Tensor

from losslab.networks.scnn import LEAST_NORM

Numbers = NDArray[np.float64]

LEAST_EXPONENT = -120.0
"""Powers of two below this one are as good as zero; numbers below 2^-126 take several times as long to compute."""


class Kernel(ABC):
    """A kernel k(p, q) = a(p) a(q) φ(u(p) · v(q)), given by its vectors u and v, its weights a and its profile φ."""

    rate: float = 1.0
    """What `profile` leaves out of φ's slope: a constant factor that costs nothing where it is applied later."""

    @abstractmethod
    def sides(self, patches: Tensor, area: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Give u and v, (*, D, n), and a, (*, n), of patches (*, d, n) with `area` pixels; no a is one everywhere."""

    @abstractmethod
    def profile(self, products: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """Give φ and its slope over `rate` at inner products, which it may overwrite; without `slope`, twice φ."""


class Gaussian(Kernel):
    """The sum of Gaussian kernels over a list of bandwidths.

    Formula: k(p, q) = Σ_s exp(-|p - q|² / (2 s²)), s = sigma · patch_size²

    It is the sum, where RandomFeatureMMD with several bandwidths has the mean.

    Args:
        sigmas: bandwidths a pixel for images in [-1, 1], more than 0; each is multiplied by the *square* of the patch
            size.

    Raises:
        ValueError: no bandwidth, or one that is not more than 0.

    Source: MMDApproximate (one bandwidth) and MultiBandWitdhRbfKernel (several) of
        ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> u, v, _ = Gaussian([0.5]).sides(torch.tensor([[0.0, 1.0]]), area=1)
        >>> Gaussian([0.5]).profile(u.mT @ v, slope=False)[0]
        tensor([[1.0000, 0.1353],
                [0.1353, 1.0000]])
    """

    rate = math.log(2)

    def __init__(self, sigmas: Sequence[float] = (0.06,)) -> None:
        """Keep the bandwidths, the widest first."""
        if not sigmas or min(sigmas) <= 0:
            raise ValueError(f"sigmas are numbers more than 0, got {list(sigmas)}")
        self.sigmas = sorted(sigmas, reverse=True)
        self.ratios = [(self.sigmas[0] / sigma) ** 2 for sigma in self.sigmas]

    def sides(self, patches: Tensor, area: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Give vectors whose product is the exponent of the widest kernel, to the base 2, which is faster than e."""
        scaled = patches * (math.sqrt(math.log2(math.e)) / (self.sigmas[0] * area))
        return (*_distance_sides(scaled), None)

    def profile(self, products: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """Give the powers of two, and their slope where it is not the same."""
        if len(self.ratios) == 1:
            values = products.clamp_min_(LEAST_EXPONENT).exp2_()
            return values, values
        values = torch.zeros_like(products)
        slopes = torch.zeros_like(products) if slope else values
        for ratio in self.ratios:
            one = (products * ratio).clamp_min_(LEAST_EXPONENT).exp2_()
            values += one
            if slope:
                slopes.add_(one, alpha=ratio)
        return values, slopes


class InverseMultiquadric(Kernel):
    """The inverse multiquadric kernel, whose tails are heavy.

    Formula: k(p, q) = c / √(c² + |p - q|²)

    Args:
        c: distance of patches in [-1, 1] at which the kernel begins to fall, more than 0.

    Raises:
        ValueError: c is not more than 0.

    Source: PatchMMD_Inverse of ariel415el/PerceptualLossExperiments, branch master.

    Example:
        >>> import torch
        >>> u, v, _ = InverseMultiquadric(3.0).sides(torch.tensor([[0.0, 4.0]]), area=1)
        >>> InverseMultiquadric(3.0).profile(u.mT @ v, slope=False)[0]
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]])
    """

    def __init__(self, c: float = 1.0) -> None:
        """Keep the distance."""
        if c <= 0:
            raise ValueError(f"c is more than 0, got {c}")
        self.c = c

    def sides(self, patches: Tensor, area: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Give vectors whose product is -|p - q|² / 2, in units of c."""
        return (*_distance_sides(patches / self.c), None)

    def profile(self, products: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """Give 1/√(1 - 2t), and its cube, which is its slope."""
        values = products.clamp_max_(0).mul_(-2).add_(1).rsqrt_()
        return values, values**3 if slope else values


class ArcCosine(Kernel):
    """The kernel of an infinitely wide random network of ReLUs on patches.

    Formula: k(p, q) = (|p| |q| / d) · κ(κ(…κ(ρ))), κ `depth` times, ρ = p · q / (|p| |q|),
    κ(ρ) = (√(1 - ρ²) + ρ (π - arccos ρ)) / π; d is the length of a patch, and patches of unit norm have |p| = √d.

    Args:
        depth: number of ReLUs, at least 1; the network of the paper has 7.
        unit_norm: see the angle between patches only.

    Raises:
        ValueError: depth is less than 1.

    Paper and code: Where patches have unit norm, the original divides by their norm, and here it is by their root mean
        square, so that k(p, p) = 1; its distances are those here over d. It takes norms of 1e-10 for faint, at which
        gradients of grey images grow as large as 1e10; here it is 1e-3, an eighth of a step of an 8-bit image.

    Source: Amir and Weiss, CVPR 2021, theorem 2.1; κ from Cho and Saul, NeurIPS 2009, order 1.

    Example:
        >>> import torch
        >>> u, v, a = ArcCosine(depth=1).sides(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), area=1)
        >>> ArcCosine(depth=1).profile(u.mT @ v, slope=False)[0]
        tensor([[1.0000, 0.3183],
                [0.3183, 1.0000]])
    """

    def __init__(self, depth: int = 7, *, unit_norm: bool = True) -> None:
        """Find the polynomials in the angle that κ∘…∘κ and its slope are, to the last digit."""
        if depth < 1:
            raise ValueError(f"depth is at least 1, got {depth}")
        self.unit_norm = unit_norm
        self.coefficients = {
            dtype: [_polynomial(depth, which, torch.finfo(dtype).eps) for which in (0, 1)]
            for dtype in (torch.float32, torch.float64)
        }

    def sides(self, patches: Tensor, area: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Give unit vectors, whose product is the cosine, and the norms that they had."""
        norms = patches.square().sum(-2).clamp_min(1e-20).sqrt()  # the least square that 32 bits have a root of
        unit = patches / norms[..., None, :]
        weights = norms / norms.clamp_min(LEAST_NORM) if self.unit_norm else norms / math.sqrt(patches.shape[-2])
        return unit, unit, weights

    def profile(self, products: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """Evaluate the polynomials at the angles; seven arc cosines take four times as long."""
        angles = products.clamp_(-1, 1).asin_().mul_(2 / math.pi)
        value, steepness = self.coefficients[angles.dtype]
        values = _evaluate(value, angles)
        return values, _evaluate(steepness, angles) if slope else values


def _distance_sides(points: Tensor) -> tuple[Tensor, Tensor]:
    """Give u and v with u · v = -|p - q|² / 2: one product of matrices, and no pass to add the norms."""
    halves = points.square().sum(-2, keepdim=True) * -0.5
    ones = torch.ones_like(halves)
    return torch.cat([points, halves, ones], -2), torch.cat([points, ones, halves], -2)


def _polynomial(depth: int, which: int, precision: float) -> list[float]:
    """Give κ∘…∘κ (0) or its slope (1) as a polynomial in x = (2/π) arcsin ρ, lowest power first.

    Both are analytic in the angle, so that a Chebyshev series of degree 40 is exact to 1e-13.
    """
    series = Chebyshev.interpolate(lambda x: _iterated(np.sin(x * math.pi / 2), depth)[which], 40)
    length = 1 + int(np.flatnonzero(np.abs(series.coef) > precision / 8)[-1])
    return [float(c) for c in series.truncate(length).convert(kind=Polynomial).coef]


def _iterated(cosines: Numbers, depth: int) -> tuple[Numbers, Numbers]:
    """Apply κ `depth` times, and multiply the slopes 1 - θ/π of each time."""
    slopes = np.ones_like(cosines)
    for _ in range(depth):
        angles = np.arccos(np.clip(cosines, -1, 1))
        slopes = slopes * (1 - angles / math.pi)
        cosines = (np.sin(angles) + cosines * (math.pi - angles)) / math.pi
    return cosines, slopes


def _evaluate(coefficients: list[float], x: Tensor) -> Tensor:
    """Evaluate a polynomial by Horner's rule, in place."""
    highest, *others = torch.tensor(coefficients[::-1], dtype=x.dtype, device=x.device).unbind()
    result = highest.expand_as(x).clone()
    for coefficient in others:
        torch.addcmul(coefficient, result, x, out=result)
    return result
