"""Sets of similar images: a picture and its nearest ones, under a loss or in the codes of a trained GLO."""

import pickle
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from losslab.data.base import ImageData
from losslab.data.sets import ImageSets, SetData, gathered
from losslab.images import to_float
from losslab.seeds import generator
from losslab.types import Bytes, Encoding, map_encoding

AT_ONCE = 32
"""Pictures that are encoded at a time."""


@runtime_checkable
class Near(Protocol):
    """What says which pictures are near: a loss, of which this part of the package needs no more."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    def draw(self, step: int) -> None:
        """Set what is random in it."""
        ...

    def encode(self, images: Tensor) -> Any:
        """Do the work that needs one image only."""
        ...

    def compare(self, a: Any, b: Any) -> Tensor:
        """Give the distances of encodings, one against N."""
        ...


class Neighbours(SetData):
    """Sets of some pictures of a data set, each with those that are nearest to it.

    The training pictures of the data set are searched, all of them: each is encoded once and compared with each query.
    A set begins with its query; the others follow by their distance, and of equal ones the first in the data.

    Args:
        pictures: the data set.
        near: a loss, by whose distance from the query to a picture is searched, in its first draw.
        codes: instead of it, the checkpoint of a GLO that was trained on these very data: the distance is L2 between
            codes. That they belong together is only known by their number.
        count: number of sets.
        neighbours: pictures in a set, with the query.
        queries: numbers of the queries in the data; None: `count` drawn ones.
        query_seed: of drawn queries.
        weights: as in `SetData`.

    Raises:
        ValueError: both or neither of `near` and `codes`; a number that is out of range; a checkpoint that is none, or
            has codes of other data; a distance that is no number.

    Source: sample_latent_neighbors of ariel415el/PerceptualLossExperiments: 32 nearest by L2, in the codes of an
        auto-encoder of faces.
    """

    def __init__(
        self,
        pictures: ImageData,
        near: Near | None = None,
        codes: str | Path | None = None,
        count: int = 6,
        neighbours: int = 8,
        queries: Sequence[int] | None = None,
        query_seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Check what can be known before the pictures are read."""
        super().__init__(weights)
        if (near is None) == (codes is None):
            raise ValueError(
                "pictures are near by data.near or in data.codes: give one of them, and null for the other"
            )
        if min(count, neighbours) < 1:
            raise ValueError(f"data.count and data.neighbours are from 1, got {count} and {neighbours}")
        self.pictures, self.near = pictures, near
        self.codes = None if codes is None else Path(str(codes)).expanduser()
        self.count, self.neighbours, self.queries, self.query_seed = count, neighbours, queries, query_seed

    @torch.no_grad()
    def load(self) -> ImageSets:
        """Search."""
        stored = self._stored()
        if self.neighbours > len(stored):
            raise ValueError(f"data.neighbours={self.neighbours}, and there are {len(stored)} pictures")
        queries = self._chosen(len(stored))
        found = self._by_codes(queries, len(stored)) if self.near is None else by_loss(self.near, stored, queries)
        found[torch.arange(len(queries)), queries] = -torch.inf  # some losses have a picture nearer than itself
        order = found.argsort(dim=1, stable=True)[:, : self.neighbours]
        return gathered(
            [(f"picture {query}", stored[near]) for query, near in zip(queries.tolist(), order, strict=True)]
        )

    def files(self) -> list[Path]:
        """List the files of the data set, and the checkpoint."""
        return [*self.pictures.files(), *([] if self.codes is None else [_there(self.codes)])]

    def facts(self) -> dict[str, int]:
        """Count sets and their pictures, and what the data set counts."""
        return super().facts() | self.pictures.facts()

    def _stored(self) -> Bytes:
        self.pictures.setup()
        assert self.pictures.train is not None
        return self.pictures.train.stored

    def _chosen(self, there: int) -> Int[Tensor, " queries"]:
        if self.queries is None:
            if self.count > there:
                raise ValueError(f"data.count={self.count}, and there are {there} pictures")
            return torch.randperm(there, generator=generator(self.query_seed))[: self.count].sort().values
        wrong = [one for one in self.queries if not 0 <= one < there]
        if wrong or not self.queries or len({*self.queries}) < len(self.queries):
            raise ValueError(f"data.queries are distinct numbers from 0 to {there - 1}, got {[*self.queries]}")
        return torch.tensor([*self.queries])

    def _by_codes(self, queries: Tensor, there: int) -> Float[Tensor, "queries pictures"]:
        assert self.codes is not None
        codes = read_codes(self.codes)
        if len(codes) != there:
            raise ValueError(
                f"{self.codes} has {len(codes)} codes, and data.pictures {there} training pictures: give the data that "
                "this GLO was trained on"
            )
        return torch.stack([(codes - codes[query]).norm(dim=1) for query in queries])


def by_loss(near: Near, stored: Bytes, queries: Int[Tensor, " queries"]) -> Float[Tensor, "queries pictures"]:
    """Give the distance from each query to each picture; a picture is encoded once.

    Args:
        near: the loss.
        stored: pictures, (N, 3, H, W).
        queries: numbers of some of them.

    Raises:
        ValueError: a distance is no number.
    """
    near.draw(0)
    asked = [*_encoded(near, stored, queries)]
    ones = [_one(made, at) for some, made in asked for at in range(len(some))]
    others = torch.ones(len(stored), dtype=torch.bool)
    others[queries] = False
    found = torch.empty(len(queries), len(stored))
    for some, made in chain(asked, _encoded(near, stored, others.nonzero().flatten())):
        for row, one in zip(found, ones, strict=True):
            row[some] = near.compare(one, made).to(row)
    if found.isnan().any():
        bad = found.isnan().nonzero()[0].tolist()
        raise ValueError(f"{near.name} from picture {int(queries[bad[0]])} to {bad[1]} is no number: take another loss")
    return found


def _one(made: Encoding, at: int) -> Encoding:
    return map_encoding(lambda leaf: leaf[at : at + 1], made)


def _encoded(near: Near, stored: Bytes, which: Tensor) -> Iterator[tuple[Tensor, Encoding]]:
    """Encode some pictures, a few at a time."""
    for some in which.split(AT_ONCE):
        if len(some):
            yield some, near.encode(to_float(stored[some]))


def read_codes(path: Path) -> Float[Tensor, "codes size"]:
    """Read the codes, one an image, from a checkpoint of task=glo.

    Raises:
        ValueError: there is no such file, or it holds no codes.
    """
    try:
        codes: Tensor = torch.load(_there(path), map_location="cpu", weights_only=True)["state_dict"]["codes"]
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is no whole checkpoint of task=glo ({type(error).__name__})") from error
    return codes.float()


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"data.codes={path} is no file: a GLO cell has it as checkpoints/last.ckpt")
    return path
