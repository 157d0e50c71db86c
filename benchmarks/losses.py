"""What each loss costs: seconds, memory and arithmetic, with VGG-16 as the yardstick, measured in one run.

python benchmarks/losses.py              # about ten minutes on 2 cores, alone; rewrites losses.json, of which
                                         # `make docs` makes the tables of docs/losses.md
python benchmarks/losses.py l2 mmd       # only these rows anew

Each measurement has a process of its own, forked from one that has imported everything and computed nothing, so that
its peak of memory is its own. A step is what a training does: encode one side with a gradient, compare it with encoded
targets, and go back to the pixels. The rows `... as the original` recompute both sides, as their sources do.
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
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from losslab.config import CONF, build, load, plain

KEPT = HERE / "losses.json"
SIZES = {"1×64²": (1, 64), "16×128²": (16, 128), "8×256²": (8, 256)}
LIMIT = 60
"""Seconds that one measurement may take; what takes longer is said to."""
ENOUGH = 0.5
"""Seconds of repeats after which the median is taken."""
ROUNDS = 11
"""Of the comparison of the random-feature MMD with the originals."""
YARDSTICK = "VGG-16 as the original"

Step = Callable[[Tensor], Tensor]
"""Turns images into the sum of their distances."""


def steps(name: str, y: Tensor) -> tuple[Step, Callable[[], object]]:
    """Give a loss's step against `y`, and the encoding of `y`."""
    if name in ORIGINALS:
        return ORIGINALS[name](y), lambda: None
    offline = plain(load(f"loss={name}"))["loss"]["properties"].get(
        "offline", []
    )  # random weights cost what trained do
    loss = build(plain(load(f"loss={name}", *offline))["loss"])
    if y.shape[-1] < loss.min_side:
        raise ValueError(f"needs {loss.min_side} pixels")

    @torch.no_grad()
    def encode() -> object:
        return loss.encode(y)

    targets = encode()
    return lambda x: loss.compare(loss.encode(x), targets).sum(), encode


def vgg_as_the_original(y: Tensor) -> Step:
    """VGGPerceptualLoss of ariel415el/PerceptualLossExperiments: pixels and conv1_2 to conv5_3, L1, both sides anew."""
    layers = torchvision.models.vgg16(weights=None).features[:29].eval().requires_grad_(requires_grad=False)
    wanted = (2, 7, 14, 21, 28)

    def features(x: Tensor) -> list[Tensor]:
        found = [x]
        for index, layer in enumerate(layers):
            x = functional.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            found += [x] if index in wanted else []
        return found

    def step(x: Tensor) -> Tensor:
        pairs = zip(features(2 * x - 1), features(2 * y - 1), strict=True)
        return torch.stack([(p - q).abs().mean(dim=(1, 2, 3)) for p, q in pairs]).mean(0).sum()

    return step


def mmd_as_the_original(y: Tensor) -> Step:
    """MMDApproximate there: filters drawn at each call, one map of all features, one pooling, both sides anew."""
    size, features, bandwidth = 3, 512, 0.54

    def step(x: Tensor) -> Tensor:
        filters = torch.randn(features, 3, size, size) / bandwidth
        filters = filters - filters.mean(dim=(2, 3), keepdim=True)
        phases = torch.rand(features) * 2 * torch.pi

        def pooled(images: Tensor) -> Tensor:
            padded = functional.pad(2 * images - 1, (1, 1, 1, 1), mode="reflect")
            return functional.avg_pool2d(torch.cos(functional.conv2d(padded, filters, phases)), 32, 16)

        return (pooled(x) - pooled(y)).square().mean(dim=(1, 2, 3)).sum()

    return step


ORIGINALS: dict[str, Callable[[Tensor], Step]] = {
    YARDSTICK: vgg_as_the_original,
    "MMD as the original": mmd_as_the_original,
}


