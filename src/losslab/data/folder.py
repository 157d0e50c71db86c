"""Any folder of pictures as a data set."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from losslab import images
from losslab.data.base import ImageData
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

    FITS = ("center", "random", "stretch", "crop", "random_crop")

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
        if fit not in self.FITS:
            raise ValueError(f"data.fit is one of {', '.join(self.FITS)}, got {fit!r}")
        if on_bad not in ("error", "skip"):
            raise ValueError(f"data.on_bad is 'error' or 'skip', got {on_bad!r}")
        if not 0 <= val_share < 1:
            raise ValueError(f"data.val_share is at least 0 and less than 1, got {val_share}")
        self.root, self.size, self.fit, self.on_bad = Path(str(root)).expanduser(), size, fit, on_bad
        self.val_share, self.crop_seed = val_share, crop_seed
        self.skipped: list[str] = []

    def load(self) -> tuple[Bytes, Bytes]:
        """Read every picture and split them."""
        paths = self._paths()
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self._read, range(len(paths)), paths))
        good = [image for image in found if isinstance(image, torch.Tensor)]
        self.skipped = [str(error) for error in found if isinstance(error, images.UnreadableImageError)]
        if not good:
            raise ValueError(f"none of the {len(paths)} pictures in {self.root} can be read; first: {self.skipped[0]}")
        order = torch.randperm(len(good), generator=generator(self.crop_seed))
        stored = torch.stack(good)
        border = len(good) - int(len(good) * self.val_share)
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
        inside = sorted(path.relative_to(self.root) for path in self.root.rglob("*"))
        seen = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
        paths = [self.root / path for path in seen if path.suffix.lower() in images.SUFFIXES]
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise ValueError(f"data.root={self.root} holds no picture ({' '.join(images.SUFFIXES)})")
        return paths

    def _read(self, number: int, path: Path) -> Bytes | images.UnreadableImageError:
        try:
            picture = images.to_float(images.read(path))
        except images.UnreadableImageError as error:
            if self.on_bad == "error":
                raise
            return error
        return images.to_bytes(self._fitted(picture, number, path))

    def _fitted(self, picture: torch.Tensor, number: int, path: Path) -> torch.Tensor:
        height, width = picture.shape[-2:]
        if self.fit == "stretch":
            return images.resize(picture, self.size, self.size)
        if self.fit in ("center", "random"):
            scale = self.size / min(height, width)
            picture = images.resize(
                picture, max(round(height * scale), self.size), max(round(width * scale), self.size)
            )
        height, width = picture.shape[-2:]
        if min(height, width) < self.size:
            raise ValueError(f"{path} has {height}×{width} pixels, too small for a crop of {self.size}: see data.fit")
        place = torch.tensor([0.5, 0.5])
        if self.fit.startswith("random"):
            place = torch.rand(2, generator=generator(self.crop_seed, number))
        top, left = (place * torch.tensor([height - self.size, width - self.size])).round().int().tolist()
        return picture[:, top : top + self.size, left : left + self.size]
