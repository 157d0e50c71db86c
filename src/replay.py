"""Make whole Weights & Biases runs of done cells, and upload them: python src/replay.py [FOLDER] [--all] [--sync]."""

import argparse
import sys
from pathlib import Path

from losslab.config import CHECKOUT


def main() -> int:
    """Give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CHECKOUT / "outputs", help="holds journal.jsonl")
    parser.add_argument("--all", action="store_true", help="every cell, also those that have a run or are not done")
    parser.add_argument("--sync", action="store_true", help="upload all offline runs that W&B does not have")
    asked = parser.parse_args()
    try:
        from losslab.runs.replay import replay, upload  # here, so that --help waits for no library

        bad = replay(asked.folder, every=asked.all)
        left = upload(asked.folder) if asked.sync else 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return int(bad + left > 0)


if __name__ == "__main__":
    sys.exit(main())
