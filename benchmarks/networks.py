"""What loss networks cost: LPIPS against its packages, panels against single cells, bfloat16, and memory, in one run.

python benchmarks/networks.py            # five minutes on 2 cores, alone; rewrites networks.json

Contenders take turns, round after round, on the same 64 × 64 images with the same random weights, and medians of the
rounds are compared. With LOSSLAB_DATA (real human triplets) and LOSSLAB_WEIGHTS (docs/weights.md) it also counts the
decisions that bfloat16 changes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import ctypes
import json
import multiprocessing
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))
warnings.simplefilter("ignore")

import lpips
import torch
import torchvision
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from losslab.config import build, load, plain
from losslab.images import read, resize, to_float
from losslab.losses.panel import NUMBERS_AT_ONCE, Panel
from losslab.types import map_encoding

KEPT = HERE / "networks.json"
SIDE, TRIPLETS, ROUNDS = 64, 48, 5
NAMES = {"alexnet": "alex", "vgg16": "vgg"}
RANDOM = ("weights=random",)
CELLS = ("loss=deep", "network=vgg16", "weights=random")
COMPARISONS = ("spatial", "mean", "sort", "spatial_mean", "spatial_sort")
COUNTS = (16, 64, 256)


def loss_of(*words: str) -> Any:
    """Build the loss that train.py would get with these words."""
    return build(plain(load(*words))["loss"])


def triplets(count: int) -> list[Tensor]:
    """Draw references and two candidates each."""
    random = torch.Generator().manual_seed(0)
    return [torch.rand(count, 3, SIDE, SIDE, generator=random) for _ in range(3)]


def peers(net: str) -> tuple[Any, nn.Module, nn.Module]:
    """Give LPIPS of three makers with the same random trunk, and make sure that they agree."""
    ours = loss_of("loss=lpips", f"network={net}", *RANDOM)
    package = lpips.LPIPS(net=NAMES[net], pnet_rand=True, verbose=False).eval()
    other = torchmetrics_lpips._LPIPS(net=NAMES[net], pnet_rand=True).eval()  # noqa: SLF001 - its public classes download
    trunk = [tensor for _, tensor in ours.deep.network.extractor.state_dict().items()]
    for model in (package, other):
        with torch.no_grad():
            for mine, theirs in zip(trunk, model.net.parameters(), strict=False):
                theirs.copy_(mine)
    x, y = torch.rand(2, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = package(2 * x - 1, 2 * y - 1).flatten()
        torch.testing.assert_close(ours(x, y), expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(other(2 * x - 1, 2 * y - 1).flatten(), expected, rtol=1e-4, atol=1e-6)
    return ours, package, other


def in_turns(work: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Give the median seconds of each contender, over rounds in which they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def scoring(net: str) -> dict[str, float]:
    """Score triplets: the packages compare p0 and p1 with the reference one after the other."""
    ours, package, other = peers(net)
    panel = Panel({"lpips": ours})
    coarse = Panel({"lpips": loss_of("loss=lpips", f"network={net}", *RANDOM, "precision=bf16")})
    reference, p0, p1 = triplets(TRIPLETS)

    @torch.no_grad()
    def theirs(model: nn.Module) -> list[Tensor]:
        return [model(2 * reference - 1, 2 * one - 1) for one in (p0, p1)]

    return in_turns(
        {
            "losslab": lambda: panel.measure(reference, p0, p1),
            "losslab, bf16": lambda: coarse.measure(reference, p0, p1),
            "lpips": lambda: theirs(package),
            "torchmetrics": lambda: theirs(other),
        }
    )


def training(net: str) -> dict[str, float]:
    """Go forward and backward to images whose targets stay; the packages compute both sides anew."""
    ours, package, _ = peers(net)
    package.requires_grad_(requires_grad=False)
    target, x, _ = triplets(16)
    leaf = x.requires_grad_()
    with torch.no_grad():
        kept = ours.encode(target)

    def step(distance: Callable[[], Tensor]) -> None:
        leaf.grad = None
        distance().sum().backward()

    return in_turns(
        {
            "losslab": lambda: step(lambda: ours.compare(ours.encode(leaf), kept)),
            "lpips": lambda: step(lambda: package(2 * leaf - 1, 2 * target - 1)),
        }
    )


def panels() -> dict[str, float]:
    """Compare a panel of 40 with one plain pass of its network, and with its cells one after another."""
    panel = loss_of(*CELLS, "layer=each", "compare=each", "normalize=each")
    network = panel.networks[0]
    images = triplets(TRIPLETS)
    alone = {
        (layer, name, on): Panel({"": loss_of(*CELLS, f"layer={layer}", f"compare={name}", f"normalize={on}")})
        for layer in range(1, 5)
        for name in COMPARISONS
        for on in ("true", "false")
    }

    @torch.no_grad()
    def plain_pass() -> None:
        for batch in images:
            for some in batch.split(int(NUMBERS_AT_ONCE / SIDE**2 / network.widest)):
                network.read(some)

    found = in_turns({"plain pass": plain_pass, "panel": lambda: panel.measure(*images)})
    started = time.perf_counter()
    for cell in alone.values():
        cell.measure(*images)
    return {**found, "40 cells": time.perf_counter() - started}


def memory(count: int) -> float:
    """Give the MiB that a panel takes beyond its images and weights at the peak."""
    panel = loss_of(*CELLS, "layer=each", "compare=each", "normalize=each")
    images = triplets(count)
    panel.measure(*triplets(1))
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS:")
    panel.measure(*images)
    return _status("VmHWM:") - before


def _status(key: str) -> float:
    words = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(words[words.index(key) + 1]) / 1024


def _send(pipe: Connection, work: Callable[[], object]) -> None:
    pipe.send(work())


def apart(work: Callable[[], Any]) -> Any:
    """Measure in a process of its own, so that its peak of memory is its own."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, work))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def decisions() -> dict[str, dict[str, float]] | str:
    """Count how often people's choice is met, and how often bfloat16 decides as 32 bits do, on real human triplets."""
    data, weights = (os.environ.get(name, "") for name in ("LOSSLAB_DATA", "LOSSLAB_WEIGHTS"))
    if not data or not weights:
        return "not measured: LOSSLAB_DATA and LOSSLAB_WEIGHTS were not set"
    folder = Path(data) / "material_2afc"
    files = sorted((folder / "images").glob("*.jpg"))
    images = torch.cat([resize(to_float(read(file))[None], SIDE, SIDE) for file in files])
    answers = json.loads((folder / "answers_processed_train.json").read_text(encoding="utf-8"))["answers_diff"]
    squeeze = Path(data) / "weights_squeezenet1_1_features" / "squeeze.backbone.pth"
    real = ("weights=file", f"weights.path={squeeze}", "weights.prefix=features.")
    losses = {
        "LPIPS, SqueezeNet (ImageNet)": ("loss=lpips", "network=squeezenet1_1", *real),
        "SqueezeNet (ImageNet), 4 slots": ("loss=deep", "compare=spatial", "layer=all", "network=squeezenet1_1", *real),
        "SqueezeNet (random), 4 slots": ("loss=deep", "compare=spatial", "layer=all", "network=squeezenet1_1"),
        "VGG-16 (HED), 4 slots": ("loss=deep", "compare=spatial", "layer=all", "network=vgg16", "weights=vgg16_hed"),
        "VGG-16 (random), 4 slots": ("loss=deep", "compare=spatial", "layer=all", "network=vgg16"),
    }
    return {name: _decide(images, torch.tensor(answers), *words) for name, words in losses.items()}


