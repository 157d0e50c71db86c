"""Weights from a file of the user's."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from losslab.checksums import difference
from losslab.networks.state_dicts import fill_cut, read_state_dict
from losslab.networks.weights import INPUTS, Architecture, Pair, Weights


class FileWeights(Weights):
    """A state dict in a file: torch's or safetensors', of a whole classifier or of some of its children.

    Args:
        path: of the file.
        sha256: of its content; a file with another one is refused.
        prefix: put before each key of the file, such as `features.` for a file of a VGG's features alone.
        rename: what keys may begin with, and what they begin with then; nothing (null) drops them. The first that
            fits counts, and it goes before `prefix`.
        input: what the network is fed; `own` is ImageNet's mean and standard deviation, as a file tells none.

    Raises:
        ValueError: the content is not that of `sha256`, is damaged, no state dict, does not fit the architecture, or
            could run code.

    Source: keys are those of torchvision's state dicts, which the VGGs of ariel415el/PerceptualLossExperiments and
        the `features` of timm's VGGs have too.
    """

    def __init__(
        self,
        path: str,
        sha256: str,
        prefix: str = "",
        rename: Mapping[str, str | None] | None = None,
        input: str | Mapping[str, Sequence[float]] = "own",  # noqa: A002 - the key in the YAMLs
    ) -> None:
        """Keep the place; the file is read when it is needed."""
        super().__init__(input)
        if not re.fullmatch("[0-9a-f]{64}", sha256):  # a part of it would give one file two identities
            raise ValueError(f"weights.sha256 is 64 hexadecimal digits in lower case, got {sha256!r}")
        self.path, self.sha256, self.prefix = Path(path).expanduser(), sha256, prefix
        self.rename = dict(rename or {})

    def own_input(self, architecture: Architecture) -> Pair:
        """Give ImageNet's mean and standard deviation."""
        return INPUTS["imagenet"]

    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Give all tensors of `cut` the file's numbers."""
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file of weights {self.path.absolute()}")
        found = difference(self.path, self.sha256)
        if found:
            raise ValueError(f"{self.path} is not the file of the config: {found}")
        fill_cut(cut, self._renamed(read_state_dict(self.path)), architecture, str(self.path))
        return f"file {self.sha256[:16]}"

    def _renamed(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        renamed: dict[str, Tensor] = {}
        for key, tensor in found.items():
            old = next((old for old in self.rename if key.startswith(old)), "")
            new = self.rename.get(old, "")
            if new is None:
                continue
            name = self.prefix + new + key.removeprefix(old)
            if name in renamed:
                raise ValueError(f"{self.path}: two keys are renamed to {name}")
            renamed[name] = tensor
        return renamed
