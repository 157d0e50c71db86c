"""The one error for numbers that stopped being numbers. A training that ends so has a result, and this is it."""


class DivergedError(ValueError):
    """A loss, a gradient or an image became NaN or infinite.

    Args:
        message: one sentence.
        term: what it was, such as the name of a loss's term or of a parameter.
        step: optimiser steps taken before; None if who noticed does not count them.
    """

    def __init__(self, message: str, *, term: str, step: int | None = None) -> None:
        """Keep what to tell."""
        super().__init__(message)
        self.term, self.step = term, step
