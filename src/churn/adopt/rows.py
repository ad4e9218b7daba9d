"""Mistakes of the contract that show on rows: what the rows have instead, leaks, too few churned customers, derived features."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn.adapters import sources
from churn.adapters.rows import READABLE, arrays, newest, typed, violation
from churn.adapters.sources import whole
from churn.adopt.columns import ZONE
from churn.adopt.definitions import Definitions, Mistake, line_of
from churn.adopt.leaks import leak
from churn.adopt.tables import array, failure, sources_of, wrong_length
from churn.contract import COLUMNS, ENTITY, LABEL, LABEL_HORIZON, RULES, SCORED, TIMESTAMP, Role
from churn.domain.encoding import computable
from churn.domain.kinds import Column, Date, Integer, Kind, NullAs, Real
from churn.domain.reasons import one_line
from churn.domain.values import MAX_REAL
from churn.errors import ChurnError, SourceError
from churn.params import Params
from churn.pipeline.prepare import is_test
from churn.settings import without_password

FEATURE_ROWS = 200_000
"""On how many rows the derived features are tried."""


class Rows:
    """The rows at one location, under the contract's names, as far as they have its columns."""

    def __init__(self, location: str, table: str, definitions: Definitions) -> None:
        self.location = without_password(location)
        self.definitions = definitions
        self.missing = self._missing(whole.names(location, table=table))
        with _without_progress():
            raw = self._present(location, table) if self.missing else sources.read(location, table=table)
        self.raw: pa.Table = raw
        frame, self.unreadable = typed(raw)
        self.frame = frame.assign(**computable(frame)) if TIMESTAMP in frame else frame

    def mistakes(self, params: Params) -> Iterator[Mistake]:
        """Everything that is wrong with these rows."""
        yield from self.structure()
        values = [*self.values(), *self._keys(), *self._times(params)]
        yield from values
        yield from self._labels(params)
        yield from self.leaks(params.evaluate.gate.trusted_columns)
        if not values and not self.missing:
            yield from self.features()

    def structure(self) -> Iterator[Mistake]:
        """Columns that the rows lack."""
        for column, hint in self.missing.items():
            names = " or ".join(dict.fromkeys((*map(str, sources_of(column)), column.name)))
            yield self._at(column.name, "source", f"expected a column {names} in {self.location}, got none; {hint}")

    def leaks(self, trusted: Sequence[str]) -> Iterator[Mistake]:
        """Features that give the label away, except the `trusted` ones."""
        if LABEL not in self.frame or not (label := self.frame[LABEL].dropna().astype(bool)).size:
            return
        for column in COLUMNS:
            if column.role is not Role.FEATURE or column.name not in self.frame or column.name in trusted:
                continue
            if why := leak(self.frame[column.name].loc[label.index], label):
                yield self._at(
                    column.name,
                    "",
                    f"expected a column that was known at the row's time, got one that gives the label away: {why}; "
                    "remove it; or if it was known, add it to evaluate.gate.trusted_columns in params.yaml",
                )

    def features(self) -> Iterator[Mistake]:
        """Derived features that fail on these rows, in a table and in the form that a request has."""
        batch = self.raw.slice(0, FEATURE_ROWS).combine_chunks()
        names = [each.name for each in SCORED if each.name != ENTITY and each.name in batch.column_names]
        request = arrays(batch.select(names).to_batches()[0])
        for each in self.definitions.derived:
            for columns in (self.frame.head(FEATURE_ROWS), request):
                if text := self._derived(each, columns, len(batch)):
                    yield text
                    break

    def _derived(self, each: Any, columns: Any, rows: int) -> Mistake | None:
        file = self.definitions.features.path
        try:
            with np.errstate(all="ignore"):
                result = each.function(columns)
        except Exception as error:  # noqa: BLE001 - the project's own code: whatever it raises is its mistake
            return Mistake(file, line_of(error, file) or each.line, each.name, failure(error))
        values = array(result)
        if values.shape != (rows,):
            return Mistake(file, each.line, each.name, wrong_length(result, rows))
        text = _unfit(pd.Series(values), each.kind, each.null_as)
        return Mistake(file, each.line, each.name, text) if text else None

    def values(self) -> Iterator[Mistake]:
        """Values that cannot be read, or lie outside, and rules that rows break."""
        misfits = np.zeros(len(self.frame), dtype=bool)
        for name, mask in self.unreadable.items():
            misfits |= mask.to_numpy(dtype=bool)
            first = self._first(self.raw[name].filter(pa.array(mask)).cast(pa.string()).to_pylist())
            rule = READABLE.format(self._kind(name))
            got = f"another in {int(mask.sum())} of {len(mask)} rows (first: {first})"
            yield self._at(name, "kind", f"expected {rule}, got {got}; correct the rows or the kind")
        for column in COLUMNS:
            if column.name in self.frame:
                unreadable = self.unreadable.get(column.name)
                frame = self.frame if unreadable is None else self.frame[~unreadable.to_numpy(dtype=bool)]
                holds = np.asarray(column.kind.holds(frame[column.name]), dtype=bool)
                bad = ~(holds | (frame[column.name].isna().to_numpy() & column.nullable))
                if bad.any() and bad.mean() > 1 - column.mostly:
                    yield self._broken(column.name, str(column.kind), bad, frame)
        frame = self.frame[~misfits]
        for each in RULES if not self.missing and len(frame) else ():
            try:
                broken: Any = ~np.asarray(each.holds(frame), dtype=np.bool_)
            except Exception as error:  # noqa: BLE001 - the project's own code: whatever it raises is its mistake
                yield self._of_rule(each.name, failure(error), line_of(error, self.definitions.contract.path))
                continue
            if broken.any() and broken.mean() > 1 - each.mostly:
                yield self._broken(each.name, each.description, broken, frame)

    def _broken(self, name: str, rule: str, bad: Any, frame: pd.DataFrame) -> Mistake:
        count, rows = int(bad.sum()), len(frame)
        if name not in frame:
            text = str(violation(name, rule, count, of=rows)).removeprefix(f"{name}: ")
            return self._of_rule(name, f"{text}; correct the rows or the rule")
        nulls = int((frame[name].isna().to_numpy() & bad).sum())
        if nulls == count:
            advice = "fill them in the source, or give the column a null_as"
            return self._at(name, "", f"expected a value, got none in {count} of {rows} rows; {advice}")
        values = frame[name][bad & frame[name].notna().to_numpy()].astype(object).drop_duplicates().tolist()
        what = f"got another value in {count} of {rows} rows (first: {self._first(values)})"
        return self._at(name, "kind", f"expected {rule}, {what}; correct the rows, or widen the kind")

    def _of_rule(self, name: str, text: str, line: int | None = None) -> Mistake:
        placed = next((each for each in self.definitions.contract.tables["RULES"] if each.value.name == name), None)
        return Mistake(self.definitions.contract.path, line or (placed.line if placed else 1), name, text)

    def _keys(self) -> Iterator[Mistake]:
        if ENTITY not in self.frame:
            return
        keys = [each for each in (ENTITY, TIMESTAMP) if each in self.frame]
        repeated = self.frame[keys].dropna().duplicated()
        if repeated.any():
            first = self._first(self.frame[ENTITY].loc[repeated[repeated].index].drop_duplicates().tolist())
            found = f"expected one row per {' and '.join(keys)}, got {int(repeated.sum())} more (first: {first})"
            without = TIMESTAMP not in self.raw.column_names
            advice = "name the column that tells their times apart" if without else "remove them, or correct the entity"
            yield self._at(ENTITY, "", f"{found}; {advice}")

    def _times(self, params: Params) -> Iterator[Mistake]:
        if TIMESTAMP in self.raw.column_names and pa.types.is_string(self.raw[TIMESTAMP].type):
            filled = pc.drop_null(self.raw[TIMESTAMP])
            zoned = int(pc.sum(pc.match_substring_regex(filled, ZONE)).as_py() or 0)
            if 0 < zoned < len(filled):
                text = f"expected a time zone in every row or in none, got one in {zoned} of {len(filled)}; write all in UTC"
                yield self._at(TIMESTAMP, "", text)
        if TIMESTAMP not in self.frame:
            return
        late = self.frame[TIMESTAMP] > pd.Timestamp(datetime.now(UTC) - LABEL_HORIZON)
        if (share := float(late.mean())) > params.prepare.max_immature_share:
            most = f"{params.prepare.max_immature_share:.0%} of the rows within LABEL_HORIZON of now"
            advice = "leave out rows whose label is not known yet, or correct LABEL_HORIZON or the timestamps"
            yield self._at(TIMESTAMP, "", f"expected at most {most}, got {share:.0%}; {advice}")

    def _labels(self, params: Params) -> Iterator[Mistake]:
        if LABEL not in self.frame or ENTITY not in self.frame:
            return
        labelled = self.frame[self.frame[LABEL].notna() & self.frame[ENTITY].notna()]
        churned = labelled[LABEL].astype(bool).to_numpy()
        kind: Any = self._kind(LABEL)
        if churned.all() or not churned.any():
            alone = kind.yes if churned.any() else kind.no
            yield self._at(LABEL, "kind", f"expected both {kind.yes} and {kind.no}, got {alone} alone; bring rows of both")
            return
        if params.prepare.split == "time":
            aside = np.zeros(len(labelled), dtype=bool)
            aside[newest(labelled[TIMESTAMP], max(1, round(params.prepare.test_fraction * len(labelled))))] = True
        else:
            aside = labelled[ENTITY].map(lambda entity: is_test(str(entity), params.prepare.test_fraction)).to_numpy(dtype=bool)
        folds = max(params.train.inner_folds, params.train.cv_folds)
        for side, rows, least, why in (
            ("training", churned[~aside], folds, "one per fold"),
            ("test", churned[aside], params.evaluate.gate.min_of_class, "with fewer, the gate does not decide"),
        ):
            for what, count in (("churned customers", int(rows.sum())), ("customers that stayed", int((~rows).sum()))):
                if count < least:
                    text = f"expected at least {least} {what} among the {side} rows ({why}), got {count} of {len(rows)}"
                    yield self._at(LABEL, "", f"{text}; bring more rows, or correct which text means churned")

    def _missing(self, parts: list[list[str]]) -> dict[Column, str]:
        """Columns that a part lacks → what to do."""
        found: dict[Column, str] = {}
        owned = {str(each) for column in COLUMNS for each in (*sources_of(column), column.name)}
        for names in parts:
            free = {each.casefold(): each for each in names if each not in owned}
            for column in COLUMNS:
                there = column.name in names or all(each in names for each in sources_of(column))
                if not there and column.default is None:
                    wanted = [str(each).casefold() for each in (*sources_of(column), column.name)]
                    near = [free[close] for name in wanted for close in get_close_matches(name, free, n=1)]
                    advice = f"did you mean source={near[0]!r}?" if near else "correct its source, or remove the column"
                    found.setdefault(column, advice)
        return found

    def _present(self, location: str, table: str) -> pa.Table:
        """The contract's columns that are there, in a file that `sources.read` refuses because others are not."""
        rows = whole.read(location, table=table).table
        spelled = {
            column.name: name
            for column in COLUMNS
            for name in (column.name, *sources_of(column)[:1])
            if name in rows.column_names and column not in self.missing
        }
        return rows.select(list(spelled.values())).rename_columns(list(spelled))

    def _kind(self, name: str) -> Any:
        return next(each.kind for each in COLUMNS if each.name == name)

    def _at(self, name: str, keyword: str, text: str) -> Mistake:
        placed = self.definitions.column(name)
        return Mistake(self.definitions.contract.path, placed.at(keyword) if placed else 1, name, text)

    def _first(self, values: list[Any]) -> str:
        """The first of the values, in quotation marks where they are texts."""
        return ", ".join(dict.fromkeys(repr(each) for each in values[:20])) if len(values) <= 3 else self._first(values[:3])


