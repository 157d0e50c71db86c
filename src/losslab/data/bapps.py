"""BAPPS: what people said of patches with distortions, the yardstick of perceptual distances."""

from collections.abc import Sequence
from pathlib import Path

import torch

from losslab.data.bapps_download import MIRRORS, Place
from losslab.data.bapps_files import JND, TRAIN, VAL, Listed, check_subsets
from losslab.data.judged import JudgedData, Pairs, Triplets
from losslab.data.pictures import PictureTable


class Bapps(JudgedData):
    """The triplets of BAPPS: which of two distorted patches is nearer to the original?

    Losses are judged on `2afc/val`, with five answers to each triplet; metrics are trained on `2afc/train`, with two.
    Files belong together by their names. All are checked before one is decoded.

    Args:
        root: the folder that has `2afc`, or the one that has `dataset/2afc`.
        subsets: of val that losses are judged on.
        train_subsets: of train that metrics are trained on; none reads no training data.
        size: side of the patches in pixels; the files have 256, blown up from 64.
        antialias: how they get there, see `PictureTable`.
        download: whether parts that are not there are fetched.
        mirrors: where from, in the order in which they are tried: folders on the web, or kaggle:owner/name.
        cache: folder where the decoded pictures are kept; None decodes them each time.
        batch_size: triplets a training step, over all devices, and triplets measured at a time.
        seed: of the order in training.

    Raises:
        ValueError: unknown subsets; a part is not there, or files of it are missing, too many, or no judgements.
        UnreadableImageError: pictures can't be read.
        DownloadError: the download was asked for, and no mirror gave it.

    Paper and code: the original pairs files by their place in sorted lists, so that one that is missing shifts all
        labels behind it. Here they pair by name, and one that is missing is an error.

    Source: Zhang et al., CVPR 2018, section 2; data/dataset/twoafc_dataset.py of richzhang/PerceptualSimilarity.
    """

    def __init__(
        self,
        root: str | Path,
        subsets: Sequence[str] = tuple(VAL.subsets),
        train_subsets: Sequence[str] = (),
        size: int = 64,
        *,
        antialias: bool = True,
        download: bool = False,
        mirrors: Sequence[str] = MIRRORS,
        cache: str | Path | None = None,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Check the options."""
        super().__init__(batch_size, seed)
        self.subsets = check_subsets(VAL, subsets)
        self.train_subsets = check_subsets(TRAIN, train_subsets, "train_subsets") if train_subsets else ()
        self.place = Place(root, mirrors, download=download)
        self.table = PictureTable(size, antialias, cache)

    def load(self) -> Triplets:
        """Read the triplets of val."""
        return _triplets(self.place.listed(VAL, self.subsets), self.table)

    def load_train(self) -> Triplets | None:
        """Read the triplets of train, where subsets of it were chosen."""
        return _triplets(self.place.listed(TRAIN, self.train_subsets), self.table) if self.train_subsets else None

    def files(self) -> list[Path]:
        """List all labels and pictures."""
        self.place.listed(VAL, self.subsets)
        if self.train_subsets:
            self.place.listed(TRAIN, self.train_subsets)
        return self.place.files()

    def facts(self) -> dict[str, int | str]:
        """Tell what a result row should tell of the data, and where they differ from what is known of BAPPS."""
        return super().facts() | self.place.facts()


class BappsJND(JudgedData):
    """The pairs of BAPPS: are the two patches, shown one after the other for a second each, the same?

    Three people answered for each pair.

    Args:
        root: the folder that has `jnd`, or the one that has `dataset/jnd`.
        subsets: of the pairs.
        size: as `Bapps` has it.
        antialias: as `Bapps` has it.
        download: as `Bapps` has it.
        mirrors: as `Bapps` has them.
        cache: as `Bapps` has it.
        batch_size: half of the pairs measured at a time.
        seed: of an order in training, which these pairs have none of.

    Raises:
        ValueError: as `Bapps` has it.
        UnreadableImageError: as `Bapps` has it.
        DownloadError: as `Bapps` has it.

    Source: Zhang et al., CVPR 2018, section 2.3; data/dataset/jnd_dataset.py of richzhang/PerceptualSimilarity.
    """

    def __init__(
        self,
        root: str | Path,
        subsets: Sequence[str] = tuple(JND.subsets),
        size: int = 64,
        *,
        antialias: bool = True,
        download: bool = False,
        mirrors: Sequence[str] = MIRRORS,
        cache: str | Path | None = None,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        """Check the options."""
        super().__init__(batch_size, seed)
        self.subsets = check_subsets(JND, subsets)
        self.place = Place(root, mirrors, download=download)
        self.table = PictureTable(size, antialias, cache)

    def load(self) -> Pairs:
        """Read the pairs."""
        held = self.place.listed(JND, self.subsets)
        same = held.shares()
        pictures, places = self.table.read(held.pictures)
        p0, p1 = places.view(-1, 2).unbind(1)
        return Pairs(pictures, p0, p1, same, held.subset(), self.subsets)

    def files(self) -> list[Path]:
        """List all labels and pictures."""
        self.place.listed(JND, self.subsets)
        return self.place.files()

    def facts(self) -> dict[str, int | str]:
        """Tell what a result row should tell of the data, and where they differ from what is known of BAPPS."""
        return super().facts() | self.place.facts()


def _triplets(held: Listed, table: PictureTable) -> Triplets:
    judge = held.shares()  # checked before pictures are decoded
    pictures, places = table.read(held.pictures)
    reference, p0, p1 = places.view(-1, 3).unbind(1)
    votes = torch.full((len(judge),), held.part.votes)
    return Triplets(pictures, reference, p0, p1, judge, held.subset(), tuple(held.counts), votes)
