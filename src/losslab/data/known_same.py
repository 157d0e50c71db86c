"""Pairs that nobody can, or nobody can fail to, tell apart, as they were made so: a sanity check, no human data."""

from collections.abc import Sequence

import torch

from losslab.data.distortions import FAMILIES, LEVELS, known
from losslab.data.judged import JudgedData, Pairs
from losslab.data.known_order import MADE, Pictures, copies, detailed_crops
from losslab.seeds import generator

UNSEEN, SEEN = LEVELS[0], LEVELS[2:]
"""Strengths at which nobody sees a difference, and at which it is not to be missed; what lies between is left out."""


class KnownSame(JudgedData):
    """Pairs of a crop of a photograph and a distorted copy of it, that no eye tells apart or every eye does.

    No person was asked. Half of the pairs differ by less than about one of the 256 steps of a value (`same` is 1), the
    others clearly, by one of three strengths (`same` is 0). People's just noticeable differences lie between the two,
    so that a loss with the average precision 1 may still disagree with them; one far below it takes what nobody
    sees in one family for more than what everyone sees in another.

    Crops are those of the test of `KnownOrder`; a crop is in two pairs a family, one of each kind.

    Args:
        size: side of the pictures in pixels; the strengths were chosen for 64.
        scales: sides of the crops in the photographs, in pixels, as in `Photos`.
        count: number of pairs.
        families: of `losslab.data.distortions.FAMILIES`; they are the subsets. `superres` leaves an unseen copy as it
            is.
        crop_seed: of crops, distortions and levels.
        batch_size: pairs measured at a time.
        seed: changes nothing, as nothing is trained on pairs.

    Raises:
        ValueError: no families, one twice or an unknown one, or fewer than two pairs a family.
    """

    def __init__(
        self,
        size: int = 64,
        scales: Sequence[int] = (64, 128, 256),
        count: int = 480,
        families: Sequence[str] = tuple(FAMILIES),
        crop_seed: int = 0,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Keep the sizes."""
        super().__init__(batch_size, seed)
        self.size, self.scales, self.crop_seed, self.families = size, scales, crop_seed, known(families)
        self.count = count
        if count < 2 * len(families):
            raise ValueError(f"data.count is at least two pairs a family, {2 * len(families)}, got {count}")

    def load(self) -> Pairs:
        """Make the pairs."""
        families, count = self.families, self.count
        kinds = 2 * len(families)  # of pairs of one crop
        crops = detailed_crops(self.size, self.scales, -(-count // kinds), "val", self.crop_seed)
        random = generator(self.crop_seed)
        pictures, rows = Pictures(), []
        for number in range(count):
            crop, family = crops[number // kinds], families[number % len(families)]
            seen = SEEN[int(torch.randint(len(SEEN), (), generator=random))]
            level = UNSEEN if number % kinds < len(families) else seen
            rows.append([pictures.add(one) for one in (crop, *copies(crop, family, [level], random))])
        p0, p1 = torch.tensor(rows).T
        numbers = torch.arange(count)
        same = (numbers % kinds < len(families)).float()
        return Pairs(pictures.stacked(), p0, p1, same, numbers % len(families), families)

    def facts(self) -> dict[str, int | str]:
        """Say that the judgements are made."""
        return {**super().facts(), "judgements": MADE}
