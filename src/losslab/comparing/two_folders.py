"""Two folders: pictures of the same name, and the mean distance."""

from collections.abc import Sequence
from pathlib import Path

import torch

from losslab.comparing.distances import between, check_sizes, how
from losslab.comparing.listing import Listing, write_rows
from losslab.comparing.partners import named, partners
from losslab.losses.panel import Panel


def two_folders(panel: Panel, folders: Sequence[Path], size: int | None, out: Path | None, *, skip: bool) -> None:
    """Print the distance of each two pictures of one name under each loss, and the mean.

    Args:
        panel: of losses.
        folders: two.
        size: side in pixels that all pictures are scaled to; None leaves them, and pairs may have different ones.
        out: CSV file of all distances; None writes none.
        skip: whether pictures without a partner are left out.

    Raises:
        ValueError: pictures have no partner, or one of another size, or are none.
    """
    pairs, alone = partners(*folders)
    if alone and not skip:
        raise ValueError(f"{len(alone)} pictures have no partner: {named(alone)}; missing=skip leaves them out")
    if size is None:
        check_sizes([*pairs.values()])
    head = [f"{len(pairs)} pictures of {folders[0]} and {folders[1]}, {how(None, size)}"]
    if alone:
        head.append(f"left out, without a partner: {named(alone)}")
    measured = between(panel, [*pairs.values()], size)
    found = Listing(head, [*pairs], panel.names).run(measured, torch.arange(len(pairs))[:, None])
    if out is not None:
        write_rows(out, ["name", *panel.names], [[name] for name in pairs], found)
