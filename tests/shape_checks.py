"""The checker of annotations in tests: as beartype, but a whole number is a float, as Python's type checkers have it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
