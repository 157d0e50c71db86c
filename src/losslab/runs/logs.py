"""A cell's log: what libraries, warnings and tracebacks say, and only there."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losslab.runs.secrets import masked

TALKERS = ("", "pytorch_lightning", "lightning_fabric")
"""Loggers with handlers of their own."""


class _CellLog(logging.FileHandler):
    """Keeps secrets out, and does not hide that a disk is full."""

    def format(self, record: logging.LogRecord) -> str:
        return str(masked(super().format(record)))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if isinstance(sys.exc_info()[1], OSError):
            raise  # noqa: PLE0704 - logging calls this inside its except clause
        super().handleError(record)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send everything to a cell's log, and leave no handler behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _CellLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    talkers = [logging.getLogger(name) for name in TALKERS]
    before = [(talker, talker.handlers[:], talker.propagate, talker.level) for talker in talkers]
    for talker in talkers:
        talker.handlers, talker.propagate = [], True
    talkers[0].handlers = [handler]
    talkers[0].setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for talker, handlers, propagate, level in before:
            talker.handlers, talker.propagate = handlers, propagate
            talker.setLevel(level)
        handler.close()
