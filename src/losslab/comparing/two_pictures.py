"""Two picture files: a line a loss, and where they differ."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from losslab import images
from losslab.comparing.distances import how, table_of
from losslab.files import write_bytes
from losslab.losses.panel import Panel
from losslab.types import Image

MAPPED = (
    "l1", "l2", "lp", "charbonnier", "ssim", "patch_rbf", "patch_laplacian", "gabor", "prewitt", "scnn", "deep", "lpips"
)  # fmt: skip
"""Words for losses that have maps, `deep` where its comparisons go place by place; sums of them have too."""


def two_pictures(panel: Panel, files: Sequence[Path], size: int | None, chart: Path | None, *, parts: bool) -> None:
    """Print the distance of two files under each loss, and write their maps.

    Args:
        panel: of losses.
        files: two of one size.
        size: side in pixels that both are scaled to; None leaves them.
        chart: where the maps go: a picture, or numbers (losses, height, width) where it ends in .npy; None wants none.
        parts: whether terms are shown.

    Raises:
        ValueError: the sizes differ, a file is no picture, or a loss has no map.
    """
    pictures = table_of(files, size)
    a, b = images.to_float(pictures)[:, None]
    table = [("loss", "distance"), *rows(panel, a, b, parts=parts)]
    if chart is not None:
        draw(chart, panel, files, a, b)
    width = max(len(name) for name, _ in table)
    print(f"{' and '.join(map(str, files))}, {how(pictures, size)}")
    print(*(f"{name:{width}}  {number}" for name, number in table), sep="\n")


def rows(panel: Panel, a: Image, b: Image, *, parts: bool) -> Iterator[tuple[str, str]]:
    """Give each loss and its distance, and below it, where asked for and several, its terms."""
    (table,) = panel.measure(a, b)
    for name, distance in table.items():
        yield name, f"{distance.item():.6g}"
        if parts:
            loss = panel.losses[name]
            with torch.no_grad():
                terms = loss.parts(loss.encode(a), loss.encode(b))
            if len(terms) > 1:
                yield from ((f"  {term}", f"{share.item():.6g}") for term, share in terms.items())


def draw(chart: Path, panel: Panel, files: Sequence[Path], a: Image, b: Image) -> None:
    """Write the map of each loss as a picture or as numbers.

    Raises:
        ValueError: a loss has no map.
    """
    maps = maps_of(panel, a, b)
    if chart.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, torch.stack([*maps.values()]).numpy())
        write_bytes(chart, content.getvalue())
        return
    from losslab.figures.spatial_map import spatial_map  # matplotlib takes time, which only maps should wait for

    (distances,) = panel.measure(a, b)
    told = [file.name for file in files] if len({file.name for file in files}) > 1 else [*map(str, files)]
    shown = {name: (values, distances[name].item()) for name, values in maps.items()}
    images.write(chart, spatial_map(dict(zip(told, (a[0], b[0]), strict=True)), shown))


@torch.no_grad()
def maps_of(panel: Panel, a: Image, b: Image) -> dict[str, Float[Tensor, "height width"]]:
    """Give the map of each loss.

    Raises:
        ValueError: a loss has none.
    """
    found = {}
    for name, loss in panel.losses.items():
        try:
            found[name] = loss.maps(loss.encode(a), loss.encode(b))[0, 0]
        except ValueError as error:
            raise ValueError(
                f"{name} has no map of the distance at each pixel: {error}; losses with maps are {', '.join(MAPPED)}"
            ) from error
    return found
