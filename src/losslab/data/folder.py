"""Any folder of pictures as a data set."""

from pathlib import Path

import torch

from losslab.data.base import ImageData
from losslab.data.fitting import FITS, Fitting, pictures_below, readable
from losslab.seeds import generator
from losslab.types import Bytes


class Folder(ImageData):
    """All pictures below a folder, brought to one size and held in memory as bytes.

    Args:
        root: the folder; its subfolders count, what is hidden does not.
        size: side of the images in pixels.
        fit: how a picture gets there: "center" scales its shorter side to `size` and keeps the middle, "random" keeps a
            place drawn by `crop_seed`, the same one in every epoch; "stretch" scales both sides; "crop" and
            "random_crop" keep the middle, or a drawn place, of the picture as it is.
        on_bad: what an unreadable picture does: "error" stops and names it, "skip" leaves it out and counts it.
        val_share: share of the pictures that is val, drawn by `crop_seed`.
        crop_seed: of the places and of the split.
        batch_size: images a training step, over all devices.
        seed: of the order in training.

    Raises:
        ValueError: unknown option; no folder at `root`, or no picture in it; an unreadable one under on_bad="error";
            one that is smaller than a crop.
    """

    FITS = FITS

    def __init__(
        self,
        root: str | Path,
        size: int = 64,
        fit: str = "center",
        on_bad: str = "error",
        val_share: float = 0.1,
        crop_seed: int = 0,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        """Check the options."""
        super().__init__(batch_size, seed)
        self.fitting = Fitting(size, fit, on_bad, crop_seed)
        if not 0 <= val_share < 1:
            raise ValueError(f"data.val_share is at least 0 and less than 1, got {val_share}")
        self.root = Path(str(root)).expanduser()
        self.val_share, self.crop_seed = val_share, crop_seed
        self.skipped: list[str] = []

    def load(self) -> tuple[Bytes, Bytes]:
        """Read every picture and split them."""
        stored, self.skipped = readable(self.fitting.read(self._paths()), self.root)
        order = torch.randperm(len(stored), generator=generator(self.crop_seed))
        border = len(stored) - int(len(stored) * self.val_share)
        return stored[order[:border].sort().values], stored[order[border:].sort().values]

    def files(self) -> list[Path]:
        """List the pictures, in order."""
        return self._paths()

    def facts(self) -> dict[str, int]:
        """Count the images, and those that were skipped."""
        return super().facts() | {"skipped_images": len(self.skipped)}

    def _paths(self) -> list[Path]:
        if not self.root.is_dir():
            raise ValueError(f"data.root={self.root} is no folder")
        return pictures_below(self.root)
