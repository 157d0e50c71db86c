"""Triplets whose order is known, as they were made so: a sanity check of losses and of the scorer, no human data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from losslab import images
from losslab.data.distortions import FAMILIES, LEVELS, blur, distorted, known
from losslab.data.judged import JudgedData, Triplets
from losslab.data.photos import PHOTOGRAPHS, Photos
from losslab.seeds import generator
from losslab.types import Bytes, Image

MADE = "made, not human"
"""What `facts` says of the judgements."""

SEEN = LEVELS[1:]
"""Strengths at which everyone sees a difference."""

DETAIL = 3 / 255
"""Root mean square of what a blur by a pixel takes off a crop at least: on a smoother one, few distortions show."""

SPLITS = ("train", "val")
"""Parts of the photographs; `Photos` gives them in this order."""

SPARE = 3
"""Crops that are cut for each one wanted, as some have less detail."""


class KnownOrder(JudgedData):
    """Triplets of a crop of a photograph and two strengths of one distortion, of which the weaker one counts as nearer.

    No person was asked. A loss far below a score of 1 in a family is broken or blind to it; one that reaches 1 may
    still disagree with people, who are asked across families too.

    Crops are those of `Photos` that have detail: of the val part of the photographs for the test, of the train part to
    train on, so that no pixel is in both. A crop is the reference of one triplet a family. Both candidates have the
    same noise, field or direction, at two levels that everyone sees. In half of a family's triplets the weaker one is
    p1, and the judge is 1; in the others it is p0, and the judge is 0.

    Args:
        size: side of the pictures in pixels; the strengths were chosen for 64.
        scales: sides of the crops in the photographs, in pixels, as in `Photos`.
        count: number of test triplets.
        train_count: number of triplets to train on.
        families: of `losslab.data.distortions.FAMILIES`; they are the subsets, and have the same number of triplets.
        crop_seed: of crops, distortions, levels and sides.
        batch_size: triplets a training step, over all devices, and triplets measured at a time.
        seed: of the order in which triplets are trained on.

    Raises:
        ValueError: no families, one twice or an unknown one, or fewer than one triplet a family.
    """

    def __init__(
        self,
        size: int = 64,
        scales: Sequence[int] = (64, 128, 256),
        count: int = 480,
        train_count: int = 960,
        families: Sequence[str] = tuple(FAMILIES),
        crop_seed: int = 0,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Keep the sizes."""
        super().__init__(batch_size, seed)
        self.size, self.scales, self.crop_seed, self.families = size, scales, crop_seed, known(families)
        self.counts = {"val": count, "train": train_count}
        if count < len(families):
            raise ValueError(f"data.count is at least one triplet a family, {len(families)}, got {count}")

    def load(self) -> Triplets:
        """Make the test triplets."""
        return self._triplets("val")

    def load_train(self) -> Triplets | None:
        """Make the triplets to train on."""
        return self._triplets("train") if self.counts["train"] else None

    def facts(self) -> dict[str, int | str]:
        """Say that the judgements are made."""
        return {**super().facts(), "judgements": MADE}

    def _triplets(self, split: str) -> Triplets:
        count, families = self.counts[split], self.families
        each = -(-count // len(families))
        crops = detailed_crops(self.size, self.scales, each, split, self.crop_seed)
        random = generator(self.crop_seed, 1 + SPLITS.index(split))
        first = torch.stack([torch.randperm(each, generator=random) % 2 for _ in families], 1).flatten()
        pictures, rows = Pictures(), []
        for number in range(count):
            crop, family = crops[number // len(families)], families[number % len(families)]
            weaker, stronger = torch.randperm(len(SEEN), generator=random)[:2].sort().values.tolist()
            made = copies(crop, family, (SEEN[weaker], SEEN[stronger]), random)
            both = made if first[number] else made[::-1]
            rows.append([pictures.add(one) for one in (crop, *both)])
        reference, p0, p1 = torch.tensor(rows).T
        judge = 1.0 - first[:count]
        subset = torch.arange(count) % len(families)
        return Triplets(pictures.stacked(), reference, p0, p1, judge, subset, families)


class Pictures:
    """A table of distinct pictures, filled one by one."""

    def __init__(self) -> None:
        """Begin with none."""
        self._places: dict[bytes, int] = {}
        self._held: list[Tensor] = []

    def add(self, picture: Bytes) -> int:
        """Give the picture's place in the table, a new one if it is not there yet."""
        place = self._places.setdefault(picture.numpy().tobytes(), len(self._held))
        if place == len(self._held):
            self._held.append(picture)
        return place

    def stacked(self) -> Bytes:
        """Give the table, (P, 3, H, W)."""
        return torch.stack(self._held)


def detailed_crops(size: int, scales: Sequence[int], count: int, split: str, crop_seed: int) -> Bytes:
    """Give crops of `Photos` in which a blur shows, (count, 3, size, size).

    Raises:
        ValueError: too few have detail.
    """
    wanted = dict.fromkeys(SPLITS, 0) | {split: SPARE * max(count, len(PHOTOGRAPHS))}
    data = Photos(size, scales, wanted["train"], wanted["val"], crop_seed)
    cut = data.load()[SPLITS.index(split)]
    found = cut[[detail(images.to_float(crop)) >= DETAIL for crop in cut]]
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {len(cut)} crops have detail, and {count} are wanted: other scales?")
    return found[:count]


def detail(crop: Image) -> float:
    """Give the root mean square of what a blur by a pixel takes off a crop."""
    return float((crop - blur(crop, 1.0, generator(0))).square().mean().sqrt())


def copies(crop: Bytes, family: str, levels: Sequence[str], random: torch.Generator) -> list[Bytes]:
    """Distort a crop at some levels, which differ in nothing but their strength."""
    state = int(torch.randint(2**31, (), generator=random))
    picture = images.to_float(crop)
    return [images.to_bytes(distorted(picture, family, level, generator(state))) for level in levels]
