"""The mean distance to a set has the value and the gradient of the plain loop, in less work."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import get_ident
from typing import Any

import pytest
import torch
from torch import Tensor

from losslab.config import build, load, plain
from losslab.data.sets import ImageSets, SetData, gathered
from losslab.losses.base import Loss
from losslab.losses.joining import joined
from losslab.losses.penalty import TotalVariation
from losslab.losses.pixel import L2
from losslab.losses.sets import SetDistances

SIZES = [2, 3, 3]
BEGINS = [0, 2, 5, 8]
LOSSES = ["l1", "fft", "ssim", "mmdpp", "patch_swd", "deep network=cnn1 compare=l1", "deep network=cnn1 compare=gram"]


def loss_of(words: str) -> Loss[Any]:
    name, *rest = words.split()
    loss: Loss[Any] = build(plain(load(f"loss={name}", *rest))["loss"])
    return loss


class Counting(L2):
    """Counts the images that it encodes."""

    encoded = 0

    def embed(self, images: Tensor) -> Tensor:
        """Count, and keep the images."""
        self.encoded += len(images)
        return super().embed(images)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Compute in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("words", LOSSES)
def test_equals_the_plain_loop(words: str, threads: int) -> None:
    """Value and gradient, over sets of different sizes with weights and a penalty."""
    loss, penalty = loss_of(words), TotalVariation(0.1)
    pictures = torch.rand(8, 3, 36, 40)
    weights = torch.cat([torch.rand(size).softmax(0) for size in SIZES])
    images = torch.rand(3, 3, 36, 40, requires_grad=True)
    wanted = torch.stack(
        [
            (weights[begin:end] * loss(images[s : s + 1], pictures[begin:end])).sum() + penalty(images[s])
            for s, (begin, end) in enumerate(pairwise(BEGINS))
        ]
    )
    scale = torch.tensor([1.0, 2.0, 3.0])
    (gradient,) = torch.autograd.grad((wanted * scale).sum(), images)
    sets = SetDistances(loss, pictures, SIZES, weights, penalty)
    found = sets(images, [0, 1, 2])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    (own,) = torch.autograd.grad((found * scale).sum(), images)
    assert float((own - gradient).norm() / gradient.norm()) < 1e-5
    alone = sets(images[1:2].detach(), [1])
    assert float((alone - wanted[1].detach()).abs()) < 1e-6


def test_each_image_is_encoded_once() -> None:
    """Not once for each of its targets, as both originals do; and targets before the first step only."""
    loss = Counting()
    sets = SetDistances(loss, torch.rand(8, 3, 8, 8), SIZES, torch.ones(8) / 3)
    assert loss.encoded == 8
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    for _ in range(2):
        sets(images, [0, 1, 2]).sum().backward()
    assert loss.encoded == 8 + 2 * 3


def test_images_outside_the_range_are_measured() -> None:
    """An image that is optimised may leave [0, 1] on its way, however far."""
    sets = SetDistances(L2(), torch.zeros(2, 3, 8, 8), [2], torch.tensor([0.5, 0.5]))
    assert sets(torch.full((1, 3, 8, 8), 3.0), [0]).tolist() == [9.0]


@pytest.mark.parametrize("threads", [5], indirect=True)
def test_threads_take_sets_of_their_own(threads: int) -> None:
    """Two sets in five threads: two at a time in two threads each; whoever comes later has five again."""
    seen: dict[int, int] = {}

    class Watched(L2):
        """Keeps who encodes, with how many threads."""

        def embed(self, images: Tensor) -> Tensor:
            """Note both."""
            seen[get_ident()] = torch.get_num_threads()
            return super().embed(images)

    sets = SetDistances(Watched(), torch.rand(4, 3, 8, 8), [2, 2], torch.ones(4) / 2)
    assert seen == {get_ident(): threads}
    seen.clear()
    sets(torch.rand(2, 3, 8, 8), [0, 1])
    assert set(seen.values()) == {2}
    assert get_ident() not in seen
    assert torch.get_num_threads() == threads
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == threads
    seen.clear()
    sets(torch.rand(1, 3, 8, 8), [1])  # one set alone has all threads
    assert seen == {get_ident(): threads}


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_what_a_loss_refuses_comes_out_of_the_threads(threads: int) -> None:
    """As it was raised, whoever met it."""

    class Refusing(L2):
        """Takes no image that begins with 0.5."""

        def embed(self, images: Tensor) -> Tensor:
            """Look at each."""
            if bool((images[:, 0, 0, 0] == 0.5).any()):
                raise ValueError("not this one")
            return super().embed(images)

    sets = SetDistances(Refusing(), torch.zeros(6, 3, 8, 8), [2, 2, 2], torch.ones(6) / 2)
    images = torch.zeros(3, 3, 8, 8)
    images[1] = 0.5
    with pytest.raises(ValueError, match="not this one"):
        sets(images, [0, 1, 2])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_a_new_draw_encodes_the_targets_again(threads: int) -> None:
    """Distances of two draws are never mixed."""
    loss = loss_of("mmd redraw_every=1")
    pictures, images = torch.rand(4, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss.draw(0)
    sets = SetDistances(loss, pictures, [2, 2], torch.ones(4) / 2)
    first = sets(images, [0, 1])
    loss.draw(1)
    second = sets(images, [0, 1])
    assert not torch.equal(first, second)
    wanted = torch.stack([loss(images[k : k + 1], pictures[2 * k : 2 * k + 2]).mean() for k in (0, 1)])
    torch.testing.assert_close(second, wanted)


def test_memory_does_not_grow_with_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of images are encoded one after the other: none holds more than it may."""
    seen: list[int] = []

    class Watched(Counting):
        """Keeps how many images come at a time."""

        def embed(self, images: Tensor) -> Tensor:
            """Note the number."""
            seen.append(len(images))
            return super().embed(images)

    sets = SetDistances(Watched(), torch.rand(40, 3, 8, 8), [1] * 40, torch.ones(40))
    images = torch.rand(40, 3, 8, 8, requires_grad=True)
    found = sets(images, range(40))
    found.sum().backward()
    assert max(seen) <= 16
    torch.testing.assert_close(found, (images - sets.pictures).square().mean(dim=(1, 2, 3)).detach())


