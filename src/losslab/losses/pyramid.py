"""Wrappers that apply any loss to each level of a pyramid: Laplacian (bands) or by plain averages."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losslab.losses.base import Loss
from losslab.losses.weighted_sum import weighted
from losslab.types import Distance, Features, Image

# Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Trans. Comm. 31 (1983): w with a = 3/8
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
KERNELS = ("binomial", "gaussian", "glo")
WEIGHTS = ("equal", "coarse", "fine", "fine_scaled")


class LaplacianPyramid(Loss[tuple[Any, ...]]):
    """Any loss on each level of a Laplacian pyramid.

    Formula: Σ_j w_j · loss(L^j(x), L^j(y)) over j = 0..levels, where for j < levels the band is L^j = c_j - blur(c_j),
        c_0 the image and c_{j+1} the 2×2 means of blur(c_j), and the last level is the low-pass rest, c_levels;
        w_j is 1 (equal), 4^j (coarse), 4^-j (fine), 4^(levels - j) (fine_scaled), or the j-th of a list.

    The blur repeats the border pixels. Terms are `band0`, `band1`, ..., `rest`. A loss of several parts gives
    `band0/part` for each.

    Args:
        loss: what compares two levels; bands have values around 0.
        levels: band-pass levels above the rest, 1 or more.
        kernel: of the 5×5 blur: "binomial", Burt and Adelson's (1, 4, 6, 4, 1)/16; "gaussian"; or "glo", see below.
        sigma: of the kernels "gaussian" and "glo" in pixels, more than 0; the binomial one has none.
        level_weights: "equal", "coarse", "fine", "fine_scaled", or a list of levels + 1 numbers.

    Raises:
        ValueError: an unknown kernel or name of weights, a list of another length, or a number out of its range.

    Paper and code: GLO writes Lap1 = Σ_j 2^{2j} |L^j(x) - L^j(y)|_1 with *sums* over pixels. Level j has 1/4^j of the
        pixels, so in *means*, which the losses here are, every level weighs the same: "equal", the default.
        LaplacyanLoss of ariel415el puts 4^j before the means by default, which counts the pixels twice: "coarse" is its
        weightening_mode 0, and "fine", "fine_scaled", "equal" are 1, 2, 3. The blur that mtyka/laploss, minimal_glo
        and ariel415el call Gaussian adds (e^{-u²/2σ²})² and (e^{-v²/2σ²})² where a Gaussian multiplies: nearly flat at
        σ = 2. It is kernel="glo", kept to reproduce them; the default is the paper's of the pyramid.

    Source: Bojanowski et al., "Optimizing the Latent Space of Generative Networks", ICML 2018, section 3.2;
        LaplacyanLoss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> from losslab.losses.pixel import L1
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> LaplacianPyramid(L1())(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    kernel: Tensor

    def __init__(
        self,
        loss: Loss[Any],
        levels: int = 3,
        kernel: str = "binomial",
        sigma: float = 2.0,  # minimal_glo; LapLoss of ariel415el
        level_weights: str | Sequence[float] = "equal",
    ) -> None:
        """Build the blur and the level weights."""
        super().__init__()
        self.weights = _weights(level_weights, levels)
        self.loss, self.levels = loss, levels
        self.min_side, self.own_axes = loss.min_side * 2**levels, loss.own_axes
        self.register_buffer("kernel", _kernel(kernel, sigma), persistent=False)

    def embed(self, images: Image) -> tuple[Any, ...]:
        """Embed the bands and the low-pass rest."""
        levels = []
        for _ in range(self.levels):
            smooth = _blur(images, self.kernel)
            levels.append(images - smooth)
            images = _halve(smooth)
        return tuple(self.loss.embed(level) for level in (*levels, images))

    def terms(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> dict[str, Distance]:
        """Give each level's weighted terms."""
        names = [*(f"band{j}" for j in range(self.levels)), "rest"]
        return _terms(self.loss, dict(zip(names, self.weights, strict=True)), a, b)

    def draw(self, step: int) -> None:
        """Draw the inner loss's random state of `step`."""
        self.loss.draw(step)


class AveragePyramid(Loss[tuple[Any, ...]]):
    """Any loss on the image and on each of its halvings by 2×2 means.

    Formula: Σ_j w_j · loss(c_j(x), c_j(y)) over j = 0..levels, c_0 the image and c_{j+1} the 2×2 means of c_j;
        w_j is 1 (equal), 4^j (coarse), 4^-j (fine), 4^(levels - j) (fine_scaled), or the j-th of a list.

    Terms are `level0`, `level1`, ...; a loss of several parts gives `level0/part` for each.

    Args:
        loss: what compares two levels.
        levels: halvings, 1 or more.
        level_weights: "equal", "coarse", "fine", "fine_scaled", or a list of levels + 1 numbers.

    Raises:
        ValueError: an unknown name of weights, a list of another length, or less than one level.

    Paper and code: PyramidLoss of ariel415el accepts the weights 4^j, 4^-j and 4^(levels - j) and then fails on them;
        it runs with 1 or a list only. All of them work here; the default is its 1.

    Source: PyramidLoss of ariel415el/PerceptualLossExperiments.

    Example:
        >>> import torch
        >>> from losslab.losses.pixel import L2
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> AveragePyramid(L2(), level_weights=[0, 0.1, 1])(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    def __init__(self, loss: Loss[Any], levels: int = 2, level_weights: str | Sequence[float] = "equal") -> None:
        """Build the level weights."""
        super().__init__()
        self.weights = _weights(level_weights, levels)
        self.loss, self.levels = loss, levels
        self.min_side, self.own_axes = loss.min_side * 2**levels, loss.own_axes

    def embed(self, images: Image) -> tuple[Any, ...]:
        """Embed the image and its halvings."""
        levels = [images]
        for _ in range(self.levels):
            levels.append(_halve(levels[-1]))
        return tuple(self.loss.embed(level) for level in levels)

    def terms(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> dict[str, Distance]:
        """Give each level's weighted terms."""
        return _terms(self.loss, {f"level{j}": weight for j, weight in enumerate(self.weights)}, a, b)

    def draw(self, step: int) -> None:
        """Draw the inner loss's random state of `step`."""
        self.loss.draw(step)


def _terms(loss: Loss[Any], weights: dict[str, float], a: tuple[Any, ...], b: tuple[Any, ...]) -> dict[str, Distance]:
    found: dict[str, Distance] = {}
    for (name, weight), p, q in zip(weights.items(), a, b, strict=True):
        found |= weighted(name, weight, loss.terms(p, q))
    return found


def _weights(choice: str | Sequence[float], levels: int) -> list[float]:
    """Spell out the weights of levels 0, ..., levels."""
    if levels < 1:
        raise ValueError(f"levels is 1 or more, got {levels}")
    if choice in WEIGHTS:
        first, ratio = {"equal": (1, 1), "coarse": (1, 4), "fine": (1, 1 / 4), "fine_scaled": (4**levels, 1 / 4)}[
            choice
        ]
        return [float(first * ratio**j) for j in range(levels + 1)]
    if isinstance(choice, str) or len(choice) != levels + 1:
        names = ", ".join(map(repr, WEIGHTS))
        raise ValueError(f"level_weights is {names}, or a list of {levels + 1} numbers, got {choice!r}")
    return [float(weight) for weight in choice]


def _kernel(name: str, sigma: float) -> Float[Tensor, "5 5"]:
    """Give the blur's taps, whose sum is 1."""
    if name not in KERNELS:
        raise ValueError(f"kernel is {', '.join(map(repr, KERNELS))}, got {name!r}")
    if sigma <= 0:
        raise ValueError(f"sigma is more than 0 pixels, got {sigma}")
    if name == "binomial":
        return torch.outer(torch.tensor(BINOMIAL), torch.tensor(BINOMIAL))
    bell = (torch.arange(-2.0, 3.0).square() / (-2 * sigma**2)).exp()
    taps = torch.outer(bell, bell) if name == "gaussian" else bell.square()[:, None] + bell.square()
    return taps / taps.sum()


def _blur(images: Image, kernel: Tensor) -> Image:
    # One image whose channels are all planes of the batch: on a CPU a tenth of the time of a batch of one-channel
    # images, forward and backward on 32×3×64×64, and a third of that of two passes with five taps each.
    planes = functional.pad(images.reshape(1, -1, *images.shape[-2:]), (2,) * 4, mode="replicate")
    filters = kernel.expand(planes.shape[1], 1, 5, 5)
    return functional.conv2d(planes, filters, groups=planes.shape[1]).reshape(images.shape)


def _halve(images: Image) -> Features:
    """Average 2×2 pixels into one; an odd row or column at the end is left out."""
    planes = functional.avg_pool2d(images.reshape(1, -1, *images.shape[-2:]), 2)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])
