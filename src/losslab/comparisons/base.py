"""The comparison protocol: what `encode` and `compare` are to a loss, for the features of one layer."""

from abc import ABC, abstractmethod

from torch import nn

from losslab.types import Distance, Encoding, Features


class Comparison(nn.Module, ABC):
    """A distance between the features of one layer, in the two halves of the loss protocol."""

    @abstractmethod
    def encode(self, features: Features) -> Encoding:
        """Do the work that needs the features of one image only."""

    @abstractmethod
    def compare(self, a: Encoding, b: Encoding) -> Distance:
        """Give the distance of two encodings, one number a pair; leading axes broadcast."""
