"""Ctrl-C and SIGTERM: at once where nothing can break, and else at the next place where nothing can."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and the end of the terminal; one that is ignored, as under nohup, stays so."""


class Interrupted(BaseException):
    """Somebody asked the process to stop.

    Args:
        number: the signal's; shells expect 128 plus it as the exit code.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.outcome: Any = None
        """How the cell ended that this has stopped, once it is written down."""


class Interrupts:
    """What has been asked, and whether it has to wait. There is one, since a process has one set of handlers."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.asked: int | None = None
        self.training = self.finishing = self.installed = self.once = False

    def install(self, *, once: bool | None = None) -> None:
        """Take the signals, where Python allows it: in the main thread.

        Args:
            once: whether a second signal asks nothing new: one to a group of processes comes twice.
        """
        self.once = self.once if once is None else once
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # such as SIGINT in a cell of a parallel sweep
                    signal.signal(number, self._handle)
            self.installed = True

    def take_back(self) -> None:
        """Put the handlers again, before which Lightning puts its own in every stage."""
        if self.installed:
            self.install()

    def raise_asked(self) -> None:
        """Stop here, if it was asked for."""
        if self.asked is not None:
            number, self.asked = self.asked, None
            raise Interrupted(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing come between: what is written here is written to its end."""
        before, self.finishing = self.finishing, True
        try:
            yield
        finally:
            self.finishing = before
        if not before:
            self.raise_asked()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked is not None, number
        if self.finishing:
            return
        if self.training and (self.once or not again):
            if not again:
                print("stopping after this step; once more stops at once", file=sys.stderr, flush=True)
            return
        self.raise_asked()


interrupts = Interrupts()
