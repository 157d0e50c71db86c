"""Make docs/speed.md of what benchmarks/networks.py, two_afc.py and gim.py measured.

python docs/make_speed.py            # or: make docs
python docs/make_speed.py --check    # exit code 1 if the page is not what would be made
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
MEASURED = ROOT / "benchmarks" / "networks.json"
JUDGES = ROOT / "benchmarks" / "two_afc.json"
MEANS = ROOT / "benchmarks" / "gim.json"

HEAD = """# What loss networks cost

Made by `make docs` from `benchmarks/networks.json`, which `python benchmarks/networks.py` measures in one run: {cores} cores
({processor}), {threads} threads, `OMP_WAIT_POLICY={wait_policy}`, torch {torch}, torchvision {torchvision}; images of 64 × 64
pixels, random weights (the same for all), medians of five rounds in which the contenders take turns. The packages are
`lpips` and `torchmetrics` as they come from the package registry.

## LPIPS

Scoring 48 triplets: a reference and two candidates each. The packages compare pairs, so they pass the reference twice.
Training: forward and backward to 16 images whose targets stay; losslab keeps the targets' encoding.

| | losslab | losslab, `precision=bf16` | lpips | torchmetrics |
|---|---|---|---|---|"""

PANEL = """## Panels

Four layers of VGG-16 × five comparisons × normalised or not, 48 triplets (`layer=each compare=each normalize=each`): one plain
pass of the network over the {count} images takes {0:.2f} s, the panel with its 40 distances {1:.2f} s ({2:.2f} times as long), its 40
cells one after another {3:.1f} s ({4:.0f} times the panel). Beyond its images and weights the panel takes {memory} at the
peak: images are encoded a few at a time, whatever their number.

## bfloat16

How often the distance chooses as people did on 21,406 real human triplets (renderings of materials, Lagunas et al., SIGGRAPH 2019,
train part without ties, resized to 64 × 64), and how many of its choices bfloat16 leaves as they are. The four slots, compared as the study's
`spatial`; "random": Kaiming, first filters of zero mean, one seed.

| | agrees with people | unchanged by bfloat16 |
|---|---|---|"""

JUDGING = """## Judging

Triplets a second of `task=two_afc` on {triplets} triplets in BAPPS' layout (PNG files of 256 × 256 pixels, scored at 64 × 64), from the
table of pictures, decoded before, to scores and intervals; beside it `score_2afc_dataset` of the `lpips` package in batches of 50, whose
loader decodes at each pass. Random weights. Measured by `python benchmarks/two_afc.py` in one run, medians of three rounds in turns.

