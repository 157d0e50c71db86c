"""Distances of pairs out of a table are those of the pictures one by one, however few encodings can be held."""

import pytest
import torch
from torch import Tensor

from losslab.config import build, load, plain
from losslab.data.tiles import tiles
from losslab.images import to_float
from losslab.losses.base import Loss
from losslab.losses.pairs import PairDistances
from losslab.losses.panel import Panel
from losslab.losses.pixel import L1
from losslab.types import Bytes, Drawn, Image

CPU = torch.device("cpu")


class Counting(Loss[Tensor]):
    """L1, doubled where the second image is brighter; counts the images that it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def embed(self, images: Image) -> Tensor:
        self.seen += images[..., 0, 0, 0].flatten().tolist()
        return images

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        difference = (a - b).mean((-3, -2, -1))
        return {"": difference.abs() * (1 + (difference < 0))}


@pytest.fixture
def pictures() -> Bytes:
    """Twelve flat pictures, each of another brightness."""
    return torch.arange(0, 240, 20, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


def slowly(panel: Panel, pictures: Bytes, pairs: Tensor) -> Tensor:
    found = [panel.parts(*(panel.encode(to_float(pictures[k : k + 1])) for k in pair.tolist())) for pair in pairs]
    return torch.stack([torch.stack([one[name][0] for one in found]) for name in panel.names])


def test_all_pairs_in_any_order_and_capacity(pictures: Bytes) -> None:
    """The order of the pairs comes back, directions are kept, and a small capacity changes nothing."""
    panel = Panel({"one": Counting(), "l1": L1()})
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12))[torch.randperm(144)]
    wanted = slowly(panel, pictures, pairs)
    assert not torch.equal(wanted[0], slowly(panel, pictures, pairs.flip(1))[0])
    for capacity in (2, 3, 5, 12, 100):
        assert torch.equal(PairDistances(panel, pictures).of(pairs, CPU, capacity), wanted)


def test_each_picture_is_encoded_once_where_there_is_room(pictures: Bytes) -> None:
    one = Counting()
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(12))
    PairDistances(Panel({"one": one}), pictures).of(pairs, CPU, 12)
    assert len(one.seen) == len(set(one.seen)) == 12


def test_triplets_are_streamed(pictures: Bytes) -> None:
    """Where no picture comes twice, nothing is held, whatever the capacity, and the reference is encoded once."""
    one = Counting()
    pairs = torch.tensor([[0, 1], [3, 4], [6, 7], [0, 2], [3, 5], [6, 8]])
    found = PairDistances(Panel({"one": one}), pictures).of(pairs, CPU, 2)
    assert sorted(one.seen) == sorted(set(one.seen))
    assert len(one.seen) == 9
    assert torch.equal(found, slowly(Panel({"one": Counting()}), pictures, pairs))


def test_pair_of_one_picture(pictures: Bytes) -> None:
    """A picture and itself, and one pair alone."""
    panel = Panel({"one": Counting()})
    assert PairDistances(panel, pictures).of(torch.tensor([[4, 4]]), CPU, 2).tolist() == [[0.0]]


def test_panel_of_networks_and_draws(pictures: Bytes) -> None:
    """Deep losses beside plain ones, under the draw that the panel has."""
    settings = plain(load("loss=deep", "network=cnn1", "layer=[1]", "compare=each", "draws=2"))["loss"]
    settings["layers"] = [settings["layers"]] if isinstance(settings["layers"][0], str) else settings["layers"]
    panel = build(settings)
    large = pictures.repeat_interleave(8, -1).repeat_interleave(8, -2) ^ torch.randint(0, 9, (12, 3, 64, 64)).byte()
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3, 12))
    made = []
    for draw in (0, 1):
        panel.draw(draw)
        made.append(PairDistances(panel, large).of(pairs, CPU, 6))
        torch.testing.assert_close(made[-1], slowly(panel, large, pairs), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(made[0], made[1])


def test_capacity_counts_bytes(pictures: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit, what is aliased once; never fewer than a pair."""
    table = PairDistances(Panel({"one": Counting()}), pictures)
    size = 3 * 8 * 8 * 4
    for room, wanted in ((10 * size, 10), (10 * size - 1, 9), (size, 2)):
        monkeypatch.setattr("losslab.losses.pairs.BYTES_HELD", room)
        assert table.capacity(CPU) == wanted


@pytest.mark.parametrize("block", [1, 3, 5, 50])
def test_tiles_hold_every_pair_once(block: int) -> None:
    """And no tile has more than two blocks of pictures."""
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    numbers = tiles(pairs, block)
    assert torch.cat([*numbers]).sort().values.tolist() == list(range(144))
    assert all(len(pairs[some].unique()) <= 2 * block for some in numbers)


def test_encodings_are_drawn(pictures: Bytes) -> None:
    """What is put together of several encodings is still of its draw."""
    panel = Panel({"one": Counting()})
    made = PairDistances(panel, pictures)._encoded(torch.arange(12), CPU)
    assert isinstance(made, Drawn)
    assert made.draw == panel.encode(to_float(pictures[:1])).draw
