"""What the machinery costs beside the work: a table of ratios and seconds, measured in one run on a quiet machine.

python benchmarks/overhead.py            # about ten minutes; rewrites benchmarks/overhead.md
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import contextlib
import io
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

import pytorch_lightning as pl
import torch

from losslab.config import build, load, plain
from losslab.runs import read_results
from losslab.runs.command import run_sweep
from losslab.runs.crews import OneByOne
from losslab.runs.journal import Journal
from losslab.runs.plan import Request

ROUNDS = 5
TRAININGS = 3
"""Rounds of the long measurement: the task's own 480 steps."""


def request(*words: str) -> Request:
    """Resolve a cell's config."""
    return Request(plain(load(*words, "logger=csv")), {}, words)


def sweep(outputs: Path, *cells: tuple[str, ...]) -> float:
    """Run a serial sweep and give its seconds."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_sweep([request(*cell, f"outputs={outputs}") for cell in cells], lambda _: OneByOne())
    return time.perf_counter() - started


def cell_words(seed: int) -> tuple[str, ...]:
    """A cell with next to no work of its own: two steps on tiny images with a tiny generator."""
    tiny = ("data.train_count=32", "data.val_count=4", "data.batch_size=16", "task.code_size=8")
    return (
        "loss=l1",
        f"seed={seed}",
        "trainer=fast",
        "trainer.max_epochs=1",
        "task.generator.widths=[16,16,16,16]",
        *tiny,
    )


def bare_cell(seed: int) -> float:
    """The work of such a cell in plain PyTorch: the same steps, scores and pictures."""
    return bare_glo(*cell_words(seed))


def bare_glo(*words: str) -> float:
    """Train GLO without Trainer, journal and checkpoints, and give the seconds."""
    settings = plain(load(*words, "logger=csv"))
    started = time.perf_counter()
    pl.seed_everything(settings["seed"], workers=True, verbose=False)
    data, loss = build(settings["data"]), build(settings["loss"])
    task = build(settings["task"], loss=loss)
    data.setup()
    trainer = settings["trainer"]
    steps_an_epoch = trainer["limit_train_batches"]
    loader = data.train_dataloader()
    steps_an_epoch = len(loader) if isinstance(steps_an_epoch, float) else steps_an_epoch
    generator, codes, joint = _parts_of(task, data)
    schedule = task.scheduler(joint)
    generator.train()
    for epoch in range(trainer["max_epochs"]):
        loader.order.epochs.set_epoch(epoch)
        for number, batch in enumerate(loader):
            if number == steps_an_epoch:
                break
            with torch.no_grad():
                targets = loss.encode(batch.images)
            total = loss.compare(loss.encode(generator(codes[batch.indices])), targets).mean()
            joint.zero_grad()
            total.backward()
            joint.step()
            with torch.no_grad():
                codes.copy_(codes / codes.norm(dim=1, keepdim=True).clamp(min=1))
        schedule.step()
    _score(generator, codes, data)
    return time.perf_counter() - started


def _parts_of(task: Any, data: Any) -> tuple[torch.nn.Module, torch.nn.Parameter, Any]:
    from losslab.models.codes import project, start_codes
    from losslab.optimizers import JointOptimizer

    originals = data.train.stored
    codes = torch.nn.Parameter(project(start_codes(task.init, originals, task.code_size, task.seed), task.projection))
    generator = task.make_generator(code_size=task.code_size, image_size=originals.shape[-1])
    optimizers = task.make_optimizers
    joint = JointOptimizer(
        codes=optimizers["codes"]([codes]), generator=optimizers["generator"](generator.parameters())
    )
    return generator, codes, joint


@torch.no_grad()
def _score(generator: torch.nn.Module, codes: torch.Tensor, data: Any) -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    generator.eval()
    for batch in data.test_dataloader():
        found = generator(codes[batch.indices])
        peak_signal_noise_ratio(found, batch.images, data_range=1.0)
        structural_similarity_index_measure(found, batch.images, data_range=1.0)


def alternate(*works: Callable[[int], float], rounds: int = ROUNDS) -> list[list[float]]:
    """Time works in turn, so that a change of the machine meets all of them."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        for place, work in enumerate(works):
            times[place].append(work(number))
    return times


