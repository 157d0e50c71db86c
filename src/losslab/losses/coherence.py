"""Patch coherence: how far each patch of an image is from its best match in another, after GPNN."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from losslab.images import SIGNED
from losslab.losses.base import Loss
from losslab.types import Distance, Image

# Distances that are held at a time, of all pairs together. A CPU keeps 2 MB in its cache, other devices want more work.
TILE = {True: 2**19, False: 2**25}


class PatchCoherence(Loss[Tensor]):
    """Mean distance of each patch of x to its best match in y, where patches of y that x lacks are favoured.

    Formula: mean_i min_j D_ij / (alpha + min_l D_lj), where D_ij is the mean squared difference of patch i of x and
        patch j of y, images taken in [-1, 1].

    The divisor is small for a patch of y that x already has, so that others win its place (GPNN's completeness). x is
    the candidate and y the reference: the loss is not symmetric. The gradient is exact and reaches the divisor too.
    Both matches are sought in tiles, so that memory grows with the patches of an image, not with their square;
    work grows with the square.

    Args:
        patch_size: side of a patch in pixels.
        stride: step from patch to patch in pixels.
        alpha: in mean squared differences of images in [-1, 1], more than 0; the smaller, the more completeness counts.

    Raises:
        ValueError: a size, stride or alpha out of its range.

    Paper and code: GPNN searches with this score from the coarse scale to the fine one, and moves patches.
        PatchCoherentLoss makes a loss of it at one scale, as here; its alpha of 0.05 is the default.

    Source: Granot et al., "Drop the GAN: In Defense of Patches Nearest Neighbors as Single Image Generative Models",
        CVPR 2022, the normalised scores; PatchCoherentLoss of ariel415el/PerceptualLossExperiments, branch master.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> PatchCoherence()(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    own_axes = 2

    def __init__(self, patch_size: int = 7, stride: int = 1, alpha: float = 0.05) -> None:
        """Check the numbers."""
        super().__init__()
        if patch_size < 1 or stride < 1:
            raise ValueError(f"patch_size and stride are 1 or more pixels, got {patch_size} and {stride}")
        if alpha <= 0:
            raise ValueError(f"alpha is more than 0, got {alpha}")
        self.patch_size, self.stride, self.alpha = patch_size, stride, alpha
        self.min_side = patch_size

    def embed(self, images: Image) -> Float[Tensor, "*#batch patches values"]:
        """List the patches of each image."""
        batch = SIGNED * images.reshape(-1, *images.shape[-3:])  # the shift of [-1, 1] drops out of differences
        patches = functional.unfold(batch, self.patch_size, stride=self.stride).mT.contiguous()
        return patches.reshape(*images.shape[:-3], *patches.shape[1:])

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Distance]:
        """Give the mean normalised distance of a's patches to their matches in b, (*,)."""
        match, rival = self._search(a.detach(), b.detach())
        matches = _rows(b, match)
        distance = (a - matches).square().mean(-1)
        least = (_rows(a, rival) - matches).square().mean(-1)
        return {self.name: (distance / (self.alpha + least)).mean(-1)}

    @torch.no_grad()
    def _search(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Find the match in b of each patch of a, and the patch of a nearest to that match, (*, patches) each."""
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        owners = [_owners(one).expand(lead).reshape(-1) for one in (a, b)]
        flat = [one.reshape(-1, *one.shape[-2:]) for one in (a, b)]
        tile = TILE[a.device.type == "cpu"]
        patches = a.shape[-2]
        columns = min(max(tile // patches, 16), patches)  # fewer would leave no work for a matrix product
        pairs = max(tile // (patches * columns), 1)
        chunks = zip(*(one.split(pairs) for one in owners), strict=True)
        found = [_best(flat[0][i], flat[1][j], self.alpha, columns) for i, j in chunks]
        match, rival = (torch.cat(kind).reshape(*lead, patches) for kind in zip(*found, strict=True))
        return match, rival


def _best(
    a: Float[Tensor, "pairs patches values"], b: Float[Tensor, "pairs patches values"], alpha: float, columns: int
) -> tuple[Int[Tensor, "pairs patches"], Int[Tensor, "pairs patches"]]:
    """Run through tiles of `columns` patches of b and all patches of a."""
    score = a.new_full(a.shape[:-1], torch.inf)
    match = torch.zeros(a.shape[:-1], dtype=torch.long, device=a.device)
    nearest: list[Tensor] = []
    for start, distances in _tiles(a, b, columns):
        least, where = distances.min(-1)
        nearest.append(where)
        best, column = distances.div_((least + alpha).unsqueeze(-1)).min(-2)
        match = torch.where(best < score, column + start, match)
        score = torch.minimum(best, score)
    return match, torch.cat(nearest, dim=-1).gather(-1, match)


def _tiles(a: Tensor, b: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Give the mean squared differences of some patches of b, from `start` on, and all of a."""
    middle = b.mean(dim=(-2, -1), keepdim=True)  # the smaller the norms, the fewer digits their difference loses
    p, q = (a - middle) / a.shape[-1] ** 0.5, (b - middle) / a.shape[-1] ** 0.5
    one = torch.ones_like(p[..., :1])
    # |p - q|² as one product of rows: (-2q, 1, |q|²) · (p, |p|², 1)
    left = torch.cat([-2 * q, one, q.square().sum(-1, keepdim=True)], dim=-1)
    right = torch.cat([p, p.square().sum(-1, keepdim=True), one], dim=-1).mT
    for index, some in enumerate(left.split(columns, dim=-2)):
        yield index * columns, some @ right


def _owners(patches: Tensor) -> Tensor:
    """Count the images of an encoding along its batch axes."""
    lead = patches.shape[:-2]
    return torch.arange(lead.numel(), device=patches.device).reshape(lead)


def _rows(patches: Tensor, chosen: Tensor) -> Tensor:
    """Pick patches by their number in their own image; the batch axes broadcast without a copy of all patches."""
    rows = _owners(patches).unsqueeze(-1) * patches.shape[-2] + chosen
    return functional.embedding(rows, patches.reshape(-1, patches.shape[-1]))
