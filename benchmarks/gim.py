"""Generalized image means beside a transcription of the blog's loop, in one run.

python benchmarks/gim.py                 # eight minutes on 2 cores, alone; rewrites gim.json

The blog's protocol: four crops of a photograph, 128 × 128 pixels, CNN1 of 32 channels with the same random weights, L1,
from black, 625 updates of Adam at 0.005. Its loop copies image and crops to batches of 32 and encodes all of them at
each update, but for the crops' features, which it keeps. Ours is the task as `python src/train.py` runs it, from
`trainer.fit` to its end.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))
warnings.simplefilter("ignore")

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from losslab import images
from losslab.allocator import keep_freed_memory
from losslab.config import build, load, plain
from losslab.losses.sets import SetDistances
from losslab.types import leaves

KEPT = HERE / "gim.json"
UPDATES, BATCH, RATE = 625, 32, 0.005
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "ihc", "retina", "hubble_deep_field")
PROTOCOL = ("task=gim_blog", "loss=deep", "network=cnn1", "compare=l1", "data.size=128")
MANY_UPDATES, MANY, ROUNDS = 60, 16, 3


def parts(count: int, *words: str) -> tuple[dict[str, Any], Any, Any]:
    """Build the loss and the data for so many sets."""
    offset = 3 if count <= len(NAMES) else 2
    names = ",".join(NAMES[:count])
    settings = plain(load(*PROTOCOL, f"data.names=[{names}]", f"data.offset={offset}", *words))
    data = build(settings["data"])
    data.setup()
    return settings, build(settings["loss"]), data


def theirs(network: nn.Module, crops: Tensor) -> tuple[Tensor, float]:
    """Do what the blog's loop does, in its order."""
    source = nn.Parameter(torch.zeros(crops.shape[1:]))
    optimizer = torch.optim.Adam([source], lr=RATE)
    batch = crops.repeat(BATCH // len(crops), 1, 1, 1)
    with torch.no_grad():
        wanted = network(batch)
    started = time.perf_counter()
    for _ in range(UPDATES):
        loss = functional.l1_loss(network(source[None].repeat(BATCH, 1, 1, 1)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # its progress bar shows it
    return source.detach(), time.perf_counter() - started


def ours(settings: dict[str, Any], loss: Any, data: Any, updates: int) -> tuple[Tensor, float]:
    """Run the task."""
    task = build(settings["task"], loss=loss)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", logger=False,
                             enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                             default_root_dir=folder)  # fmt: skip
        started = time.perf_counter()
        trainer.fit(task, datamodule=data)
        seconds = time.perf_counter() - started
    return torch.stack([*task.images]).detach(), seconds


def blogs() -> tuple[dict[str, Any], Any, Any, nn.Module, Tensor]:
    """Build the protocol: the task's parts, and the same network and crops for the blog's loop."""
    settings, loss, data = parts(1)
    first, second = (module for module in loss.modules() if isinstance(module, nn.Conv2d))
    return settings, loss, data, nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), images.to_float(data.sets.pictures)


def mine() -> dict[str, float]:
    """Run the task on the protocol: the median seconds, and the blog's loss of what it finds."""
    settings, loss, data, network, crops = blogs()
    found = [ours(settings, loss, data, UPDATES) for _ in range(ROUNDS)]
    return {"seconds": statistics.median(each for _, each in found), "loss": blog_loss(network, found[0][0][0], crops)}


def plain_loop() -> dict[str, float]:
    """Run the blog's loop on the protocol."""
    *_, network, crops = blogs()
    found, seconds = theirs(network, crops)
    return {"seconds": seconds, "loss": blog_loss(network, found, crops)}


@torch.no_grad()
def blog_loss(network: nn.Module, found: Tensor, crops: Tensor) -> float:
    """Give the loss that both loops are after."""
    return float(functional.l1_loss(network(found[None]).expand(len(crops), -1, -1, -1), network(crops)))


def many() -> dict[str, float]:
    """Time a step of one set and of sixteen, in turns."""
    steps = {}
    for name, loss in {"cnn1 l1": (), "l2": ("loss=l2",), "mmdpp": ("loss=mmdpp",)}.items():
        found: dict[int, list[float]] = {1: [], MANY: []}
        built = {count: sixteen(count, *loss) for count in found}
        for _ in range(ROUNDS):
            for count, each in found.items():
                each.append(ours(*built[count], MANY_UPDATES)[1] / MANY_UPDATES)
        one, more = (statistics.median(found[count]) for count in (1, MANY))
        steps |= {
            f"{name}, one set, ms": 1e3 * one,
            f"{name}, {MANY} sets, ms": 1e3 * more,
            f"{name}, ratio": more / one,
        }
    return steps


def sixteen(count: int, *words: str) -> tuple[dict[str, Any], Any, Any]:
    """Give one set, or sixteen: each photograph as it is, and its half."""
    settings, loss, data = parts(min(count, len(NAMES)), *words)
    if count > len(NAMES):
        half = parts(len(NAMES), "data.zoom=0.5", *words)[2]
        sets = data.sets
        data.sets = type(sets)(torch.cat([sets.pictures, half.sets.pictures]), sets.sizes * 2,
                               (*sets.names, *(f"{name}, half" for name in sets.names)))  # fmt: skip
        data.weights = data.weights.repeat(2)
    return settings, loss, data


def memory() -> dict[str, float]:
    """Measure the peak of sixteen sets in MiB, beside what targets and activations of sixteen images take."""
    _, loss, data = sixteen(MANY)
    pictures = images.to_float(data.sets.pictures)
    start = torch.zeros(MANY, *pictures.shape[1:])
    sets = SetDistances(loss, pictures[: 4 * 2], data.sets.sizes[:2], data.weights[:8])
    sets(start[:2].requires_grad_(), range(2)).sum().backward()  # what the libraries take once
    before = _peak(reset=True)
    sets = SetDistances(loss, pictures, data.sets.sizes, data.weights)
    moving = start.detach().requires_grad_()
    sets(moving, range(MANY)).sum().backward()
    after = _peak()
    held = sum(one.untyped_storage().nbytes() for one in {id(one): one for one in leaves(sets.targets)}.values())
    seen: list[int] = []
    for module in loss.modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda _, __, out: seen.append(out.nbytes))
    loss.embed(start.detach())
    scale = 2**20
    return {
        "peak, MiB": (after - before) / scale,
        "targets, MiB": held / scale,
        "activations of 16 images, MiB": sum(seen) / scale,
    }


def _peak(*, reset: bool = False) -> int:
    """Give the largest resident size of this process, in bytes, since it was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM" if not reset else "VmRSS")).split()[1])


def apart(what: str) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this very file
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


WORK = {"task": mine, "plain loop": plain_loop, "many": many, "memory": memory}

if __name__ == "__main__":
    if sys.argv[1:]:
        if sys.argv[1] != "plain loop":
            keep_freed_memory()  # as a run does
        print(json.dumps(WORK[sys.argv[1]]()))
    else:
        measured: dict[str, Any] = {what: apart(what) for what in ("memory", "many", "task", "plain loop", "task")}
        measured["times"] = measured["plain loop"]["seconds"] / measured["task"]["seconds"]
        measured = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "threads": torch.get_num_threads(),
            **measured,
        }
        KEPT.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(measured, indent=1))
