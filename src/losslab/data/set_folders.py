"""Sets of your own pictures: a folder each."""

from collections.abc import Sequence
from pathlib import Path

from losslab.data.fitting import Fitting, pictures_below, readable
from losslab.data.sets import ImageSets, SetData, gathered


class SetFolders(SetData):
    """Each subfolder of a folder is a set; a folder of pictures that has no subfolders is one set.

    Args:
        root: the folder; what lies deeper than its subfolders belongs to them, what is hidden does not count.
        names: subfolders that are taken, in this order; None: all, by name.
        size: side of the images in pixels.
        fit: how a picture gets there: "center" scales its shorter side to `size` and keeps the middle, "random" keeps a
            place drawn by `crop_seed` and the picture's number in its set; "stretch" scales both sides; "crop" and
            "random_crop" keep the middle, or a drawn place, of the picture as it is.
        on_bad: what an unreadable picture does: "error" stops and names it, "skip" leaves it out and counts it.
        crop_seed: of the places.
        weights: as in `SetData`.

    Raises:
        ValueError: unknown option; no folder at `root`, pictures beside subfolders, or a subfolder without a picture;
            an unreadable one under on_bad="error"; one that is smaller than a crop.
    """

    def __init__(
        self,
        root: str | Path,
        names: Sequence[str] | None = None,
        size: int = 128,
        fit: str = "center",
        on_bad: str = "error",
        crop_seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Check the options."""
        super().__init__(weights)
        if isinstance(names, str) or (names is not None and not names):
            raise ValueError(f"data.names is a list of subfolders, or null for all, got {names!r}")
        self.root, self.names = Path(str(root)).expanduser(), names
        self.fitting = Fitting(size, fit, on_bad, crop_seed)
        self.skipped: list[str] = []

    def load(self) -> ImageSets:
        """Read every set."""
        sets, self.skipped = [], []
        for folder, paths in self._sets():
            pictures, bad = readable(self.fitting.read(paths), folder)
            sets.append((folder.name, pictures))
            self.skipped += bad
        return gathered(sets)

    def files(self) -> list[Path]:
        """List the pictures, set by set."""
        return [path for _, paths in self._sets() for path in paths]

    def facts(self) -> dict[str, int]:
        """Count sets and pictures, and the pictures that were skipped."""
        return super().facts() | {"skipped_images": len(self.skipped)}

    def _sets(self) -> list[tuple[Path, list[Path]]]:
        if not self.root.is_dir():
            raise ValueError(f"data.root={self.root} is no folder")
        inside = [path for path in sorted(self.root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        below = pictures_below(self.root)
        if not inside and self.names is None:
            return [(self.root.resolve(), below)]
        loose = [path.name for path in below if path.parent == self.root]
        if loose:
            raise ValueError(
                f"{self.root} holds {loose[0]} beside subfolders: each picture belongs into a set's folder"
            )
        chosen = inside if self.names is None else [self._named(name, inside) for name in self.names]
        return [(folder, pictures_below(folder)) for folder in chosen]

    def _named(self, name: str, inside: list[Path]) -> Path:
        for path in inside:
            if path.name == name:
                return path
        there = ", ".join(path.name for path in inside) or "none"
        raise ValueError(f"data.names: {self.root} has no subfolder {name!r}; there are {there}")
