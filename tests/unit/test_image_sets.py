"""Sets of images: how crops vary, where boxes are, which folders are sets, and who is whose neighbour."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from losslab import images
from losslab.config import build, load, plain
from losslab.data.base import ImageData
from losslab.data.boxes import Boxes
from losslab.data.choosing import chosen
from losslab.data.crops import Crops
from losslab.data.folder import Folder
from losslab.data.neighbours import AT_ONCE, Neighbours, by_loss
from losslab.data.photos import PHOTOGRAPHS
from losslab.data.set_folders import SetFolders
from losslab.data.varied_crops import VariedCrops
from losslab.losses.pixel import L2
from losslab.types import Bytes


def save(path: Path, height: int = 20, width: int = 20, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Picture.fromarray(noise).save(path)


class Held(ImageData):
    """Pictures that a test makes."""

    def __init__(self, stored: Bytes) -> None:
        super().__init__(1, 0)
        self.stored = stored

    def load(self) -> tuple[Bytes, Bytes]:
        """Give them all as train."""
        return self.stored, self.stored[:0]


def noise(count: int, side: int = 8) -> Bytes:
    drawn = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint8)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Make a picture whose red is the row and whose green is the column."""
    row, column = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    images.write(tmp_path / "places.png", torch.stack([row, column, 0 * row]).to(torch.uint8))
    return tmp_path


def corners(pictures: Bytes, side: int) -> Tensor:
    """Read off where crops of `side` pixels began, (N, 2)."""
    return pictures[:, :2].float().mean((-2, -1)) - (side - 1) / 2


def test_crops_vary_more_with_the_edge(places: Path) -> None:
    """Crops lie at the same places relative to the edge, from 0 to it, and with an edge of 0 are one."""
    data = VariedCrops(root=places, size=64, edges=[0, 16, 128], count=100)
    data.setup()
    none, small, large = data.sets.pictures.split([*data.sets.sizes])
    assert bool((none == none[0]).all())
    near, far = corners(small, 240), corners(large, 128)
    for found, edge in ((near, 16), (far, 128)):
        assert -0.6 < float(found.min()) < edge * 0.03 + 0.6
        assert edge * 0.97 - 0.6 < float(found.max()) < edge + 0.6
    assert float((near / 16 - far / 128).abs().max()) < 0.1
    assert data.sets.names == ("places, 0 pixels", "places, 16 pixels", "places, 128 pixels")
    least = VariedCrops(root=places, size=255, edges=[1], count=40)
    least.setup()
    assert {*corners(least.sets.pictures, 255).round().flatten().tolist()} == {0, 1}
    other = VariedCrops(root=places, size=64, edges=[0, 16, 128], count=100, crop_seed=1)
    assert other.fingerprint() != data.fingerprint()
    assert data.files() == [places / "places.png"]


def test_photographs_have_places_of_their_own() -> None:
    """Two photographs give sets side by side, each of its own crops; a smaller whole is scaled down to, not cut out."""
    data = VariedCrops(names=["coffee", "chelsea"], size=16, whole=32, edges=[2, 8], count=3)
    data.setup()
    assert [name.split(",")[0] for name in data.sets.names] == ["coffee", "coffee", "chelsea", "chelsea"]
    assert data.sets.pictures.shape == (12, 3, 16, 16)
    photograph = images.to_float(images.read(chosen(None, ["coffee"])[0]))[:, :, 100:500].mean((1, 2))
    colour = images.to_float(data.sets.pictures[:3]).mean((0, 2, 3))
    assert torch.allclose(colour, photograph, atol=0.05)


def test_textures_are_taken_by_name() -> None:
    """Grey textures are known, and among all photographs there are none."""
    data = Crops(names=["grass", "brick.png"], size=32, offset=7, zoom=0.6)
    data.setup()
    assert bool((data.sets.pictures[:, :1] == data.sets.pictures).all())
    assert torch.equal(data.sets.pictures[0, :, 7:, 7:], data.sets.pictures[2, :, :-7, :-7])
    assert [path.name for path in chosen(None, None)] == [*PHOTOGRAPHS]


