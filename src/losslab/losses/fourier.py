"""Losses of the Fourier transform of images: all of its coefficients, or the low or the high ones."""

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.types import Distance, Image

CHOICES = {
    "form": ("complex", "real_imag"),
    "norm": ("l1", "l2"),
    "band": ("all", "low", "high"),
    "scale": ("ortho", "backward"),
}


class Fourier(Loss[tuple[Tensor, Tensor]]):
    """Mean size of the difference of two images' Fourier coefficients, over the channels and a band.

    Formula: mean over channels and the frequencies f of the band of |D(f)|^n (form "complex") or of
    ½ (|Re D(f)|^n + |Im D(f)|^n) (form "real_imag"), D = fft2(x - y), with n = 1 for "l1" and 2 for "l2".

    The transform has H·W coefficients a channel, of which each but the self-conjugate ones comes twice, as D(f) and
    D(-f) of one size; one of the two is computed, and the weights count for both.
    With norm "l2", band "all" and scale "ortho" this is L2 of the pixels (Parseval), or half of it for "real_imag".

    Args:
        form: "complex" takes the modulus of a coefficient, "real_imag" its two parts as two numbers.
        norm: "l1" or "l2".
        band: "all", "low" or "high".
        cut: first frequency that is no longer low, in periods an image side, 1 or more.
        centred: low is |f_y| < cut and |f_x| < cut, of frequencies with their sign, and high is all the rest; otherwise
            low is the corner [:cut, :cut] and high the corner [cut:, cut:] of the transform as it is stored.
        scale: "ortho" divides the transform by √(H·W), "backward" by nothing.

    Raises:
        ValueError: an unknown word, or cut is less than 1.

    Paper and code: the blog's transform is unscaled, which is `scale="backward"`: losses of two image sizes then differ
        in size, so the default is "ortho". Its bands are `centred=False`: without a shift of the transform, the low
        corner holds one of four quadrants (and its conjugate) of the low frequencies, and the high one still holds low
        frequencies of negative sign; `centred=True` is what the words mean. The two are losses of their own here, and
        the blog's are those that carry its names.

    Source: defgsus, blog on the generalised image mean: FFT1 is "complex" and "l1", FFT2 "real_imag" with either norm,
        the bands "complex" and "l1" with cut 10.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> Fourier()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self,
        form: str = "complex",
        norm: str = "l1",
        band: str = "all",
        cut: int = 10,
        *,
        centred: bool = False,
        scale: str = "ortho",
    ) -> None:
        """Check the words and the cut."""
        super().__init__()
        for argument, word in {"form": form, "norm": norm, "band": band, "scale": scale}.items():
            if word not in CHOICES[argument]:
                raise ValueError(f"{argument} is one of {', '.join(CHOICES[argument])}, got {word!r}")
        if cut < 1:
            raise ValueError(f"cut is 1 or more, got {cut}")
        self.form, self.norm, self.band, self.scale = form, norm, band, scale
        self.cut, self.centred = cut, centred
        if band == "high":  # the highest frequency of n pixels is n // 2 with a sign, and n - 1 as it is stored
            self.min_side = 2 * cut if centred else cut + 1

    def embed(self, images: Image) -> tuple[Tensor, Tensor]:
        """Give the half of the transform that tells the other, and an empty tensor as wide as the images.

        The half transforms of 2n and 2n + 1 columns are of one size.
        """
        return torch.fft.rfft2(images, norm=self.scale), images[..., :0, :]

    def terms(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> dict[str, Distance]:
        """Give the weighted mean size of the difference of each pair, (*,)."""
        difference = a[0] - b[0]
        sizes = self._sizes(difference)
        weights = self._weights(difference.shape[-2], a[1].shape[-1], sizes)
        return {self.name: (sizes * weights).sum(dim=(-2, -1)).mean(-1)}

    def _sizes(self, difference: Tensor) -> Tensor:
        """Give |D|^n, or the mean over its two parts."""
        if self.form == "complex" and self.norm == "l1":
            return difference.abs()
        parts = torch.view_as_real(difference)
        if self.norm == "l1":
            return parts.abs().mean(-1)
        return parts.square().sum(-1) if self.form == "complex" else parts.square().mean(-1)

    def _weights(self, height: int, width: int, like: Tensor) -> Tensor:
        """Give each coefficient of the half transform its share of the mean over the band, (H, W // 2 + 1)."""
        rows, columns = (torch.arange(size, device=like.device) for size in (height, width))
        band = self._in_band(rows, columns).to(like.dtype)
        mirrored = self._in_band(-rows % height, -columns % width).to(like.dtype)
        # The column of frequency 0, and that of width / 2, hold their own conjugates.
        alone = (2 * columns) % width == 0
        counts = band + mirrored.masked_fill(alone, 0)
        return counts[:, : width // 2 + 1] / band.sum()

    def _in_band(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Tell which of the coefficients at these places of the whole transform are in the band."""
        if self.band == "all":
            return torch.ones_like(rows, dtype=torch.bool)[:, None] & torch.ones_like(columns, dtype=torch.bool)
        if self.centred:
            rows, columns = (torch.minimum(index, -index % len(index)) for index in (rows, columns))
            low = (rows < self.cut)[:, None] & (columns < self.cut)
            return low if self.band == "low" else ~low
        rows_low, columns_low = rows < self.cut, columns < self.cut
        if self.band == "low":
            return rows_low[:, None] & columns_low
        return ~rows_low[:, None] & ~columns_low
