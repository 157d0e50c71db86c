"""Sliced Wasserstein distance (SWD) between the patches of two images."""

import torch
from torch import Tensor
from torch.nn import functional

from losslab.comparisons.sort import ascending
from losslab.differences import NORMS, differences
from losslab.images import SIGNED
from losslab.losses.base import Loss, same_draw
from losslab.losses.patches import check_mean, without_mean
from losslab.seeds import Draws
from losslab.types import Distance, Drawn, Image

# The map of a chunk of projections is sorted while it is in the cache; devices without such a cache want more work.
DIRECTIONS_A_CHUNK = {True: 16, False: 128}


class PatchSWD(Loss[Drawn[Tensor]]):
    """Sliced Wasserstein distance between the sets of patches of two images.

    Formula: mean over directions k and ranks r of |sort_r(θ_k · p_i(x)) - sort_r(θ_k · p_i(y))|, the patches p_i of one
        image sorted by their projection; images taken in [-1, 1], |θ_k| = 1. With norm="l2" it has the
        squares of these differences instead, which is the squared distance W2².

    It sees which patches an image has, not where. The directions are uniform on the sphere, one fixed draw of the seed
    by default; `redraw_every=k` draws new ones every k steps. The gradient holds for the order that the patches have.

    Args:
        patch_size: side of a patch in pixels.
        stride: step from patch to patch in pixels.
        directions: number of projections; the error of the loss falls as 1/√directions.
        norm: "l1" for W1, "l2" for W2².
        remove_mean: true takes off each channel of a patch its own mean, "patch" off all channels one mean; taking it
            off each direction is the same.
        pad: reflect patch_size // 2 pixels at the border, so that its pixels lie in as many patches as others.
        seed: of the directions.
        redraw_every: steps between two draws; 0 keeps the first one.

    Raises:
        ValueError: an unknown norm, a number out of its range, or a patch of which its mean leaves nothing.

    Paper and code: PatchSWDLoss divides each direction by the standard deviation of its entries, which leaves a length
        of √d for d = 3 · patch_size² entries: multiply W1 by √d, W2² by d, for its numbers. GPDM has unit length, as
        here. GPDM also sorts the patches of the whole batch together; each image has its own distance here.
        Both draw new directions at each call, so that two distances are measured with different rulers.
        normalize_patch="channel_mean" of PatchSWDLoss takes the mean of *all* patches of the batch off each channel:
        one shift of colour, after which patches keep their means. `remove_mean` means what its name says.

    Source: PatchSWDLoss of ariel415el/PerceptualLossExperiments; Elnekave and Weiss, "Generating Natural Images with
        Direct Patch Distributions Matching" (GPDM), ECCV 2022.

    Example:
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> PatchSWD(directions=64)(x, torch.rand(1, 3, 32, 32)).sum().backward()
    """

    own_axes = 2

    filters: Tensor

    def __init__(
        self,
        patch_size: int = 7,
        stride: int = 1,
        directions: int = 256,
        norm: str = "l1",
        *,
        remove_mean: bool | str = False,
        pad: bool = False,
        seed: int = 0,
        redraw_every: int = 0,
    ) -> None:
        """Check the sizes and make the first draw."""
        super().__init__()
        if min(patch_size, stride, directions) < 1:
            sizes = f"{patch_size}, {stride} and {directions}"
            raise ValueError(f"patch_size, stride and directions are 1 or more, got {sizes}")
        check_mean(patch_size, remove_mean=remove_mean)
        if norm not in NORMS:
            raise ValueError(f"norm is {' or '.join(map(repr, NORMS))}, got {norm!r}")
        self.patch_size, self.stride, self.norm, self.remove_mean = patch_size, stride, norm, remove_mean
        self.border = patch_size // 2 if pad else 0
        self.min_side = self.border + 1 if pad else patch_size
        self.draws = Draws(seed, redraw_every)
        self.register_buffer("filters", torch.empty(directions, 3, patch_size, patch_size), persistent=False)
        self.draw(0)

    def draw(self, step: int) -> None:
        """Draw the directions of `step`, where `redraw_every` says that new ones are due."""
        random = self.draws.due(step)
        if random is None:
            return
        filters = torch.randn(self.filters.shape, generator=random)
        filters /= filters.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        filters = without_mean(filters, remove_mean=self.remove_mean)
        # The shift of [-1, 1] drops out of differences; a new tensor, since a backward pass may need the old one.
        self.filters = (SIGNED * filters).to(self.filters)

    def embed(self, images: Image) -> Drawn[Tensor]:
        """Give the sorted projections, (*, directions, patches)."""
        if images.shape[-3] != 3:
            raise ValueError(f"{self.name} needs images of 3 channels, got {images.shape[-3]}")
        batch = images.reshape(-1, *images.shape[-3:])
        if self.border:
            batch = functional.pad(batch, (self.border,) * 4, mode="reflect")
        chunks = self.filters.split(DIRECTIONS_A_CHUNK[images.device.type == "cpu"])
        projections = (functional.conv2d(batch, chunk, stride=self.stride).flatten(-2) for chunk in chunks)
        ordered = torch.cat([ascending(one) for one in projections], dim=1)
        kind = f"directions {tuple(self.filters.shape)}, mean removed: {self.remove_mean}, border {self.border}"
        draw = f"{kind}, stride {self.stride}, {self.draws}"
        return Drawn(ordered.reshape(*images.shape[:-3], *ordered.shape[1:]), draw)

    def terms(self, a: Drawn[Tensor], b: Drawn[Tensor]) -> dict[str, Distance]:
        """Give the mean difference of the sorted projections of each pair, (*,).

        Raises:
            ValueError: the encodings were made under different draws.
        """
        p, q = same_draw(a, b)
        return {self.name: differences(p, q, self.norm).mean(dim=(-2, -1))}