def test_boxes_are_where_they_may_be() -> None:
    """One box an image: whole, of its colour, at multiples of 3 from one rim to the other, on the ground named."""
    colours = [[255, 0, 0], [0, 10, 200]]
    data = Boxes(size=32, box=8, count=301, step=3, background=127, colours=colours, sets=2)
    data.setup()
    assert data.sets.sizes == (301, 301)
    first, second = data.sets.pictures.split(301)
    assert not torch.equal(first, second)
    seen = set()
    for number, image in enumerate(first):
        colour = torch.tensor(colours[number % 2], dtype=torch.uint8)[:, None, None]
        box = (image == colour).all(0)
        assert int(box.sum()) == 64
        assert bool((image[:, ~box] == 127).all())
        top, left = (int(axis.any(dim).nonzero()[0]) for axis, dim in ((box, 1), (box, 0)))
        assert bool(box[top : top + 8, left : left + 8].all())
        seen |= {top, left}
    assert seen == {*range(0, 25, 3)}
    again, other = (Boxes(size=32, box=8, count=301, colours=colours, sets=2, place_seed=seed) for seed in (0, 1))
    assert again.fingerprint() == data.fingerprint() != other.fingerprint()


def test_coloured_boxes_are_those_of_the_source() -> None:
    """OpenCV writes blue first: the source's (0, 128, 255) is orange in its files."""
    data = build(plain(load("data=coloured_boxes"))["data"])
    data.setup()
    source = [[128, 128, 255], [255, 128, 128], [128, 255, 128], [0, 128, 255], [255, 0, 128], [128, 255, 0]]
    for image, colour in zip(data.sets.pictures[:6], source, strict=True):
        assert int((image == torch.tensor(colour[::-1])[:, None, None]).all(0).sum()) == 32 * 32
    assert data.sets.pictures.shape == (32, 3, 128, 128)


def test_each_subfolder_is_a_set(tmp_path: Path) -> None:
    """Pictures come as data=folder brings them; what is deeper belongs to its subfolder, what is hidden to none."""
    for number, name in enumerate(["b/1.png", "b/deep/2.png", "a/3.JPG", ".c/4.png", "a/.5.png", "a/notes.txt"]):
        save(tmp_path / name, 30, 40, number) if not name.endswith("txt") else (tmp_path / name).write_text("no")
    data = SetFolders(tmp_path, size=16)
    assert data.facts() == {"sets": 2, "pictures": 3, "height": 16, "width": 16, "skipped_images": 0}
    assert (data.sets.names, data.sets.sizes) == (("a", "b"), (1, 2))
    as_folder = Folder(tmp_path / "b", size=16, val_share=0).load()[0]
    assert torch.equal(data.sets.pictures[1:], as_folder)
    assert data.files() == [tmp_path / name for name in ("a/3.JPG", "b/1.png", "b/deep/2.png")]
    turned = SetFolders(tmp_path, names=["b", "a"], size=16, fit="random")
    alone = SetFolders(tmp_path, names=["b"], size=16, fit="random")
    turned.setup()
    alone.setup()
    assert turned.sets.names == ("b", "a")
    assert torch.equal(turned.sets.pictures[:2], alone.sets.pictures)
    single = SetFolders(tmp_path / "a", size=16)
    single.setup()
    assert (single.sets.names, single.sets.sizes) == (("a",), (1,))


def test_folders_say_what_is_wrong(tmp_path: Path) -> None:
    """Every error names the path or the word; a picture that can't be read stops, or is counted."""
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="a/bad.png"):
        SetFolders(tmp_path, size=8).setup()
    skipping = SetFolders(tmp_path, size=8, on_bad="skip")
    assert skipping.facts()["skipped_images"] == 1
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="b holds no picture"):
        SetFolders(tmp_path, size=8).setup()
    (tmp_path / "b" / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 pictures in .*b can be read"):
        SetFolders(tmp_path, size=8, on_bad="skip").setup()
    with pytest.raises(ValueError, match="has no subfolder 'c'; there are a, b"):
        SetFolders(tmp_path, names=["c"]).setup()
    save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match="holds loose.png beside subfolders"):
        SetFolders(tmp_path).setup()
    with pytest.raises(ValueError, match="nowhere is no folder"):
        SetFolders(tmp_path / "nowhere").setup()
    with pytest.raises(ValueError, match="data.fit is one of"):
        SetFolders(tmp_path, fit="centre")


