"""Lap1, the Laplacian-pyramid L1 that Generative Latent Optimization (GLO) trains with."""

import torch
from kornia.filters import filter2d
from torch import Tensor
from torch.nn import functional

from losslab.losses.base import Loss
from losslab.types import Distance, Features, Image

# Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Trans. Comm. 31 (1983): w with a = 3/8
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class Laplacian(Loss[tuple[Tensor, ...]]):
    """Lap1: the sum over the levels of a Laplacian pyramid of the mean absolute difference.

    Formula: Σ_j w_j · mean |L^j(x) - L^j(y)| over j = 0..levels, where L^j for j < levels is what a blur takes away at
    1/2^j of the resolution and the last level is the low-pass rest.

    GLO writes Lap1 = Σ_j 2^{2j} |L^j(x) - L^j(y)|_1 with *sums* over pixels. Level j has 1/4^j of the pixels, so in
    *means* every level weighs the same, and that is `level_weights="paper"`, the default. `level_weights="ariel"` puts
    4^j before the means, as weight mode 0 of LaplacyanLoss in ariel415el/PerceptualLossExperiments does: it counts the
    pixels twice. (That code also blurs by another kernel, stops after two levels, and its LapLoss adds L2.)

    Args:
        levels: band-pass levels above the low-pass rest; the paper leaves the number open, 3 is minimal_glo's.
        level_weights: "paper" or "ariel".

    Source: Bojanowski et al., "Optimizing the Latent Space of Generative Networks", ICML 2018, section 3.2;
        the blur is Burt and Adelson's, where minimal_glo and ariel use a near-flat 5×5 kernel that is no Gaussian.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> Laplacian()(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    kernel: Tensor

    def __init__(self, levels: int = 3, level_weights: str = "paper") -> None:
        """Build the blur and the level weights."""
        super().__init__()
        if level_weights not in ("paper", "ariel"):
            raise ValueError(f"level_weights is 'paper' or 'ariel', got {level_weights!r}")
        if levels < 1:
            raise ValueError(f"levels is 1 or more, got {levels}")
        self.min_side = 2 ** max(levels, 2)  # the rest keeps a pixel, and the first blur has its 2 pixels of border
        self.levels = levels
        self.weights = [4.0**j if level_weights == "ariel" else 1.0 for j in range(levels + 1)]
        taps = torch.tensor(BINOMIAL)
        self.register_buffer("kernel", torch.outer(taps, taps)[None], persistent=False)

    def embed(self, images: Image) -> tuple[Tensor, ...]:
        """Give the bands and the low-pass rest."""
        bands = []
        for _ in range(self.levels):
            smooth = self._blur(images)
            bands.append(images - smooth)
            images = _halve(smooth)
        return (*bands, images)

    def terms(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> dict[str, Distance]:
        """Give each level's weighted term: `band0`, `band1`, ..., `rest`."""
        names = [*(f"band{j}" for j in range(self.levels)), "rest"]
        terms = zip(names, self.weights, a, b, strict=True)
        return {name: weight * (p - q).abs().mean(dim=(-3, -2, -1)) for name, weight, p, q in terms}

    def _blur(self, images: Image) -> Image:
        planes = images.reshape(-1, 1, *images.shape[-2:])
        return filter2d(planes, self.kernel, border_type="replicate").reshape(images.shape)


def _halve(images: Image) -> Features:
    """Average 2×2 pixels into one."""
    planes = functional.avg_pool2d(images.reshape(-1, 1, *images.shape[-2:]), 2)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])
