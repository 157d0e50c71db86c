"""From two distances to the share of people who find the second picture nearer: what metrics are trained through."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losslab.seeds import generator
from losslab.types import Distance

WIDTH = 32
"""Of the hidden layers: Dist2LogitLayer of richzhang/PerceptualSimilarity."""

SLOPE = 0.2
"""Of its leaky ReLUs."""

MARGIN = 0.1
"""What it adds to a distance that divides."""


class Ranking(nn.Module, ABC):
    """Foretells people's judgement from two distances of a triplet; it is thrown away when the metric is trained."""

    @abstractmethod
    def forward(self, d0: Distance, d1: Distance) -> Float[Tensor, "*#batch"]:
        """Give the logit of the share that finds p1 nearer: above 0 where that is the majority.

        Args:
            d0: distances of reference and p0, (*,).
            d1: of reference and p1, (*,).
        """


class LargeRanking(Ranking):
    """Three layers on the two distances, their difference and their ratios.

    Formula: f(d0, d1, d0 - d1, d0 / (d1 + 0.1), d1 / (d0 + 0.1)), f: 5 → 32 → 32 → 1 with leaky ReLUs of slope 0.2.

    Source: Zhang et al., CVPR 2018, section 3 and appendix; Dist2LogitLayer of richzhang/PerceptualSimilarity.

    Example:
        >>> LargeRanking()(torch.rand(4), torch.rand(4)).shape
        torch.Size([4])
    """

    def __init__(self) -> None:
        """Begin as torch's layers do."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, WIDTH), nn.LeakyReLU(SLOPE), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(SLOPE), nn.Linear(WIDTH, 1)
        )

    def forward(self, d0: Distance, d1: Distance) -> Float[Tensor, "*#batch"]:
        """Give the logit."""
        seen = [d0, d1, d0 - d1, d0 / (d1 + MARGIN), d1 / (d0 + MARGIN)]
        return self.layers(torch.stack(seen, -1)).squeeze(-1)


class SmallRanking(Ranking):
    """One layer on the two distances.

    Formula: a d0 + b d1 + c.

    Source: `logit=small` of LTU-Machine-Learning/Analysis-of-Deep-Perceptual-Loss-Networks.
    """

    def __init__(self) -> None:
        """Begin as torch's layer does."""
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, d0: Distance, d1: Distance) -> Float[Tensor, "*#batch"]:
        """Give the logit."""
        return self.layer(torch.stack([d0, d1], -1)).squeeze(-1)


class NoRanking(Ranking):
    """The difference of the distances itself.

    Formula: d0 - d1.

    Source: `logit=none` of LTU-Machine-Learning/Analysis-of-Deep-Perceptual-Loss-Networks.

    Example:
        >>> NoRanking()(torch.tensor([0.75]), torch.tensor([0.5]))
        tensor([0.2500])
    """

    def forward(self, d0: Distance, d1: Distance) -> Float[Tensor, "*#batch"]:
        """Give the logit."""
        return d0 - d1


RANKINGS: dict[str, type[Ranking]] = {"large": LargeRanking, "small": SmallRanking, "none": NoRanking}


def make_ranking(name: str, seed: int) -> Ranking:
    """Make a ranking net whose start is a function of the seed alone.

    Args:
        name: "large", "small" or "none".
        seed: of the start.

    Raises:
        ValueError: another name.

    Paper and code: the paper describes the large one; its code ends in a sigmoid and takes the cross-entropy of that,
        whose logarithm it bounds at -100. Ours gives the logit, from which the same number has a gradient everywhere.
        The study's option with the two smaller ones is not in its paper. A net that may learn any order of its
        distances can learn the wrong one, "small" with one unlucky sign; see `sync` of the task.
    """
    if name not in RANKINGS:
        raise ValueError(f"task.ranking is one of {', '.join(RANKINGS)}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed).initial_seed())
        return RANKINGS[name]()