class Counting(L2):
    """Counts the pictures that it encodes, and names their draw."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded, self.most, self.drawn = 0, 0, list[int]()

    def draw(self, step: int) -> None:
        """Note the step."""
        self.drawn.append(step)

    def encode(self, images: Tensor) -> Tensor:
        """Count."""
        assert self.drawn
        self.encoded, self.most = self.encoded + len(images), max(self.most, len(images))
        return super().encode(images)


def test_each_picture_is_encoded_once() -> None:
    """Queries too, and never more than some at a time; the distances are those that the loss gives two pictures."""
    stored, queries = noise(AT_ONCE * 2 + 5), torch.tensor([3, 40, 68])
    counting = Counting()
    found = by_loss(counting, stored, queries)
    assert (counting.encoded, counting.most, counting.drawn) == (len(stored), AT_ONCE, [0])
    pictures = images.to_float(stored)
    for row, query in zip(found, queries, strict=True):
        assert torch.equal(row, L2()(pictures[query], pictures))


@pytest.mark.parametrize("name", ["l1", "mmd"])
def test_neighbours_are_the_nearest(name: str) -> None:
    """The set is the query, then the others by their distance, also under a loss that is random."""
    loss, stored = build(plain(load(f"loss={name}"))["loss"]), noise(12, 40)
    data = Neighbours(Held(stored), loss, neighbours=5, queries=[7, 2])
    data.setup()
    loss.draw(0)
    pictures = images.to_float(stored)
    for query, own in zip([7, 2], data.sets.pictures.split(5), strict=True):
        order = sorted(range(12), key=lambda other: (other != query, float(loss(pictures[query], pictures[other]))))
        assert torch.equal(own, stored[order[:5]])
    assert data.sets.names == ("picture 7", "picture 2")
    assert data.facts() == {
        "sets": 2, "pictures": 10, "height": 40, "width": 40, "train_images": 12, "val_images": 0
    }  # fmt: skip


class Odd(L2):
    """A loss under which a picture is far from itself and near to black, or that has no numbers."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Turn the distance around."""
        return self.scale * super().compare(a, b)


def test_the_query_is_first_whatever_the_loss_says() -> None:
    """Copies of it come after it, and equal distances in the order of the data."""
    stored = noise(6)[[0, 1, 2, 1, 3, 4]]
    data = Neighbours(Held(stored), Odd(-1), neighbours=6, queries=[3])
    data.setup()
    assert torch.equal(data.sets.pictures[0], stored[3])
    assert torch.equal(data.sets.pictures[-1], stored[1])
    many = noise(300)  # fewer are sorted in order even by a sort that does not promise it
    equal = Neighbours(Held(many), Odd(0), neighbours=300, queries=[3])
    equal.setup()
    assert torch.equal(equal.sets.pictures, many[[3, 0, 1, 2, *range(4, 300)]])


def test_drawn_queries_are_a_function_of_the_seed() -> None:
    """They are distinct, and in the order of the data."""

    def names(seed: int) -> list[int]:
        data = Neighbours(Held(noise(20)), L2(), count=10, neighbours=2, query_seed=seed)
        data.setup()
        return [int(name.split()[1]) for name in data.sets.names]

    assert names(0) == names(0) != names(1)
    assert len({*names(0)}) == 10
    assert names(0) == sorted(names(0))


def test_neighbours_in_codes(tmp_path: Path) -> None:
    """Codes decide, not pixels; their number must be that of the pictures, and the file counts as one of the data's."""
    stored, path = noise(4), tmp_path / "last.ckpt"
    codes = torch.tensor([[0.0, 0], [3, 0], [0, 1], [3, 3]])
    torch.save({"state_dict": {"codes": codes}}, path)
    data = Neighbours(Held(stored), codes=path, neighbours=3, queries=[0, 3])
    data.setup()
    assert torch.equal(data.sets.pictures, stored[[0, 2, 1, 3, 1, 2]])
    assert data.files() == [path]
    with pytest.raises(ValueError, match="has 4 codes, and data.pictures 5 training pictures"):
        Neighbours(Held(noise(5)), codes=path, neighbours=3, queries=[0]).setup()
    torch.save({"state_dict": {"weights": codes}}, path)
    with pytest.raises(ValueError, match="no whole checkpoint of task=glo"):
        Neighbours(Held(stored), codes=path, neighbours=3, queries=[0]).setup()
    for content in (b"", b"text", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="last.ckpt is no whole checkpoint"):
            Neighbours(Held(stored), codes=path, neighbours=3, queries=[0]).setup()
    with pytest.raises(ValueError, match="away.ckpt is no file"):
        Neighbours(Held(stored), codes=tmp_path / "away.ckpt", neighbours=3).files()


