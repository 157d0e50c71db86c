"""Data whose judgements are made: what they are called, and that the judgements hold in the pictures."""

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from losslab import images
from losslab.config import CONF
from losslab.data.distortions import FAMILIES, blur
from losslab.data.judged import Pairs, Triplets
from losslab.data.known_order import DETAIL, KnownOrder, Pictures, copies, detailed_crops
from losslab.data.known_same import KnownSame
from losslab.data.photos import region
from losslab.seeds import generator


@pytest.fixture(scope="module", autouse=True)
def _photographs() -> Iterator[None]:
    """Decode each photograph once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("losslab.images.read", functools.cache(images.read))
        yield


@pytest.fixture(scope="module")
def order() -> Triplets:
    return KnownOrder(count=160).load()


@pytest.fixture(scope="module")
def same() -> Pairs:
    return KnownSame(count=160).load()


def off(data: Triplets | Pairs, a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of pictures, in steps of 8 bits."""
    p, q = (data.pictures[where].float() for where in (a, b))
    return (p - q).square().mean((1, 2, 3)).sqrt()


def test_the_nearer_one_is_the_weaker_one(order: Triplets) -> None:
    """The judge names it in every triplet, and both candidates differ visibly from the reference."""
    d0, d1 = (off(order, order.reference, p) for p in (order.p0, order.p1))
    assert torch.equal((d1 < d0).float(), order.judge)
    assert torch.minimum(d0, d1).min() > 1.5
    assert (torch.maximum(d0, d1) > 1.02 * torch.minimum(d0, d1)).all()


def test_families_and_sides_are_balanced(order: Triplets) -> None:
    """Each family has as many triplets, and in half of them p1 is nearer."""
    assert order.subsets == tuple(FAMILIES)
    for family in range(len(order.subsets)):
        judge = order.judge[order.subset == family]
        assert len(judge) == 16
        assert judge.mean() == 0.5
    assert order.votes is None


def test_a_triplet_is_of_one_family_and_one_field() -> None:
    """Both candidates are the reference with the same noise, at two strengths."""
    data = KnownOrder(count=40, families=["tint", "noise"]).load()
    assert torch.equal(data.subset, torch.arange(40) % 2)
    tint = data.subset == 0
    shifts = []
    for p in (data.p0, data.p1):
        mid = (data.pictures[p].float() - data.pictures[data.reference].float())[tint]
        inside = ((data.pictures[data.reference] > 100) & (data.pictures[data.reference] < 155))[tint]
        shifts.append((mid * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1))
    aligned = torch.nn.functional.cosine_similarity(shifts[0], shifts[1])[(shifts[0].abs() > 0).all(1)]
    assert len(aligned) > 4
    assert (aligned > 0.98).all()


def test_each_picture_stands_once_in_the_table(order: Triplets, same: Pairs) -> None:
    """In the order of first use; a crop is the reference of one triplet a family."""
    for data, used in (
        (order, torch.stack([order.reference, order.p0, order.p1], 1)),
        (same, torch.stack([same.p0, same.p1], 1)),
    ):
        flat = used.flatten().tolist()
        assert list(dict.fromkeys(flat)) == list(range(len(data.pictures)))
        assert len({picture.numpy().tobytes() for picture in data.pictures}) == len(data.pictures)
    assert set(Counter(order.reference.tolist()).values()) == {len(FAMILIES)}


def test_content_is_a_function_of_the_crop_seed() -> None:
    """The training's seed changes no data, and the test triplets are the same whatever is trained on."""

    def small(**options: int) -> KnownOrder:
        return KnownOrder(**{"count": 20, "train_count": 20} | options)  # type: ignore[arg-type]

    first = small().fingerprint()
    assert first == small().fingerprint() == small(seed=5).fingerprint()
    assert first != small(crop_seed=1).fingerprint()
    test = small().load()
    fewer = small(train_count=0)
    assert torch.equal(test.pictures, fewer.load().pictures)
    fewer.setup()
    assert fewer.train is None


def test_splits_and_seeds_have_randomness_of_their_own() -> None:
    """Noise to train on is not that of the test, and another seed shuffles the sides otherwise."""
    data = KnownOrder(count=40, train_count=40, families=["noise"])
    data.setup()
    noise = []
    for one in (data.test, data.train):
        assert isinstance(one, Triplets)
        farther = torch.where(one.judge == 1, one.p0, one.p1)
        noise.append((one.pictures[farther].float() - one.pictures[one.reference].float()).flatten(1))
    same = torch.nn.functional.cosine_similarity(noise[0], noise[1])
    assert same.abs().mean() < 0.3
    assert isinstance(data.test, Triplets)
    assert not torch.equal(data.test.judge, KnownOrder(count=40, families=["noise"], crop_seed=1).load().judge)