def test_joined_encodings() -> None:
    """Encodings of some images each become one of all, whatever their form."""
    parts = [{"a": (torch.full((2, 3), float(k)), torch.full((2, 1), float(k)))} for k in (1, 2)]
    whole: Any = joined(parts, 4)
    assert whole["a"][0][:, 0].tolist() == [1, 1, 2, 2]
    assert whole["a"][1].shape == (4, 1)
    with pytest.raises(ValueError, match="no encodings"):
        joined([], 0)


class Given(SetData):
    """Sets as the test gives them."""

    def __init__(self, sets: ImageSets, weights: list[float] | None = None) -> None:
        """Keep them."""
        super().__init__(weights)
        self.own = sets

    def load(self) -> ImageSets:
        """Give them."""
        return self.own


def test_weights_of_a_set() -> None:
    """They sum to 1 in each set; what does not fit is refused with the numbers."""
    sets = gathered(
        [("a", torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), ("b", torch.zeros(2, 3, 4, 4, dtype=torch.uint8))]
    )
    data = Given(sets, [1, 3])
    data.setup()
    assert data.weights.tolist() == [0.25, 0.75, 0.25, 0.75]
    assert data.facts() == {"sets": 2, "pictures": 4, "height": 4, "width": 4}
    with pytest.raises(ValueError, match="3 numbers, and a set has 2 pictures"):
        Given(sets, [1, 1, 1]).setup()
    for bad in ([0.0, 0.0], [-1.0, 2.0], [True, 1.0]):
        with pytest.raises(ValueError, match="numbers from 0"):
            Given(sets, bad).setup()
    with pytest.raises(ValueError, match=r"one size, got a \(4, 4\), b \(5, 4\)"):
        gathered([("a", torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), ("b", torch.zeros(2, 3, 5, 4, dtype=torch.uint8))])
    with pytest.raises(ValueError, match="sets have a picture at least"):
        ImageSets(sets.pictures, (4, 0), ("a", "b"))
    with pytest.raises(ValueError, match="no set"):
        gathered([])


def test_content_is_known_by_pictures_and_sets() -> None:
    """The same pictures in other sets are other data."""
    pictures = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8)
    names = {Given(ImageSets(pictures, sizes, ("a", "b"))).fingerprint() for sizes in ((2, 2), (1, 3))}
    assert len(names | {Given(ImageSets(pictures.flip(0), (2, 2), ("a", "b"))).fingerprint()}) == 3
