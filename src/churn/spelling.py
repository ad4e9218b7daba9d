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
        named = ", ".join(column.source + _hint(column, present) for column in missing)
        raise SourceError(f"{shown}: missing columns: {named}; rename them there, or change their source in contract.py")
    return {column.name: names[0] for column, names in found.items() if names}


def _hint(column: Column, present: Sequence[str]) -> str:
    spelled = {each.casefold(): each for each in present}
    near = [match for name in (column.source, column.name) for match in get_close_matches(name.casefold(), spelled, n=1)]
    return f" (found: {spelled[near[0]]}?)" if near else ""