def test_codes_of_a_real_glo(tmp_path: Path) -> None:
    """What task=glo writes is what is read: the codes of its checkpoint's state."""
    import pytorch_lightning as pl

    from losslab.data.photos import Photos

    pictures = Photos(size=32, scales=[64], train_count=8, val_count=0, batch_size=4)
    task = build(plain(load("task=glo"))["task"] | {"warmup": 0}, loss=L2())
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=pictures)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    data = Neighbours(pictures, codes=tmp_path / "last.ckpt", neighbours=2, queries=[5])
    data.setup()
    others = [number for number in range(8) if number != 5]
    codes = task.codes.detach()
    near = min(others, key=lambda other: float((codes[5] - codes[other]).norm()))
    assert pictures.train is not None
    assert torch.equal(data.sets.pictures, pictures.train.stored[[5, near]])


def test_bad_words(tmp_path: Path) -> None:
    """Each is named with what there is."""
    save(tmp_path / "a.png", 40, 50)
    held, names = Held(noise(4)), {"L2": L2, "Odd": Odd}
    for words, message in {
        "VariedCrops(edges=[])": "data.edges leave data.size=64 of data.whole=256 pixels: from 0 to 192",
        "VariedCrops(edges=[16, 200])": r"from 0 to 192, got \[16, 200\]",
        "VariedCrops(zoom=2)": "data.zoom is more than 0 and at most 1",
        "VariedCrops(count=0)": "data.size and data.count are from 1",
        f"VariedCrops(root='{tmp_path}')": "a.png has 40 pixels to cut 256 from: lower data.whole",
        "VariedCrops(names=['gras'])": "there is no 'gras'; there are astronaut.*, gravel",
        "Crops(names='grass')": "data.names is a list of names, or null for all, got 'grass'",
        "Boxes(box=200)": "data.box is from 1 to data.size=128 pixels, got 200",
        "Boxes(step=0)": "data.count, data.step and data.sets are from 1",
        "Boxes(background=256)": "data.background is from 0 to 255",
        "Boxes(colours=[[1, 2]])": "data.colours are lists of red, green and blue",
        "Boxes(colours=[[1, 2, 256]])": "data.colours are lists of red, green and blue",
        "SetFolders('.', names='a')": "data.names is a list of subfolders",
        "Neighbours(held)": "by data.near or in data.codes: give one",
        "Neighbours(held, L2(), codes='x')": "by data.near or in data.codes: give one",
        "Neighbours(held, L2(), count=0)": "data.count and data.neighbours are from 1",
        "Neighbours(held, L2(), neighbours=5)": "data.neighbours=5, and there are 4 pictures",
        "Neighbours(held, L2(), count=5, neighbours=2)": "data.count=5, and there are 4 pictures",
        "Neighbours(held, L2(), neighbours=2, queries=[4])": r"distinct numbers from 0 to 3, got \[4\]",
        "Neighbours(held, L2(), neighbours=2, queries=[1, 1])": "data.queries are distinct",
        "Neighbours(held, L2(), neighbours=2, queries=[])": "data.queries are distinct",
        "Neighbours(held, Odd(float('nan')), neighbours=2, queries=[1])": "odd from picture 1 to 0 is no number",
    }.items():
        with pytest.raises(ValueError, match=message):
            eval(f"{words}.setup()", {**globals(), **names, "held": held})


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["data=shifted_crops", "data.size=24"], (32, 24)),
        (["data=jittered_crops", "data.size=24"], (32, 24)),
        (["data=texture_crops"], (12, 128)),
        (["data=varied_crops", "data.count=2"], (16, 64)),
        (["data=boxes"], (32, 128)),
        (["data=neighbours", "data.pictures.train_count=64"], (48, 64)),
        (
            ["data=neighbours", "data@data.pictures=photos", "data.pictures.train_count=32", "loss@data.near=ssim"],
            (48, 64),
        ),
    ],
)
def test_every_set_is_one_word(words: list[str], shape: tuple[int, int]) -> None:
    """Each option beside task=gim gives its sets, and none needs a file from outside."""
    data = build(plain(load("task=gim", *words))["data"])
    data.setup()
    assert (len(data.sets.pictures), data.sets.pictures.shape[-1]) == shape
    assert data.files() == []
    assert len({*data.sets.names}) == len(data.sets)
