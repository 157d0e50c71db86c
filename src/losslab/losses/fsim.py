"""FSIMc: feature similarity, of phase congruency, slopes and colours."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from losslab.losses.base import Loss
from losslab.types import Distance, Features, Image

# All constants of this file are those of the authors' program, FeatureSIM.m of 2010.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Rows of luminance and of two chrominances; columns of red, green and blue."""
SCHARR = ((3.0, 0.0, -3.0), (10.0, 0.0, -10.0), (3.0, 0.0, -3.0))
"""Over 16: slopes along the rows; those along the columns have it transposed."""
LONGEST = 256
"""Images are shrunk by a whole number to about this many pixels of the shorter side."""
SCALES, ORIENTATIONS = 4, 4
WAVELENGTH = 6.0
"""Of the finest filters, in pixels; each next scale has twice as much."""
BANDWIDTH = 0.55
"""Of the log-Gabor filters, as the spread of the frequency over its middle."""
SPREAD = math.pi / ORIENTATIONS / 1.2
"""Standard deviation of a filter's direction, in radians."""
CUTOFF, SHARPNESS = 0.45, 15
"""Of the low-pass that keeps filters away from the corners of the spectrum: cycles a pixel, and its power."""
DEVIATIONS = 2.0
"""Standard deviations of the noise's energy above its mean, below which energy counts as noise."""
OVERESTIMATE = 1.7
"""Of the noise for this measure of phase congruency, found by experiment."""
EPSILON = 1e-4
"""Added to amplitudes, where images have values up to 255."""

FLAT = 1e-8
"""Weight of a place without phase congruency, so that images without any have a distance."""
ROOT = 1e-12
"""Added inside roots, whose slope would be infinite at 0."""
STEEPEST = 1e-8
"""Below it s^power goes on as a line to zero, or its slope would be infinite there."""

NEGATIVE = ("real", "absolute")


class FSIM(Loss[Tensor]):
    """One minus the feature similarity of two colour images, FSIMc.

    Formula: Σ_p m (1 - S_P S_G (S_I S_Q)^λ) / Σ_p m over the places p, with m = max(P_x, P_y) and each similarity
    S = (2ab + t)/(a² + b² + t): S_P of the phase congruency P with t1, S_G of the slopes with t2, S_I and S_Q of the
    two chrominances with t3, for images with values up to 255.

    It lies in [0, 1]. Phase congruency says how far the waves of a place agree in phase, whatever their amplitude:
    it is high at edges and lines, and weighs the places. Two images without any of it weigh all places equally. Sides
    of 384 pixels and more are halved, or shrunk further, by the mean of blocks.

    Args:
        t1: constant of the phase congruency.
        t2: of the slopes.
        t3: of the chrominances.
        power: λ of the chrominances.
        negative: what a negative S_I S_Q becomes: "real", the real part of its power, cos(πλ) |s|^λ, or "absolute",
            |s|^λ.

    Raises:
        ValueError: a constant is not more than 0, the power is not above 0 and up to ½, or `negative` is unknown.

    Paper and code: the paper's formula has no value where S_I S_Q is negative, as for opposite hues; the authors'
        program takes the real part, the default, and piq the absolute value; they differ by .4 % there. The program
        shrinks by blocks whose place depends on their size; here, as in piq, they begin at the upper left corner.
        piq's conversion to YIQ differs in the fourth digit, its filters are those of the transposed image, and its
        median is the lower of the two middle values. Where |S_I S_Q| < 1e-8, a line replaces the power.

    Source: Zhang, Zhang, Mou and Zhang, "FSIM: a feature similarity index for image quality assessment", IEEE Trans.
        Image Processing 20 (2011), sections II and III; their FeatureSIM.m, with Kovesi's phase congruency.

    Example:
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> FSIM()(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    min_side = int(WAVELENGTH)

    def __init__(
        self, t1: float = 0.85, t2: float = 160.0, t3: float = 200.0, power: float = 0.03, negative: str = "real"
    ) -> None:
        """Check the constants."""
        super().__init__()
        if min(t1, t2, t3) <= 0 or not 0 < power <= 0.5:
            raise ValueError(f"t1, t2, t3 are more than 0, power is up to 0.5, got {t1}, {t2}, {t3} and {power}")
        if negative not in NEGATIVE:
            raise ValueError(f"negative is one of {list(NEGATIVE)}, got {negative!r}")
        self.t1, self.t2, self.t3, self.power = t1, t2, t3, power
        self.turned = math.cos(math.pi * power) if negative == "real" else 1.0

    def prepare(self, images: Tensor) -> Image:
        """Refuse images without colours as well.

        Raises:
            ValueError: as any loss, or the images have no three channels.
        """
        images = super().prepare(images)
        if images.shape[-3] != len(YIQ):
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        return images

    def embed(self, images: Image) -> Tensor:
        """Give phase congruency, slope and two chrominances of each place, (*, 4, h, w)."""
        block = max(1, math.floor(min(images.shape[-2:]) / LONGEST + 0.5))
        small = functional.avg_pool2d(images.reshape(-1, 1, *images.shape[-2:]), block)
        small = 255 * small.reshape(*images.shape[:-2], *small.shape[-2:])
        shares = small.new_tensor(YIQ)[:, :, None, None]
        luminance, colours = (small.unsqueeze(-4) * shares).sum(-3).split([1, 2], -3)
        return torch.cat([_phase_congruency(luminance), _slopes(luminance), colours], -3)

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give 1 - FSIMc of each pair, (*,)."""
        constants = a.new_tensor([self.t1, self.t2, self.t3, self.t3])[:, None, None]
        unlike = (a - b).square() / (a.square() + b.square() + constants)  # 1 - S, with all digits of a small one
        phases, slopes, i, q = unlike.unbind(-3)
        lost = _either(_either(phases, slopes), self._raised(_either(i, q)))
        weights = torch.maximum(a[..., 0, :, :], b[..., 0, :, :]) + FLAT
        return {self.name: (weights * lost).sum((-2, -1)) / weights.sum((-2, -1))}

    def _raised(self, unlike: Tensor) -> Tensor:
        """Give 1 - s^power with s = 1 - unlike, a line where s is nearly 0, and of |s| where it is negative."""
        size = (1 - unlike).abs()
        near = -unlike.clamp(max=0.5)
        logarithm = torch.where(unlike < 0.5, near.log1p(), size.clamp(min=STEEPEST).log())
        lost = (STEEPEST - size).clamp(min=0) * STEEPEST ** (self.power - 1) - (self.power * logarithm).expm1()
        return torch.where(unlike > 1, 1 - self.turned + self.turned * lost, lost)


