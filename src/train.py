"""Run one cell, or with -m a sweep of them: python src/train.py loss=mmdpp task=glo."""

import sys

import hydra
from omegaconf import DictConfig

from losslab.config import register_resolvers
from losslab.runs.command import guarded, run_one


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def train(config: DictConfig) -> float:
    """Give the number that a sweeper maximises."""
    return run_one(config)


if __name__ == "__main__":
    register_resolvers()
    sys.exit(guarded(train))
