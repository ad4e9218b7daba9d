"""Which of a table's columns are the contract's, by whichever of their two names, and keys that are made of several columns."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from churn.adapters.arrow_types import simple
from churn.contract import BY_NAME, COLUMNS, ENTITY, TIMESTAMP, Column
from churn.errors import ContractError, SourceError

SEPARATOR = ":"
"""Between the parts of a composite key."""


def spellings(present: Sequence[str], shown: str, columns: Sequence[Column] = COLUMNS) -> dict[str, str]:
    """Contract name → the part's own name of that column, in the contract's order.

    A composite key has an entry for each of its columns, which `with_joined_key` joins. Columns to score may lack the timestamp.

    Raises:
        SourceError: a column is missing and has no default, or is there under both of its names.
    """
    found = {column: _found(column, present) for column in columns}
    if twice := [column.name for column, names in found.items() if len(names) > 1]:
        raise SourceError(f"{shown}: columns that are there twice: {', '.join(twice)}; keep one of each")
    optional = {each.name for each in COLUMNS if each.default is not None} | ({TIMESTAMP} if columns is not COLUMNS else set())
    if missing := [column for column, names in found.items() if not names and column.name not in optional]:
        hints = _hints(missing, present)
        named = ", ".join(" and ".join(column.sources) + hints.get(column.name, "") for column in missing)
        raise SourceError(f"{shown}: missing columns: {named}; rename them there, or change their source in contract.py")
    return {key: name for names in found.values() if names for key, name in names[0].items()}


def _found(column: Column, present: Sequence[str]) -> list[dict[str, str]]:
    """The ways in which the column is there, each as entries of `spellings`."""
    if len(column.sources) == 1:
        return [{column.name: each} for each in present if each in (*column.sources, column.name)]
    parts = {f"{column.name}{SEPARATOR}{each}": each for each in column.sources}
    ways = [{column.name: column.name}, parts]
    return [way for way in ways if all(name in present for name in way.values())]


def column_of(key: str) -> Column:
    """The column of a key of `spellings`."""
    return BY_NAME[key.partition(SEPARATOR)[0]]


def with_joined_key(rows: Any, shown: str) -> Any:
    """The table or record batch with the entity in place of its parts, joined by a colon; unchanged where it has none.

    Raises:
        SourceError: a part is empty, or has a colon or a blank at its end: two keys could become one.
    """
    names = list(rows.schema.names)
    parts = [name for name in names if name.startswith(f"{ENTITY}{SEPARATOR}")]
    if not parts:
        return rows
    try:
        joined = pc.binary_join_element_wise(*(_part(rows[name], name) for name in parts), SEPARATOR)
    except ContractError as error:
        raise SourceError(f"{shown}: {error}") from None
    kept = {name: joined if name == parts[0] else rows[name] for name in names if name not in parts[1:]}
    return type(rows).from_arrays(list(kept.values()), [ENTITY if name == parts[0] else name for name in kept])


def _part(values: Any, name: str) -> Any:
    """A part of the key as text."""
    texts = simple(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values, BY_NAME[ENTITY])
    is_whole = pc.match_substring_regex(texts, f"^[^{SEPARATOR}]+$")
    is_whole = pc.and_(pc.fill_null(is_whole, False), pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), texts), False))
    if len(wrong := texts.filter(pc.invert(is_whole))):
        raise ContractError(
            f"{name.partition(SEPARATOR)[2]}: expected a part of {ENTITY} without {SEPARATOR!r} and blanks around it, "
            f"got {wrong[0].as_py() or ''!r} in {len(wrong)} rows; correct the rows"
        )
    return texts


def _hints(missing: Sequence[Column], present: Sequence[str]) -> dict[str, str]:
    """Contract name → the table's column with the closest name, if that is no contract column and closest to no other one."""
    taken = {name for column in COLUMNS for name in (*column.sources, column.name)}
    free = {name.casefold(): name for name in present if name not in taken}
    wanted = {name.casefold(): column.name for column in missing for name in (*column.sources, column.name)}
    hints: dict[str, str] = {}
    for name, column in wanted.items():
        for found in get_close_matches(name, free, n=1):
            closest = get_close_matches(found, wanted, n=1)
            if closest and wanted[closest[0]] == column:
                hints.setdefault(column, f" (found: {free[found]}?)")
    return hints