def _either(p: Tensor, q: Tensor) -> Tensor:
    """Give 1 - (1 - p)(1 - q) with all digits of small p and q."""
    return p + q - p * q


def _slopes(luminance: Features) -> Features:
    """Give the length of the gradient by Scharr's filters; black lies beyond the border."""
    kernel = luminance.new_tensor(SCHARR) / 16
    planes = luminance.reshape(-1, 1, *luminance.shape[-2:])
    found = functional.conv2d(planes, torch.stack([kernel, kernel.T])[:, None], padding=1)
    return (found.square().sum(1) + ROOT).sqrt().reshape(luminance.shape)


def _phase_congruency(luminance: Features) -> Features:
    """Give the phase congruency of images (*, 1, h, w).

    Formula: Σ_o max(E_o - T_o, 0) / (Σ_o Σ_s A_os + ε) over orientations o and scales s, with the amplitudes A, the
    energy E_o = Σ_s A_os (cos φ - |sin φ|) with φ the angle to the mean phase, and the threshold T_o of noise.

    A constant has no phases: taking off the mean first keeps its rounding errors out.
    """
    spectrum = torch.fft.fft2(luminance - luminance.mean((-2, -1), keepdim=True))
    energies = amplitudes = torch.zeros_like(luminance)
    for filters in _bank(luminance):  # one orientation at a time takes a quarter of the memory
        response = torch.fft.ifft2(spectrum * filters)
        even, odd = response.real, response.imag
        amplitude = (even.square() + odd.square() + ROOT).sqrt()
        mean_even, mean_odd = even.sum(-3, keepdim=True), odd.sum(-3, keepdim=True)
        length = (mean_even.square() + mean_odd.square() + ROOT).sqrt() + EPSILON
        across = (even * mean_odd - odd * mean_even).abs()
        energy = ((even * mean_even + odd * mean_odd - across) / length).sum(-3, keepdim=True)
        energies = energies + (energy - _noise(filters, amplitude[..., :1, :, :])).relu()
        amplitudes = amplitudes + amplitude.sum(-3, keepdim=True)
    return energies / (amplitudes + EPSILON)


def _noise(filters: Tensor, finest: Features) -> Tensor:
    """Give the threshold of noise of each image for the filters (S, h, w) of one orientation.

    The finest scale sees mostly noise. Its median power over ln 2 is the mean one, and the power of the filters'
    sum over that of the finest filter says what all scales together see of it, of Rayleigh's distribution.
    """
    ordered = finest.square().flatten(-2).sort(-1).values
    count = ordered.shape[-1]
    median = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
    together = torch.fft.ifft2(filters.sum(0)).real.square().sum() * count
    tau = (median * together / filters[0].square().sum() / math.log(2)).sqrt()[..., None, None]
    return tau * (math.sqrt(math.pi / 2) + DEVIATIONS * math.sqrt(2 - math.pi / 2)) / OVERESTIMATE


def _bank(luminance: Features) -> Tensor:
    """Give log-Gabor filters over the frequencies of an image, (orientations, scales, h, w)."""
    height, width = luminance.shape[-2:]
    down, right = _frequencies(height, luminance)[:, None], _frequencies(width, luminance)
    radius, angle = (down.square() + right.square()).sqrt(), torch.atan2(-down, right)
    middle = radius == 0
    waves = WAVELENGTH * 2.0 ** torch.arange(SCALES, device=radius.device, dtype=radius.dtype)[:, None, None]
    octaves = (torch.where(middle, 1, radius) * waves).log() / math.log(BANDWIDTH)
    low_pass = 1 / (1 + (radius / CUTOFF) ** (2 * SHARPNESS))
    radial = torch.where(middle, 0, (-octaves.square() / 2).exp() * low_pass)
    steps = torch.arange(ORIENTATIONS, device=radius.device, dtype=radius.dtype)[:, None, None, None]
    turned = angle - steps * math.pi / ORIENTATIONS
    off = torch.atan2(turned.sin(), turned.cos())
    return radial * (-(off / SPREAD).square() / 2).exp()


def _frequencies(count: int, like: Tensor) -> Tensor:
    """Give the frequencies of a side in cycles a pixel, 0 first; an odd one is spread to ±½, as in the program."""
    centred = torch.arange(count, device=like.device, dtype=like.dtype) - count // 2
    return torch.fft.ifftshift(centred / (count - count % 2))
