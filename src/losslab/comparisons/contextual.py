"""Features compared by their best matches, wherever these are."""

import torch
from torch import Tensor
from torch.nn import functional

from losslab.checks import check_number, check_whole
from losslab.comparisons.base import Arranged, Comparison
from losslab.comparisons.pairs import Points, column_maxima, points, squared_distances
from losslab.types import Distance

DISTANCES = ("cosine", "l1", "l2")

LEAST_NORM = 1e-6
"""Norm at which features begin to count as faint: below it their direction is noise, and gradients have a bound."""


class Contextual(Comparison[Tensor]):
    """The contextual loss: how surely each place of the target is some place's clearly best match.

    Formula: -log(mean_j max_i CX_ij + floor), CX_ij = w_ij / Σ_k w_ik, w_ij = exp((1 - d_ij / (min_k d_ik + eps)) / h),
        with d_ij the distance of place i of a to place j of b.

    a is the image that is being made, b its target: the loss is not symmetric. It lies between -log(1 + floor) and
    log(places of b), and equal images have nearly the former: 1e-5 less than zero where all their places differ, and
    more where some are alike, up to log(places) for a flat map. Tables of all pairs are made a tile at a time, also
    on the way back, so that memory grows with the places and not with their square; work grows with the square.

    Args:
        bandwidth: h, more than 0: the smaller, the more the best match of a place takes all.
        distance: "cosine" is 1 - cosine, after the mean of b over its places is taken off both; "l2" is the sum over
            features of squared differences, "l1" that of their absolute values.
        max_places: maps of more places are halved by averages over 2×2 of them until they have no more, but two at
            least; None keeps all.
        eps: added to the least distance of a place; in the units of the distance.
        floor: added under the logarithm, from 0 to 1.

    Raises:
        ValueError: an unknown distance, or a number out of its range; features at one place only, which match whatever
            they are; or the cosine of features of one channel, which is their sign.

    Paper and code: The seed takes the mean of the targets of the *whole batch* off, so that a distance depends on its
        neighbours; here it is of each target, and a batch of one is the same. Its "l1" adds up differences before it
        takes their absolute value, its "l2" adds norms of one image to rows of the other: both are right here.
        It halves maps while they have 128² places or more, max_places 16383, which is the default. `floor` 1e-5 is the
        seed's and the default; the paper and its code have 0. The code of the paper takes half of the cosine distance,
        which is eps 2e-5 here. bandwidth is .5 in the seed's branch main, and .1 in master.

    Source: Mechrez et al., "The Contextual Loss for Image Transformation with Non-Aligned Data", ECCV 2018, section 3,
        and roimehrez/contextualLoss; contextual_loss of ariel415el/PerceptualLossExperiments, after
        S-aiueo32/contextual_loss_pytorch.

    Example:
        >>> x = torch.rand(2, 4, 8, 8, requires_grad=True)
        >>> cx = Contextual()
        >>> cx.compare(cx.encode(x), cx.encode(torch.rand(1, 4, 8, 8))).sum().backward()
    """

    def __init__(
        self,
        bandwidth: float = 0.5,
        distance: str = "cosine",
        max_places: int | None = 16383,
        eps: float = 1e-5,
        floor: float = 1e-5,
    ) -> None:
        """Check the numbers."""
        super().__init__()
        self.distance = checked(distance, bandwidth, max_places, eps, floor)
        self.bandwidth, self.max_places, self.eps, self.floor = bandwidth, max_places, eps, floor

    def settle(self, arranged: Arranged) -> Arranged:
        """Give the features at no more than `max_places` places.

        Means and norms wait for the pair: they cost next to nothing beside it, and would double what is kept.
        """
        check_channels(arranged, self.distance)
        kept = halved(arranged, self.max_places)
        check_places("contextual", arranged, kept)
        return kept

    def compare(self, a: Tensor, b: Tensor) -> Distance:
        """Give the loss of making a into b, for each pair, (*,)."""
        best = column_maxima(self._similarities, *sides(a, b, self.distance))
        return -(best.mean(-1) + self.floor).log()

    def _similarities(self, left: Tensor, right: Tensor, rows: Tensor) -> Tensor:
        return similarities(distances(left, right, self.distance), self.bandwidth, self.eps)


def checked(distance: str, bandwidth: float, max_places: int | None, eps: float, floor: float) -> str:
    """Give the distance if all numbers are in their ranges.

    Raises:
        ValueError: they are not.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance is one of {', '.join(DISTANCES)}, got {distance!r}")
    check_number("bandwidth", bandwidth, above=0)
    check_number("eps", eps, above=0)
    check_number("floor", floor, least=0, most=1)
    if max_places is not None:
        check_whole("max_places", max_places, 2)
    return distance


def check_channels(features: Arranged, distance: str) -> None:
    """Refuse features of which a cosine sees the sign alone.

    Raises:
        ValueError: they have one channel.
    """
    if distance == "cosine" and features.shape[-3] == 1:
        raise ValueError("the cosine of features of one channel is their sign: take distance=l1 or another layer")


def check_places(name: str, found: Arranged, kept: Arranged) -> None:
    """Refuse features at one place: it is the best match of every other, and the loss the same for any images.

    Raises:
        ValueError: the message says whether the layer or `max_places` is to blame.
    """
    if kept.shape[-2:].numel() > 1:
        return
    rows, columns = found.shape[-2:]
    cure = "layer nearer to the image, or larger images" if rows * columns == 1 else "larger max_places"
    raise ValueError(
        f"{name} looks for the best of several places, but one is left of features of {rows}×{columns}: give a {cure}"
    )


def halved(features: Arranged, max_places: int | None) -> Arranged:
    """Average over 2×2 places until there are no more than `max_places`; odd last rows and columns are dropped."""
    while max_places is not None and features.shape[-2:].numel() > max_places:
        window = tuple(min(2, side) for side in features.shape[-2:])
        flat = functional.avg_pool2d(features.flatten(0, -4) if features.ndim > 3 else features, window)
        features = flat.reshape(*features.shape[:-2], *flat.shape[-2:])
    return features


def sides(a: Arranged, b: Arranged, distance: str) -> tuple[Points, Points]:
    """Give points of a and b of which `distances` makes the distances of all pairs of places."""
    p, q = points(a), points(b)
    if distance == "l1":
        return p, q
    if distance == "l2":
        return squared_distances(p, q)
    middle = q.mean(-2, keepdim=True)
    p, q = _unit(p - middle), _unit(q - middle)
    return torch.cat([-p, torch.ones_like(p[..., :1])], dim=-1), torch.cat([q, torch.ones_like(q[..., :1])], dim=-1)


def distances(left: Points, right: Points, distance: str) -> Tensor:
    """Give the distance of each of the points `left` to each of the points `right`, 0 or more, (n, k, columns)."""
    if distance == "l1":
        return torch.cdist(left, right, p=1)
    return (left @ right.mT).clamp_min(0)


def similarities(distance: Tensor, bandwidth: float, eps: float) -> Tensor:
    """Give CX for rows of distances: how much nearer each point is than the others of its row, 1 in sum."""
    least = distance.amin(-1, keepdim=True)
    return (distance / (-bandwidth * (least + eps))).softmax(-1)


def _unit(vectors: Points) -> Points:
    return vectors / (vectors.square().sum(-1, keepdim=True) + LEAST_NORM**2).sqrt()
