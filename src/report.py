"""Show all results of an outputs folder, and write results.csv, index.html and grids of pictures to report/ in it."""

import argparse
import sys
from pathlib import Path

from losslab.config import CHECKOUT
from losslab.files import write_text
from losslab.reports.grid import write_grids
from losslab.reports.page import make_page
from losslab.reports.terminal import show
from losslab.runs.journal import Journal
from losslab.runs.results import read_results
from losslab.runs.sentences import sentence


def report(outputs: Path) -> None:
    """Write the table and the page, then show them: a pipe that closes early must not leave old files."""
    table, page = outputs / "report" / "results.csv", outputs / "report" / "index.html"
    write_text(table, read_results(outputs).to_csv(index=False))
    journal = Journal(outputs / "journal.jsonl")
    journal.read()
    grids = write_grids(outputs, journal)
    write_text(page, make_page(outputs, journal, grids))
    show(journal)
    print(*(outputs / "report" / grid.link for some in grids.values() for grid in some), table, page, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=CHECKOUT / "outputs", help="the outputs folder (%(default)s)")
    try:  # train.py's spelling, outputs=FOLDER, means the same
        report(Path(str(parser.parse_args().folder).removeprefix("outputs=")))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {sentence(error)}")
