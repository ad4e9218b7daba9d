"""Which of a table's columns are the contract's, by whichever of their two names."""

from collections.abc import Sequence
from difflib import get_close_matches

from churn.contract import COLUMNS, Column
from churn.errors import SourceError


def spellings(present: Sequence[str], shown: str, columns: Sequence[Column] = COLUMNS) -> dict[str, str]:
    """Contract name → the part's own name of that column, in the contract's order.

    Raises:
        SourceError: a column is missing and has no default, or is there under both of its names.
    """
    found = {column: [each for each in present if each in (column.source, column.name)] for column in columns}
    if twice := [column.name for column, names in found.items() if len(names) > 1]:
        raise SourceError(f"{shown}: columns that are there twice: {', '.join(twice)}; keep one of each")
    if missing := [column for column, names in found.items() if not names and column.default is None]:
        hints = _hints(missing, present)
        named = ", ".join(column.source + hints.get(column.name, "") for column in missing)
        raise SourceError(f"{shown}: missing columns: {named}; rename them there, or change their source in contract.py")
    return {column.name: names[0] for column, names in found.items() if names}


def _hints(missing: Sequence[Column], present: Sequence[str]) -> dict[str, str]:
    """Contract name → the table's column with the closest name, if that is no contract column and closest to no other one."""
    taken = {name for column in COLUMNS for name in (column.source, column.name)}
    free = {name.casefold(): name for name in present if name not in taken}
    wanted = {name.casefold(): column.name for column in missing for name in (column.source, column.name)}
    hints: dict[str, str] = {}
    for name, column in wanted.items():
        for found in get_close_matches(name, free, n=1):
            closest = get_close_matches(found, wanted, n=1)
            if closest and wanted[closest[0]] == column:
                hints.setdefault(column, f" (found: {free[found]}?)")
    return hints