@torch.no_grad()
def _decide(images: Tensor, answers: Tensor, *words: str) -> dict[str, float]:
    fine, coarse = (_choices(loss_of(*words, f"precision={one}"), images, answers) for one in ("32", "bf16"))
    return {
        "people": float((fine > 0).float().mean()),
        "unchanged": float((fine.sign() == coarse.sign()).float().mean()),
    }


def _choices(loss: Any, images: Tensor, answers: Tensor) -> Tensor:
    """Give how much nearer the people's choice is than the other, for each triplet."""
    kept = loss.encode(images)
    rows = [loss.compare(map_encoding(lambda one, k=k: one[k : k + 1], kept), kept) for k in range(len(images))]
    distances = torch.stack(rows)
    reference, chosen, other = answers.T
    return distances[reference, other] - distances[reference, chosen]


def main() -> None:
    """Measure everything and write it down."""
    torch.set_num_threads(os.cpu_count() or 1)
    found: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "torch": torch.__version__,
                    "torchvision": torchvision.__version__, "threads": torch.get_num_threads(),
                    "wait_policy": os.environ["OMP_WAIT_POLICY"], "system": platform.system()},
    }  # fmt: skip
    for net in NAMES:
        found[f"scoring {net}"] = apart(partial(scoring, net))
        found[f"training {net}"] = apart(partial(training, net))
        print(net, found[f"scoring {net}"], found[f"training {net}"], flush=True)
    found["panel"] = apart(panels)
    found["memory"] = {str(count): apart(partial(memory, count)) for count in COUNTS}
    found["decisions"] = apart(decisions)
    print(json.dumps({key: found[key] for key in ("panel", "memory", "decisions")}, indent=1))
    KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