def repeated(work: Callable[[], object]) -> float:
    """Give the median seconds of as many repeats as fit, three at least if one is short."""
    work()
    times: list[float] = []
    while not times or (len(times) < 15 and sum(times) + times[-1] < ENOUGH):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(name: str, count: int, side: int) -> dict[str, float]:
    """Measure one loss at one size."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.rand(count, 3, side, side, generator=random) for _ in range(2))
    step, encode = steps(name, y)
    leaf = x.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            step(x)

    def both() -> None:
        leaf.grad = None
        step(leaf).backward()

    before = resident(reset=True)
    both()
    peak = resident(peak=True) - before
    with FlopCounterMode(display=False) as counter:
        both()
    with torch.autograd.graph.saved_tensors_hooks(kept := Kept(), lambda tensor: tensor):
        step(leaf)
    return {
        "encode": repeated(encode),
        "forward": repeated(forward),
        "both": repeated(both),
        "peak_mib": peak,
        "saved_mib": kept.bytes() / 2**20,
        "gflop": counter.get_total_flops() / 1e9,
    }


class Kept:
    """Counts what autograd keeps for the backward pass, each storage once."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.storages: dict[int, int] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is kept."""
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def bytes(self) -> int:
        """Give the sum."""
        return sum(self.storages.values())


def resident(*, peak: bool = False, reset: bool = False) -> float:
    """Give the process's memory in MiB, now or at its peak since the last reset (Linux)."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    words = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(words[words.index("VmHWM:" if peak else "VmRSS:") + 1]) / 1024


def ratios(count: int, side: int) -> dict[str, float]:
    """Say how many steps of the MMD fit in one of each original, from rounds in which they take turns."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.rand(count, 3, side, side, generator=random) for _ in range(2))
    leaf = x.clone().requires_grad_()
    work = {name: steps(name, y)[0] for name in ("mmd", *ORIGINALS)}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, step in work.items():
            leaf.grad = None
            started = time.perf_counter()
            step(leaf).backward()
            seconds[name].append(time.perf_counter() - started)
    print({name: [round(one, 2) for one in each] for name, each in seconds.items()}, flush=True)
    pairs = {name: zip(seconds[name][1:], seconds["mmd"][1:], strict=True) for name in ORIGINALS}
    return {name: statistics.median(theirs / ours for theirs, ours in each) for name, each in pairs.items()}


def child(pipe: Connection, work: Callable[[], dict[str, float]], threads: int) -> None:
    """Send what was measured, or why it was not."""
    torch.set_num_threads(threads)
    try:
        pipe.send(work())
    except ValueError as error:
        pipe.send(str(error))


def apart(work: Callable[[], dict[str, float]], threads: int, limit: float = LIMIT) -> dict[str, float] | str:
    """Measure in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs, work, threads))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(limit) else f"over {limit} s"
    except EOFError:
        return "ended without a result"
    finally:
        process.kill()
        process.join()


def line(name: str, found: dict[str, Any]) -> str:
    """Show a row of the table."""
    cells = []
    for size in SIZES:
        one = found[size]
        numbers = ("encode", "forward", "both", "peak_mib", "saved_mib", "gflop")
        cells.append(one if isinstance(one, str) else " ".join(f"{key} {one[key]:.4g}" for key in numbers))
    return f"{name}: " + " | ".join(cells)


def main(chosen: list[str]) -> None:
    """Measure all, or what was chosen, and keep the results beside those that were there."""
    threads = os.cpu_count() or 1
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "threads": threads,
               "torch": torch.__version__.partition("+")[0], "wait_policy": os.environ["OMP_WAIT_POLICY"]}  # fmt: skip
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if chosen else {"rows": {}}
    kept["machine"] = machine
    if not chosen or "mmd" in chosen:
        kept["ratios"] = apart(partial(ratios, *SIZES["16×128²"]), threads, limit=600)
        print(kept["ratios"], flush=True)
    for name in chosen or [*ORIGINALS, *sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))]:
        kept["rows"][name] = {size: apart(partial(measure, name, *shape), threads) for size, shape in SIZES.items()}
        print(line(name, kept["rows"][name]), flush=True)
        KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
