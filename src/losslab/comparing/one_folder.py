"""One folder within itself: each picture and the next one, or each two."""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from losslab.comparing.distances import Measured, how, table_of, within
from losslab.comparing.listing import Listing, write_matrices, write_rows
from losslab.comparing.partners import pictures_in
from losslab.losses.panel import Panel
from losslab.types import Bytes


def one_folder(panel: Panel, folder: Path, size: int | None, out: Path | None, pairs: str, first: int | None) -> None:
    """Print the distances of pictures of one folder under each loss, and the mean.

    Args:
        panel: of losses.
        folder: of pictures of one size.
        size: side in pixels that all pictures are scaled to; None leaves them.
        out: CSV file of all distances, None writes none; of all pairs, a matrix a loss.
        pairs: "consecutive" (each picture and the next one by name) or "all" (each two).
        first: number of pictures, the others are left out; None takes all.

    Raises:
        ValueError: pictures differ in size, are none, or fewer than two.
    """
    files = pictures_in(folder)[:first]
    if len(files) < 2:
        raise ValueError(f"pairs are of two pictures at least, got {files[0]} alone")
    pictures, names = table_of(files, size), [file.name for file in files]
    wanted = (
        torch.arange(len(files)).unfold(0, 2, 1)
        if pairs == "consecutive"
        else torch.triu_indices(len(files), len(files), 1).T
    )
    head = [f"{len(wanted)} pairs of {len(files)} pictures in {folder}, {how(pictures, size)}"]
    width = max(map(len, names))
    both = [(names[a], names[b]) for a, b in wanted.tolist()]
    listing = Listing(head, [f"{a:{width}}  {b}" for a, b in both], panel.names)
    if out is None or pairs == "consecutive":
        found = listing.run(within(panel, pictures, wanted), wanted)
        if out is not None:
            write_rows(out, ["first", "second", *panel.names], both, found)
        return
    table = torch.empty(len(files), len(files), len(panel.names))
    listing.run(_kept(panel, pictures, wanted, table), wanted)
    write_matrices(out, panel.names, names, table)


def _kept(panel: Panel, pictures: Bytes, wanted: Int[Tensor, "pairs 2"], table: Tensor) -> Measured:
    """Measure all to all, as not every loss is symmetric; keep that in `table`, and hand out what is wanted."""
    places = torch.full(table.shape[:2], -1)
    places[wanted[:, 0], wanted[:, 1]] = torch.arange(len(wanted))
    everything = torch.cartesian_prod(*[torch.arange(len(pictures))] * 2)
    for numbers, rows in within(panel, pictures, everything):
        first, second = everything[numbers].T
        table[first, second] = rows
        asked = places[first, second]
        yield asked[asked >= 0], rows[asked >= 0]
