"""The checker of annotations in tests: beartype, for which a whole number is a float, as type checkers have it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
