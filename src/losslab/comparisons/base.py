"""The comparison protocol: what `encode` and `compare` are to a loss, for the features of one layer."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import nn

from losslab.types import Distance, Features

Kept = TypeVar("Kept")
"""The kind of `losslab.types.Encoding` that a comparison makes."""


class Comparison(nn.Module, ABC, Generic[Kept]):
    """A distance between the features of one layer, in the two halves of the loss protocol."""

    @abstractmethod
    def encode(self, features: Features) -> Kept:
        """Do the work that needs the features of one image only."""

    @abstractmethod
    def compare(self, a: Kept, b: Kept) -> Distance:
        """Give the distance of two encodings, one number a pair; leading axes broadcast."""
