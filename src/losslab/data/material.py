"""What people said of how alike materials look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.data.judged import JudgedData, Triplets
from losslab.data.pictures import PictureTable
from losslab.files import read_json
from losslab.images import SUFFIXES
from losslab.seeds import generator

FOLDER = "material_2afc"

PICTURES = 100
"""Of the set; an answer is a place in their sorted list, so that one picture less would move all others."""


class Material(JudgedData):
    """Human answers to "which of the two materials looks more like the reference?".

    Renderings of one shape under one light in 100 measured materials. It is about materials, and not BAPPS: a score on
    it is never to be reported as one on BAPPS. All triplets share the 100 pictures, so that an interval over triplets
    alone is too narrow.

    The source lists the majority's choice first. Here a seed says which choice is p0.

    Args:
        root: the folder `material_2afc`, or the one that has it.
        split: "train" (22,801 triplets) or "test" (3,000).
        with_ties: whether triplets count on which people were divided equally.
        sides_seed: of which choice is p0.
        size: side of the pictures in pixels, which are 298×298.
        antialias: how they get there, see `PictureTable`.
        cache: folder where the decoded pictures are kept; None decodes them each time.
        batch_size: triplets measured at a time.
        seed: of an order that this set, which trains nothing, has no use for.

    Raises:
        ValueError: unknown option; no such folder; pictures or answers that are not those of the set.

    Source: Lagunas et al., A Similarity Measure for Material Appearance, SIGGRAPH 2019, section 3;
        mlagunas/material-appearance-similarity, data/answers_processed_*.json.
    """

    SPLITS = ("train", "test")

    def __init__(
        self,
        root: str | Path | None,
        split: str = "train",
        *,
        with_ties: bool = True,
        sides_seed: int = 0,
        size: int = 64,
        antialias: bool = True,
        cache: str | Path | None = None,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Check the options."""
        super().__init__(batch_size, seed)
        if split not in self.SPLITS:
            raise ValueError(f"data.split is one of {', '.join(self.SPLITS)}, got {split!r}")
        self.root, self.split, self.with_ties, self.sides_seed = root, split, with_ties, sides_seed
        self.table = PictureTable(size, antialias, cache)

    def load(self) -> Triplets:
        """Read the pictures and the answers."""
        answers, votes = self._answers()
        swap = torch.rand(len(answers), generator=generator(self.sides_seed)) < 0.5
        pictures, places = self.table.read(self._pictures())
        reference, chosen, other = places[answers].unbind(1)
        share = votes.float() / votes.sum(1, keepdim=True)
        return Triplets(
            pictures=pictures,
            reference=reference,
            p0=torch.where(swap, other, chosen),
            p1=torch.where(swap, chosen, other),
            judge=torch.where(swap, share[:, 0], share[:, 1]),
            subset=torch.zeros(len(answers), dtype=torch.long),
            subsets=("material",),
            votes=votes.sum(1),
        )

    def files(self) -> list[Path]:
        """List the answers and the pictures."""
        return [self._file(), *self._pictures()]

    def _home(self) -> Path:
        if self.root is None:
            raise ValueError(
                f"data.root is the folder {FOLDER} or the one that has it; without it, set LOSSLAB_DATA to the latter"
            )
        root = Path(self.root).expanduser()
        for home in (root / FOLDER, root):
            if (home / "images").is_dir():
                return home
        raise ValueError(f"data.root={root} has no folder {FOLDER} with images in it: see docs/data.md")

    def _file(self) -> Path:
        return self._home() / f"answers_processed_{self.split}.json"

    def _pictures(self) -> list[Path]:
        folder = self._home() / "images"
        found = sorted(
            (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=lambda path: path.name
        )
        if len(found) != PICTURES:
            raise ValueError(f"{folder} has {len(found)} pictures, expected the {PICTURES} of the set")
        return found

    def _answers(self) -> tuple[Tensor, Tensor]:
        file = self._file()
        if not file.is_file():
            there = sorted(path.name for path in file.parent.glob("answers_processed_*.json"))
            raise ValueError(
                f"data.split={self.split} needs {file}; there {'is ' + ', '.join(there) if there else 'is none'}"
            )
        held = read_json(file)
        ties = "" if self.with_ties else "_diff"
        answers, votes = (_table(held, f"{name}{ties}", file) for name in ("answers", "agreement"))
        if answers.shape[1:] != (3,) or votes.shape != (len(answers), 2):
            raise ValueError(
                f"{file}: {tuple(answers.shape)} answers and {tuple(votes.shape)} votes don't fit together"
            )
        if (
            not len(answers)
            or answers.min() < 0
            or answers.max() >= PICTURES
            or votes.min() < 0
            or not votes.sum(1).all()
        ):
            raise ValueError(f"{file} has places outside the {PICTURES} pictures, or triplets that nobody judged")
        return answers, votes


def _table(held: dict[str, Any], name: str, file: Path) -> Tensor:
    rows: Sequence[Sequence[int]] | None = held.get(name)
    try:
        found = torch.tensor(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file}: {name!r} is no table of whole numbers: {error}") from error
    if found.dtype != torch.int64 or found.ndim != 2:
        raise ValueError(f"{file}: {name!r} is no table of whole numbers")
    return found
