"""Run one cell, or with -m a sweep of them: python src/train.py loss=mmdpp task=glo."""

import os
import sys

import hydra
from omegaconf import DictConfig

from losslab.config import register_resolvers
from losslab.runs.command import guarded


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def train(config: DictConfig) -> float:
    """Give the number that a sweeper maximises."""
    from losslab.runs.run import run  # here, since --help and a typo must not wait for torch

    return run(config)


if __name__ == "__main__":
    register_resolvers()
    sys.exit(guarded(train, show_traceback="HYDRA_FULL_ERROR" in os.environ))
