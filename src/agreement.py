"""Compare losses of several cells by what people said: python src/agreement.py outputs out=table.csv."""

import argparse
from pathlib import Path

import pandas as pd

from losslab.config import CHECKOUT
from losslab.files import write_text
from losslab.reports.agreement import Group, groups
from losslab.runs.sentences import in_one_sentence
from losslab.runs.summary import rows_table, say
from losslab.words import sort_words, whole

OWN = {"outputs": str(CHECKOUT / "outputs"), "out": "", "samples": "2000", "seed": "0"}


def agreement(outputs: Path, out: Path | None, samples: int, seed: int) -> None:
    """Print a table for each set of judgements, and write all of them and all differences.

    Raises:
        ValueError: no cell has saved distances.
    """
    tables, differences = [], []
    for group in groups(outputs):
        scored = group.scored(samples, seed)
        show(group, rows := scored.rows())
        tables += [{"data": group.title, **row} for row in rows]
        differences += [{"data": group.title, **row} for row in scored.differences()]
    if out is not None:
        pairs = out.with_stem(f"{out.stem}_differences")
        write_text(out, pd.DataFrame(tables).to_csv(index=False))
        write_text(pairs, pd.DataFrame(differences).to_csv(index=False))
        print(out, pairs, sep="\n")


def show(group: Group, rows: list[dict[str, object]]) -> None:
    """Print one table, the best loss first."""
    say(group.title)
    say(rows_table(rows, {}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    words_help = "the outputs folder; out=table.csv writes the tables, samples=2000 and seed=0 are the bootstrap's"
    parser.add_argument("words", nargs="*", metavar="FOLDER|key=value", help=words_help)
    with in_one_sentence():
        folders, own, unknown = sort_words(parser.parse_args().words, OWN)
        if unknown or len(folders) > 1:
            wrong = " ".join(map(str, [*folders[1:], *unknown]))
            raise ValueError(f"one folder and the keys {', '.join(OWN)} are known, got {wrong}")
        agreement(
            folders[0] if folders else Path(own["outputs"]),
            Path(own["out"]) if own["out"] else None,
            whole("samples", own["samples"]),
            int(own["seed"]),
        )
