"""Cells and sweeps, from resolved configs to lines in the journal; knows no task, loss or data set."""

from losslab.runs.results import read_results

__all__ = ["read_results"]
