"""Rows as named tuples, one class per list of columns: the driver's own factory makes a new class for every answer,
which costs more than a small answer itself. Used by `connecting` only; runs on the driver's thread."""

import re
from collections import namedtuple
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]")


@lru_cache(maxsize=1024)
def _row_class(columns: tuple[str, ...]) -> Any:
    names = [_NOT_A_NAME.sub("_", column).strip("_") or "column" for column in columns]
    return namedtuple("Row", names, rename=True)


def named_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Returns the rows as named tuples; `[applied]` becomes `applied`, `count(*)` is `count`."""
    make = _row_class(tuple(columns))._make
    return [make(row) for row in rows]