def cells(folder: Path) -> dict[str, Any]:
    """Time a serial cell after the first against its own work."""
    sweep(folder / "first", cell_words(1000))
    bare_cell(1000)
    ten = 10

    def ours(number: int) -> float:
        return sweep(folder / str(number), *(cell_words(number * ten + i) for i in range(ten))) / ten

    whole, bare = alternate(ours, lambda number: statistics.mean(bare_cell(number * ten + i) for i in range(ten)))
    beyond = statistics.median(a - b for a, b in zip(whole, bare, strict=True))
    return {"what": "a serial cell after the first, beyond its own work", "seconds": f"{beyond:.3f}",
            "against": f"{statistics.median(bare):.3f} s of own work", "asked": "< 0.5 s"}  # fmt: skip


def journal(folder: Path) -> dict[str, Any]:
    """Time the reading of 10,000 lines into a table."""
    sweep(folder / "journal", cell_words(0))
    (text,) = (line for line in (folder / "journal" / "journal.jsonl").read_text().splitlines() if '"cell"' in line[:8])
    entry = json.loads(text)
    entry.pop("sum")
    big = folder / "big"
    whole = os.fsync
    os.fsync = lambda _: None  # only the reading is measured
    for number in range(10_000):
        Journal(big / "journal.jsonl").append({**entry, "cell": f"{number:010}"})
    os.fsync = whole

    def ours(_: int) -> float:
        started = time.perf_counter()
        assert len(read_results(big)) == 10_000
        return time.perf_counter() - started

    def plain_json(_: int) -> float:
        started = time.perf_counter()
        with (big / "journal.jsonl").open() as file:
            assert len([json.loads(line) for line in file]) == 10_000
        return time.perf_counter() - started

    table, parsed = alternate(ours, plain_json)
    size = (big / "journal.jsonl").stat().st_size / 1e6
    return {"what": f"10,000 lines of the journal ({size:.1f} MB) into a table", "seconds": f"{min(table):.2f}",
            "against": f"{statistics.median(table) / statistics.median(parsed):.1f} × json.loads of the lines",
            "asked": "< 2 s"}  # fmt: skip


def training(folder: Path) -> dict[str, Any]:
    """Time GLO with L1 against a bare loop of the same steps."""
    words = ("loss=l1", "task=glo")

    def ours(number: int) -> float:
        return sweep(folder / f"glo{number}", words)

    whole, bare = alternate(ours, lambda _: bare_glo(*words), rounds=TRAININGS)
    ratios = [a / b for a, b in zip(whole, bare, strict=True)]
    return {"what": "GLO, loss=l1, 480 steps: all that a cell does", "seconds":
            f"{statistics.median(whole):.1f}", "against": f"{statistics.median(ratios):.3f} × a bare PyTorch loop "
            f"({min(ratios):.3f} to {max(ratios):.3f})", "asked": "< 1.05"}  # fmt: skip


def main() -> None:
    """Measure, print and write the table."""
    folder = Path(tempfile.mkdtemp(prefix="losslab-bench-"))
    rows = [measure(folder) for measure in (cells, journal, training)]
    shutil.rmtree(folder)
    names = ("what", "seconds", "against", "asked")
    lines = [
        f"| {' | '.join(names)} |",
        "|---|---:|---|---|",
        *(f"| {' | '.join(row[n] for n in names)} |" for row in rows),
    ]
    rounds = f"{ROUNDS} alternating rounds ({TRAININGS} of the training), medians"
    machine = f"{os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"
    head = f"Made by `python benchmarks/overhead.py`: {rounds}; {machine}, Python {platform.python_version()}."
    (HERE / "overhead.md").write_text("\n".join(["# What the machinery costs", "", head, "", *lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
