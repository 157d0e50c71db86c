"""One process writes; those that Lightning starts for further devices compute."""

import os


def is_first_process() -> bool:
    """Tell the process that writes files from the others."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
