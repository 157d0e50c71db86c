"""Make docs/layers.md: the layers of the loss networks, read off their graphs.

python docs/make_layers.py            # or: make docs
python docs/make_layers.py --check    # exit code 1 if the page is not what would be made
python docs/make_layers.py --check vgg16 resnet18    # of these networks' sections alone, which is quicker
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import torch
from torch import fx

from losslab.config import CONF, build, load, plain
from losslab.networks.cutting import Traced, shapes
from losslab.networks.layers import node_of
from losslab.networks.receptive_field import fields
from losslab.networks.table import LayerRow, layer_rows
from losslab.networks.weights import Architecture

PAGE = ROOT / "docs" / "layers.md"
SIDE = 224
"""Pixels, of the image that the numbers are for: what torchvision's classifiers are mostly scored on."""

# Pihlgren et al., arXiv 2302.04032
STUDY = ("alexnet", "vgg11", "vgg16", "vgg16_bn", "vgg19", "densenet121", "resnet18", "resnet50", "resnext50_32x4d",
         "googlenet", "inception_v3", "squeezenet1_1", "efficientnet_b0", "efficientnet_b7")  # fmt: skip

INTRODUCTION = f"""# Layers

Made by `make docs` from `conf/network` and the architectures themselves; edit those.

A deep loss compares the features of layers, `loss=deep network=vgg16 layer=relu3_3`, and a layer can be named in five
ways:

| `layer=` | what |
|---|---|
| `relu3_3` | its name below: the papers' where there is one. What stands before a ReLU has its own name, `conv3_3` |
| `features.15` | the node of torchvision's graph |
| `3` | a slot: one of the four layers that the study of Pihlgren et al. (arXiv 2302.04032) read, from shallow to deep |
| `child:15` | an index of that study, into the network's children |
| `layer2.0.conv1` | a node inside a child: `python src/layers.py network=resnet18` lists all of them |

`pixels` is the image as the network is fed it. `layer=all` is one loss over the four slots, `layer=[relu1_2,3]` over
these two, `layer=each` a panel of four losses, `layer=[[1,2],[3]]` one of two. A network is run up to the deepest
layer asked for.

```
python src/layers.py network=vgg16 side=64                        # every layer for images of 64×64 pixels
python src/features.py photo.png network=vgg16 layer=relu1_2      # what its channels look like
python src/compare.py a.png b.png loss=deep network=resnet18 layer=2
```

Not listed: any convolutional classifier of timm (`network=timm network.architecture.name=…`, with `losslab[timm]`),
whose layers go by their nodes, as `python src/layers.py` prints them. Networks of tokens (ViT, Swin, MaxViT) have no
maps of places that these losses could compare, and are refused by name.

**Columns.** *Channels*. *Places*: height and width for an image of {SIDE}×{SIDE} pixels. *Stride*: pixels from one
place to the next. *Sees*: side of the square of pixels that a place depends on, in pixels, also where it is larger
than the image; *+ all*: through squeeze-and-excitation each place also depends on means over the whole image.
*GFLOP*: for that image and all that the layer needs, two for a multiplication and addition, convolutions and matrix
products alone. *Smallest*: side in pixels of the smallest image that has a place there; a layer without one is a mean
over all places and can't be compared.
"""


def smallest_sides(architecture: Architecture, nodes: list[str]) -> dict[str, int]:
    """Find the smallest square image that has a place at each node, in pixels; nodes from the image upwards."""
    module = Traced(architecture).cut(nodes)
    side, found = 1, {}
    reached = Reached(module).names(architecture.channels, side)
    for node in nodes:
        while node not in reached:
            side += 1
            reached = Reached(module).names(architecture.channels, side)
        found[node] = side
    return found


class Reached(fx.Interpreter):
    """Runs a cut architecture on the meta device for as long as the image is large enough."""

    def names(self, channels: int, side: int) -> set[str]:
        """Name the outputs that have a place in a square image."""
        self.made: dict[fx.Node, torch.Tensor] = {}
        with suppress(RuntimeError), torch.no_grad():  # a window that is larger than what is left of the image
            self.run(torch.empty(1, channels, side, side, device="meta"))
        graph: fx.Graph = self.module.graph  # type: ignore[assignment]
        outputs = next(node for node in graph.nodes if node.op == "output").args[0]
        return {name for name, node in outputs.items() if node in self.made}

    def run_node(self, n: fx.Node) -> Any:
        """Keep what a node gives."""
        made = super().run_node(n)
        if isinstance(made, torch.Tensor):
            self.made[n] = made
        return made


def section(name: str) -> str:
    """Give the table of a network's children."""
    network = plain(load(f"network={name}"))["network"]
    architecture = build(network["architecture"])
    rows = [row for row in layer_rows(architecture, network, SIDE) if row.child is not None]
    sides = smallest_sides(architecture, [row.node for row in rows])
    lines = [f"## {name}", "", head(name), ""]
    lines += ["| layer | node | slot | child | channels | places | stride | sees | GFLOP | smallest |",
              "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*lines, *(line(row, sides[row.node]) for row in rows), ""])


def line(row: LayerRow, smallest: int) -> str:
    """Give a layer's line."""
    channels, height, width = row.shape
    local = row.field.size > 1 or not row.field.whole
    sees = f"{row.field.size}{' + all' if row.field.whole else ''}" if local else "all"
    cells = [f"`{row.name}`", f"`{row.node}`", row.slot or "", f"`child:{row.child}`", channels, f"{height}×{width}"]
    cells += [row.field.stride if local else "", sees, f"{row.flops / 1e9:.3f}", smallest if local else ""]
    return f"| {' | '.join(map(str, cells))} |"


def head(name: str) -> str:
    """Give the first line of a network's config: what it is, and its source."""
    with (CONF / "network" / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip().partition("; its layers")[0]


def slots() -> str:
    """Give the table of the four slots of all classifiers."""
    about = "Name, channels and stride, for every classifier of torchvision that is here; the study's are **bold**."
    lines = ["## The four slots", "", about, ""]
    lines += ["| `network=` | `layer=1` | `layer=2` | `layer=3` | `layer=4` |", "|---|---|---|---|---|"]
    for name in classifiers():
        cells = slot_cells(plain(load(f"network={name}"))["network"])
        lines.append(f"| {f'**{name}**' if name in STUDY else name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def classifiers() -> list[str]:
    """Name the networks that are torchvision's, but for the one that takes any name."""
    files = sorted((CONF / "network").glob("*.yaml"))
    texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    return [name for name, text in texts.items() if "torchvision_model" in text and "name: ???" not in text]


def slot_cells(network: dict[str, Any]) -> list[str]:
    """Describe each of a network's slots."""
    nodes = [node_of(network["layers"], name) for name in network["slots"]]
    module = Traced(build(network["architecture"])).cut(nodes)
    found, seen = shapes(module, SIDE), fields(module)
    return [
        f"`{name}`, {found[node][0]}, /{seen[node].stride}" for name, node in zip(network["slots"], nodes, strict=True)
    ]


def page() -> str:
    """Write the whole page."""
    return "\n".join([INTRODUCTION, *map(section, STUDY), slots()]).rstrip() + "\n"


def main(names: list[str]) -> int:
    """Write the page, or compare it or some sections of it."""
    if "--check" not in names:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    some = [name for name in names if name != "--check"]
    if all(section(name) in old for name in some) and INTRODUCTION in old if some else page() == old:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what the networks say now: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
