"""One process writes; those that Lightning, Slurm or torchrun start for further devices compute."""

from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Tell the process that writes files from the others."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0