def test_no_pixel_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the val part of each photograph marked, references to train on show no mark, those of the test only it."""
    read = images.read

    def marked(path: Path) -> Tensor:
        photograph = read(path).clone()
        region(photograph, "train")[0] %= 100
        region(photograph, "val")[0] = region(photograph, "val")[0] % 100 + 150
        return photograph

    monkeypatch.setattr("losslab.images.read", marked)
    data = KnownOrder(count=20, train_count=40)
    data.setup()
    assert data.train is not None
    assert isinstance(data.test, Triplets)
    assert data.train.pictures[data.train.reference][:, 0].max() < 105
    assert data.test.pictures[data.test.reference][:, 0].min() > 145


def test_training_triplets_are_served() -> None:
    data = KnownOrder(count=10, train_count=40, batch_size=20, size=32, scales=[64])
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.reference.shape == (20, 3, 32, 32)
    assert {0.0, 1.0} == {*batch.judge.tolist()}


def test_crops_have_detail() -> None:
    """A blur shows in each; of photographs without detail, there are too few, and that is said."""
    for crop in images.to_float(detailed_crops(64, (64, 128, 256), 24, "val", 3)):
        assert (crop - blur(crop, 1.0, generator(0))).square().mean().sqrt() >= DETAIL


def test_too_little_detail_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.images.read", lambda path: torch.full((3, 300, 300), 90, dtype=torch.uint8))
    with pytest.raises(ValueError, match="only 0 of 24 crops have detail, and 4 are wanted"):
        detailed_crops(64, (64,), 4, "train", 0)


def test_unseen_copies_and_others(same: Pairs) -> None:
    """Half are within a step of 8 bits, half are far off, in every family; nothing lies between."""
    distance = off(same, same.p0, same.p1)
    assert distance[same.same == 1].max() <= 1
    assert distance[same.same == 0].min() > 2.4
    noisy = same.subset == same.subsets.index("noise")
    assert distance[noisy & (same.same == 0)].min() > 12  # of the faintest that everyone sees: 10
    assert {0.0, 1.0} == {*same.same.tolist()}
    for family in range(len(same.subsets)):
        assert same.same[same.subset == family].mean() == 0.5
    assert same.subsets == tuple(FAMILIES)


def test_pairs_are_of_the_family_that_they_say() -> None:
    """A clearly brightened copy is off by one number wherever nothing is clipped, a noisy one is not."""
    data = KnownSame(count=24, families=["noise", "brightness"]).load()
    for pair in (data.same == 0).nonzero().flatten():
        crop, copy = (data.pictures[p[pair]].float() for p in (data.p0, data.p1))
        change = (copy - crop)[(copy > 0) & (copy < 255)]
        assert (change.max() - change.min() <= 1) == (data.subsets[data.subset[pair]] == "brightness")


@pytest.mark.parametrize("data", [KnownOrder(count=10, train_count=0), KnownSame(count=20)], ids=["order", "same"])
def test_results_say_that_nobody_was_asked(data: KnownOrder | KnownSame) -> None:
    assert data.facts()["judgements"] == "made, not human"
    assert "No person was asked" in str(type(data).__doc__)
    yaml = (CONF / "data" / f"{type(data).__module__.rpartition('.')[2]}.yaml").read_text()
    assert "no human data" in yaml.partition("\n")[0]


@pytest.mark.parametrize("kind", [KnownOrder, KnownSame])
def test_words_that_make_no_data(kind: type[KnownOrder | KnownSame]) -> None:
    with pytest.raises(ValueError, match=r"got \['jpg'\]; did you mean jpeg\?"):
        kind(families=["jpg"])
    with pytest.raises(ValueError, match=r"data.count is at least (one triplet|two pairs) a family, (10|20), got 9"):
        kind(count=9)
    with pytest.raises(ValueError, match="data.batch_size"):
        kind(batch_size=0)


def test_a_table_holds_equal_pictures_once() -> None:
    table, black, white = Pictures(), torch.zeros(3, 2, 2, dtype=torch.uint8), torch.ones(3, 2, 2, dtype=torch.uint8)
    assert [table.add(one) for one in (white, black, white.clone(), black)] == [0, 1, 0, 1]
    assert torch.equal(table.stacked(), torch.stack([white, black]))


def test_copies_differ_in_their_strength_alone() -> None:
    """The noise is the same at both levels, and another one for the next pair."""
    grey, random = torch.full((3, 16, 16), 128, dtype=torch.uint8), generator(0)
    faint, clear = (one.float() - 128 for one in copies(grey, "noise", ("faint", "clear"), random))
    assert (clear - 2 * faint).abs().max() <= 1.5
    (other,) = (one.float() - 128 for one in copies(grey, "noise", ("faint",), random))
    assert torch.corrcoef(torch.stack([faint.flatten(), other.flatten()]))[0, 1].abs() < 0.2
