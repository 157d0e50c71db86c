"""losslab: the experiment framework for perceptual losses."""

__version__ = "0.1.0"
