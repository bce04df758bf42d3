"""The words that a column may hold, one list each, as the database's constraints have them."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pkgutil import iter_modules


def all_lists() -> dict[str, type[StrEnum]]:
    """Every column with a list of its own (`schema.table.column`), and its words.

    Raises:
        ValueError: two modules of this package list the same column.
    """
    merged: dict[str, type[StrEnum]] = {}
    for found in sorted(module.name for module in iter_modules(__path__)):
        lists: dict[str, type[StrEnum]] = import_module(f"{__name__}.{found}").LISTS
        if repeated := sorted(merged.keys() & lists.keys()):
            raise ValueError(f"{found} lists again: {', '.join(repeated)}")
        merged |= lists
    return merged
