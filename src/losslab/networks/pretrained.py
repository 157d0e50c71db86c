"""Weights that torchvision and timm publish, by their names."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn
from torchvision import models

from losslab.download import fetch
from losslab.networks import timm_weights
from losslab.networks.state_dicts import fill_cut, read_state_dict
from losslab.networks.weights import INPUTS, Architecture, Pair, Weights

SIGNED = ("googlenet", "inception_v3")
"""Networks that came from TensorFlow and are fed [-1, 1].

torchvision's own forward pass undoes ImageNet's normalisation for them (`_transform_input`): with both, x becomes
(x - .5) / .5. A graph that is cut out of them skips the second half, as do the children that the study of Pihlgren et
al., arXiv 2302.04032, is made of.
"""


class PretrainedWeights(Weights):
    """Trained weights of an architecture's own library.

    torchvision's lie in torch's own folder of downloads, where its other users look too; the checksum is that of
    the file's name. timm's are fetched and kept by timm.

    Args:
        name: torchvision's (`IMAGENET1K_V1`, ...) or the tag that timm has behind the dot (`a1_in1k`, ...).
        input: what the network is fed; `own` is what the library feeds it with these weights.

    Raises:
        KeyError: there are no such weights; the message names those that there are.
        ValueError: the file is damaged or another one.
        DownloadError: the file is not here and can't be fetched.

    Source: torchvision.models.get_model_weights; timm.create_model.
    """

    def __init__(
        self,
        name: str = "IMAGENET1K_V1",
        input: str | Mapping[str, Sequence[float]] = "own",  # noqa: A002 - the key in the YAMLs
    ) -> None:
        """Keep the name."""
        super().__init__(input)
        self.name = name

    def own_input(self, architecture: Architecture) -> Pair:
        """Give the mean and standard deviation of the library's transforms for these weights."""
        if architecture.library == "timm":
            return timm_weights.own_input(architecture.name, self.name)
        preset = self._published(architecture).transforms()
        if architecture.name in SIGNED:
            return INPUTS["signed"]
        return tuple(preset.mean), tuple(preset.std)

    def fill(self, cut: nn.Module, architecture: Architecture, step: int) -> str:
        """Give all tensors of `cut` the published numbers."""
        if architecture.library == "timm":
            found = timm_weights.state_dict(architecture.name, self.name)
            fill_cut(cut, found, architecture, f"{architecture.name}.{self.name} of timm")
            return f"{self.name} of timm"
        url = self._published(architecture).url
        sha256 = checksum(url)
        path = fetch(url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name, sha256)
        fill_cut(cut, read_state_dict(path), architecture, str(path))
        return f"{self.name} {sha256}"

    def _published(self, architecture: Architecture) -> Any:
        if architecture.library != "torchvision":
            raise KeyError(
                f"weights=pretrained is for models of torchvision and timm, and {architecture.name} is none: choose "
                "weights=random_conv2d_raw or another random one"
            )
        known = {one.name: one for one in models.get_model_weights(architecture.name)}
        if self.name not in known:
            near = get_close_matches(self.name, known, n=1, cutoff=0)
            hint = f"it has {', '.join(known)}; did you mean {near[0]!r}?" if near else "it has none"
            raise KeyError(f"torchvision has no weights {self.name!r} for {architecture.name}; {hint}")
        return known[self.name].value


def checksum(url: str) -> str:
    """Give the first digits of the sha256 that torchvision puts into the names of its files.

    Raises:
        ValueError: the name has none.

    Source: torch.hub.load_state_dict_from_url, `check_hash`.

    Example:
        >>> checksum("https://download.pytorch.org/models/vgg16-397923af.pth")
        '397923af'
    """
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path)
    if not found:
        raise ValueError(f"the name of {url} tells no sha256")
    return found[1]