def _unfit(values: "pd.Series[Any]", kind: Kind, null_as: NullAs) -> str:
    """What keeps the values (n,) of a derived feature from being its kind's; "" if nothing does."""
    nulls, rows = values.isna(), len(values)
    if nulls.any() and null_as is None:
        got = f"none in {int(nulls.sum())} of {rows} rows"
        return f"expected a value in every row, got {got}; fill them, or give @feature a null_as"
    if isinstance(kind, Integer | Real | Date):
        numbers = pd.to_numeric(values, errors="coerce") if values.dtype.kind in "biufO" else values.astype("object")
        if numbers.dtype.kind == "O" or numbers.isna().sum() > nulls.sum():
            return f"expected {kind}, got values of type {values.dtype}; return numbers"
        sizes = numbers.astype("float64").abs()
        if (infinite := int(np.isinf(sizes).sum())) > 0:
            return f"expected finite numbers, got infinity in {infinite} of {rows} rows; guard the division"
        if (large := int((sizes > MAX_REAL).sum())) > 0:
            return f"expected numbers up to {MAX_REAL:.1e}, got larger ones in {large} of {rows} rows; take their logarithm"
        if isinstance(kind, Integer) and (parts := int((sizes % 1 > 0).sum())):
            return f"expected whole numbers, got fractions in {parts} of {rows} rows; round them, or write Real"
    try:
        outside = int((~np.asarray(kind.holds(values[~nulls]), dtype=bool)).sum())
    except TypeError:
        return f"expected {kind}, got values of type {values.dtype}; correct the function or its kind"
    return f"expected {kind}, got another value in {outside} of {rows} rows; correct the function or its kind" if outside else ""


@contextmanager
def _without_progress() -> Iterator[None]:
    """Do not log how many rows are read: the stage that comes after says so."""
    logger = logging.getLogger("churn.adapters.sources")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def mistakes(location: str, table: str, definitions: Definitions, params: Params) -> list[Mistake]:
    """Every mistake that the rows at the location show."""
    try:
        return list(Rows(location, table, definitions).mistakes(params))
    except SourceError as error:
        place = Path("CHURN_SOURCE" if "://" in location else location)
        return [Mistake(place, 0, "", one_line(error).removeprefix(f"{location}: "))]
    except ChurnError as error:
        return [Mistake(definitions.contract.path, 1, "", one_line(error))]