| | triplets a second | the package's loop | × |
|---|---|---|---|"""

DECODING = """
Pictures are decoded once, {decoded:.0f} a second, into a file that is mapped into memory; from then on they come at {again:.0f} a second
(the package's loader gives {theirs:.0f}, each time anew). Scoring takes {most:.0f} a second at most, so that from the second pass on reading is
not what it waits for. The very first pass over new pictures waits for the decoder: LPIPS-alex scores {first:.0f} triplets a second then
({first_ratio:.1f} times the package's loop).
BAPPS' 36,344 val triplets with the panel of 40: {hours:.2f} hours, extrapolated."""

MEAN = """
## Images between others

The protocol of the blog on the generalized image mean (four crops of 128 × 128 pixels, CNN1 with 32 channels, L1, 625 updates): `task=gim` takes
{ours:.1f} s from `trainer.fit` to its end, a transcription of the blog's loop {theirs:.0f} s in the same run, **{times:.0f} times** as long. Their losses are
{loss:.6f} and {their_loss:.6f}. The loop copies image and crops to batches of 32; here an image is encoded once a step. Measured by
`python benchmarks/gim.py`.

| a step of | one set | 16 sets | × |
|---|---|---|---|
{rows}

Sixteen sets take {peak:.0f} MiB at the peak, where their targets' encodings take {targets:.0f} and the activations of 16 images {activations:.0f}.
"""

TAIL = """Don't read a ranking of networks into the first column: the pictures show one object in one light, so that structure is most of what
differs (`loss=ssim` reaches .764, `loss=l2` .639 there), and random filters of zero mean look at nothing else. The same random networks
with torch's own default weights, which see colour, reach .64.

## What did not pay, or was not taken

- `torch.inference_mode` instead of `no_grad`: no difference beyond noise. ReLUs in place: none either, and they overwrite layers.
- Channels-last (`network.channels_last=true`): 1.1 to 2 times as fast a forward pass, 0.9 to 1.4 times a step; rounding errors of VGG-16 grow
  fourfold, beyond three times the `lpips` package's, so that it is a switch. bfloat16 always has it.
- oneDNN fusion by `torch.jit.optimize_for_inference`: VGG-16 1.7 times, AlexNet 1.3 times as fast; deprecated in torch, no gradient, one image size.
- `torch.compile`: VGG-16 1.9 times, AlexNet 1.3 times as fast, after 8 to 23 seconds of compiling for each cut and size, with a C++ compiler at hand.
- More images at a time: from 32 MiB a map on, the C library maps and clears new pages for each tensor, a third of VGG-16's time."""


def page(found: dict[str, Any], judged: dict[str, Any], means: dict[str, Any]) -> str:
    """Write the page."""
    lines = [HEAD.format(**found["machine"])]
    for net in ("alexnet", "vgg16"):
        for kind, what in (("scoring", "scoring"), ("training", "a training step")):
            lines.append(_row(f"{net}, {what}", found[f"{kind} {net}"]))
    panel, kept = found["panel"], found["memory"].values()
    times = panel["plain pass"], panel["panel"], panel["panel"] / panel["plain pass"]
    memory = f"{min(kept):.0f} to {max(kept):.0f} MiB for {', '.join(found['memory'])} triplets"
    numbers = (*times, panel["40 cells"], panel["40 cells"] / panel["panel"])
    lines += ["", PANEL.format(*numbers, count=144, memory=memory)]
    if isinstance(found["decisions"], str):
        lines.append(f"| {found['decisions']} | | |")
    else:
        lines += [
            f"| {name} | {one['people']:.3f} | {one['unchanged']:.2%} |" for name, one in found["decisions"].items()
        ]
    return "\n".join([*lines, "", TAIL, "", *_judging(judged), _between(means)])


def _judging(found: dict[str, Any]) -> list[str]:
    """Give the section on the 2AFC task."""
    speed, rates = found["triplets a second"], found["pictures a second"]
    rows = []
    for name, one in speed.items():
        if not name.endswith("package"):
            theirs = speed.get(f"{name}, lpips package")
            rows.append(f"| {name} | {one:.0f} | " + (f"{theirs:.0f} | {one / theirs:.2f} |" if theirs else "| |"))
    told = {
        "decoded": rates["decoded"],
        "again": rates["opened again"],
        "theirs": rates["by the package's loader"],
        "first": (first := 1 / (1 / speed["lpips alex"] + 3 / rates["decoded"])),
        "first_ratio": first / speed["lpips alex, lpips package"],
        "most": max(found["pictures a second that scoring takes"].values()),
        "hours": found["hours for BAPPS"],
    }
    return [JUDGING.format(**found), *rows, DECODING.format(**told)]


def _between(found: dict[str, Any]) -> str:
    """Give the section on generalized image means."""
    steps, held = found["many"], found["memory"]
    names = [name.removesuffix(", ratio") for name in steps if name.endswith(", ratio")]
    rows = [
        f"| {name} | {steps[f'{name}, one set, ms']:.1f} ms | {steps[f'{name}, 16 sets, ms']:.0f} ms | {steps[f'{name}, ratio']:.1f} |"
        for name in names
    ]
    return MEAN.format(
        ours=found["task"]["seconds"],
        theirs=found["plain loop"]["seconds"],
        times=found["times"],
        loss=found["task"]["loss"],
        their_loss=found["plain loop"]["loss"],
        rows="\n".join(rows),
        peak=held["peak, MiB"],
        targets=held["targets, MiB"],
        activations=held["activations of 16 images, MiB"],
    )


def _row(name: str, seconds: dict[str, float]) -> str:
    """Give seconds, and how many times losslab's the others are."""
    ours = seconds["losslab"]
    cells = [f"{ours * 1000:.0f} ms"]
    for other in ("losslab, bf16", "lpips", "torchmetrics"):
        ratio = seconds[other] / ours if other in seconds else 0
        cells.append(f"{seconds[other] * 1000:.0f} ms (× {ratio:.2f})" if ratio else "")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    """Write the page, or check it."""
    made = page(*(json.loads(path.read_text(encoding="utf-8")) for path in (MEASURED, JUDGES, MEANS)))
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
