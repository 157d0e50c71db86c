"""Triplets a second of the 2AFC task beside the loop of the lpips package, in one run.

python benchmarks/two_afc.py             # five minutes on 2 cores, alone; rewrites two_afc.json

Both read the same PNG files of 256 × 256 pixels, as BAPPS has them, and score the same triplets at 64 × 64 with
random weights. The package's loop, `score_2afc_dataset` of lpips.trainer, gets batches of 50 from torch's loader,
which decodes and resizes as the package's own does. Ours decodes once into a file that is mapped into memory; what that
costs, and what a second opening costs, is measured by itself.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))
warnings.simplefilter("ignore")

import lpips
import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image as Picture
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from losslab.config import build, load, plain

KEPT = HERE / "two_afc.json"
COUNT, ROUNDS, BATCH = 200, 3, 50
BAPPS = 36_344
"""Triplets of BAPPS' six val sets."""
ROWS = ("loss=deep", "network=vgg16", "weights=random", "layer=each", "compare=each", "normalize=each")
LOSSES = {
    "lpips alex": ("loss=lpips", "network=alexnet", "weights=random"),
    "lpips vgg": ("loss=lpips", "network=vgg16", "weights=random"),
    "lpips vgg, bf16": ("loss=lpips", "network=vgg16", "weights=random", "precision=bf16"),
    "mmdpp": ("loss=mmdpp",),
    "panel of 40, vgg16": ROWS,
}
PEERS = {"lpips alex": "alex", "lpips vgg": "vgg"}


def write_tree(root: Path) -> None:
    """Write triplets in BAPPS' layout: smooth pictures, of 256 × 256 pixels as there."""
    random = np.random.default_rng(0)
    folder = root / "2afc" / "val" / "traditional"
    for name in ("ref", "p0", "p1", "judge"):
        (folder / name).mkdir(parents=True)
    for number in range(COUNT):
        for name in ("ref", "p0", "p1"):
            small = Picture.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
            small.resize((256, 256), Picture.Resampling.BICUBIC).save(folder / name / f"{number:06d}.png")
        np.save(folder / "judge" / f"{number:06d}.npy", np.float32([random.integers(6) / 5]))


class TheirData(Dataset[dict[str, Tensor]]):
    """What the package's own data set gives: decoded, resized and scaled at each reading."""

    def __init__(self, folder: Path) -> None:
        """List the files."""
        self.folder, self.stems = folder, sorted(path.stem for path in (folder / "ref").glob("*.png"))

    def __len__(self) -> int:
        """Count the triplets."""
        return len(self.stems)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Give a triplet in [-1, 1] and its judgement."""
        found = {name: self._read(name, self.stems[index]) for name in ("ref", "p0", "p1")}
        judge = np.load(self.folder / "judge" / f"{self.stems[index]}.npy").reshape(1, 1, 1)
        return {**found, "judge": torch.from_numpy(judge)}

    def _read(self, name: str, stem: str) -> Tensor:
        with Picture.open(self.folder / name / f"{stem}.png") as picture:
            return 2 * to_tensor(picture.convert("RGB").resize((64, 64), Picture.Resampling.BILINEAR)) - 1


class TheirLoader:
    """The package's loop asks a loader for `load_data`."""

    def __init__(self, folder: Path) -> None:
        """Read with its default batch of 50, in the process of the loop."""
        self.loader = DataLoader(TheirData(folder), BATCH)

    def load_data(self) -> Iterator[dict[str, Tensor]]:
        """Give the batches."""
        return iter(self.loader)


def theirs(net: str, folder: Path) -> Callable[[], object]:
    """Score by the package."""
    from lpips.trainer import score_2afc_dataset

    model: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()

    @torch.no_grad()
    def run() -> object:
        return score_2afc_dataset(TheirLoader(folder), model.forward, name="")

    return run


def ours(words: tuple[str, ...], root: Path, cache: Path) -> Callable[[], object]:
    """Score by the task."""
    settings = plain(load("task=two_afc", "data=bapps", f"data.root={root}", "data.subsets=[traditional]",
                          f"data.cache={cache}", "task.save_distances=false", *words))  # fmt: skip
    loss = build(settings["loss"])

    def run() -> object:
        data, task = build(settings["data"]), build(settings["task"], loss=loss)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                             enable_model_summary=False, default_root_dir=root)  # fmt: skip
        trainer.test(task, datamodule=data, verbose=False)
        return task.rows()

    return run


def in_turns(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Give the median seconds of each contender, over rounds in which they take turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def reading(root: Path, cache: Path) -> dict[str, float]:
    """Count the pictures a second that are decoded, that are opened again, and that the package's loader gives."""
    settings = plain(load("task=two_afc", "data=bapps", f"data.root={root}", "data.subsets=[traditional]",
                          f"data.cache={cache}"))["data"]  # fmt: skip
    found = {}
    for name in ("decoded", "opened again"):
        started = time.perf_counter()
        data = build(settings)
        data.setup()
        _ = int(data.test.pictures.sum())  # a file that is mapped into memory is read when it is used
        found[name] = 3 * COUNT / (time.perf_counter() - started)
    started = time.perf_counter()
    list(TheirLoader(root / "2afc" / "val" / "traditional").load_data())
    return {**found, "by the package's loader": 3 * COUNT / (time.perf_counter() - started)}


def measure() -> dict[str, Any]:
    """Measure all."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_tree(root)
        rates = reading(root, root / "cache")
        work = {name: ours(words, root, root / "cache") for name, words in LOSSES.items()}
        work |= {f"{name}, lpips package": theirs(net, root / "2afc" / "val" / "traditional")
                 for name, net in PEERS.items()}  # fmt: skip
        seconds = in_turns(work)
    speed = {name: COUNT / one for name, one in seconds.items()}
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "triplets": COUNT,
        "triplets a second": speed,
        "times the package": {name: speed[name] / speed[f"{name}, lpips package"] for name in PEERS},
        "pictures a second": rates,
        "pictures a second that scoring takes": {name: 3 * one for name, one in speed.items() if name in LOSSES},
        "hours for BAPPS": BAPPS / speed["panel of 40, vgg16"] / 3600,
    }


if __name__ == "__main__":
    found = measure()
    KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
