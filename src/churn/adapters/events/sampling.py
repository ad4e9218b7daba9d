"""A random sample of logged predictions, in time and memory that do not grow with the log."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn.adapters.events.parts import EPOCH, MICROSECOND, DamagedPartError, Part, PartKind, opened
from churn.adapters.events.row_groups import Group, read_group, text_bounds, usable_groups

SAMPLED_PARTS = 1000
"""Of parts that are not compacted, at most so many are read, and the last."""
FEWEST_PARTS = 100
"""Fewer are read where most days of the window are compacted, or where the parts have many rows, but not fewer than this."""
PILOT_PARTS = 50
"""So many are opened before to learn how many rows they have, and drawn apart, so that the sample does not depend on them."""
SPARE = 2
"""Parts are read that have so many times the rows that the sample takes of them."""
SAMPLED_ROWS = 2_000_000
"""Of compacted parts, row groups of about so many rows are read: about half a second of decoding."""
PLACES = 2**40
"""More rows than a part has: orders the rows of all parts by one number."""


@dataclass(frozen=True)
class Sample:
    """Some of `total` predictions, in the order of the log, and when the newest of all was made (UTC)."""

    rows: pa.Table
    total: int
    newest: datetime | None


@dataclass(frozen=True)
class Query:
    """Predictions of a version with `since` ≤ time < `until`, in microseconds since 1970, and the columns that are wanted."""

    since: int
    until: int
    version: str
    columns: tuple[str, ...]

    def schema(self, kind: PartKind) -> pa.Schema:
        """The wanted columns and those that the query itself needs."""
        return pa.schema([kind.schema.field(name) for name in dict.fromkeys([*self.columns, kind.time, "model_version"])])

    def overlaps(self, group: Group) -> bool:
        """Whether rows of the group may be of that time."""
        return group.first < self.until and group.last >= self.since

    def matches_all(self, group: Group) -> bool:
        """Whether the metadata say that every row of the group is wanted."""
        if group.first < self.since or group.last >= self.until:
            return False
        return text_bounds(group, "model_version") == (self.version, self.version)

    def filtered(self, table: pa.Table, time: str) -> pa.Table:
        """The rows that are wanted."""
        from pyarrow import compute as pc

        times = table[time].cast(pa.int64())
        within = pc.and_(pc.greater_equal(times, self.since), pc.less(times, self.until))
        return table.filter(pc.and_(within, pc.equal(table["model_version"], self.version)))


@dataclass
class Stratum:
    """Parts or row groups of which some are read; every row of a read one stands for `weight` rows.

    `counted`: whether the metadata give its number of rows, so that it is not estimated.
    """

    units: list[tuple[int, Any]]
    limit: int
    counted: bool = False
    matched: int = 0
    missing: int = 0

    def drawn(self, random: np.random.Generator) -> list[tuple[int, Any]]:
        """The units to read, in their order; each is as likely as any other."""
        if len(self.units) <= self.limit:
            return self.units
        return [self.units[each] for each in np.sort(random.choice(len(self.units), self.limit, replace=False))]

    @property
    def weight(self) -> float:
        """How many rows a row that is read stands for."""
        return max(1.0, len(self.units) / max(self.limit, 1))

    @property
    def total(self) -> int:
        """How many rows match the query."""
        if self.counted:
            return int(sum(group.rows for _, group in self.units) - self.missing)
        return round(self.matched * self.weight)


@dataclass
class Draw:
    """Keeps at most `rows` of the rows that are added, each as likely as its weight says."""

    rows: int
    random: np.random.Generator
    keys: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    tables: list[pa.Table] = field(default_factory=list)

    def add(self, table: pa.Table, weight: float, place: int) -> None:
        """Consider the rows, which come from `place` on in the log.

        A row stays if its random key is among the smallest: one pass, whatever the total.
        Source: Efraimidis and Spirakis, 2006, "Weighted random sampling with a reservoir".
        """
        keys = self.random.exponential(size=len(table)) / weight
        bound = np.partition(self.keys, self.rows - 1)[self.rows - 1] if len(self.keys) >= self.rows else np.inf
        chosen = np.flatnonzero(keys < bound)
        if len(chosen):
            self.tables.append(table.take(pa.array(chosen)))
            self.keys = np.concatenate([self.keys, keys[chosen]])
            self.places = np.concatenate([self.places, place + chosen])

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows that are kept, in the order of the log."""
        best = np.argsort(self.keys, kind="stable")[: self.rows]
        ordered = best[np.argsort(self.places[best], kind="stable")]
        return pa.concat_tables([schema.empty_table(), *self.tables]).take(pa.array(ordered))


@dataclass(frozen=True)
class Source:
    """Where the parts are, what they hold, and whom to tell of damaged ones."""

    filesystem: Any
    kind: PartKind
    on_damaged: Callable[[Part, str], None]

    def read(self, units: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, Group]]:
        """The row groups of the units, which are row groups already or parts to open, with the places of their parts."""
        numbers = {unit.path: number for number, unit in units if isinstance(unit, Part)}
        for file, of_file in groupby((unit for unit in units if isinstance(unit[1], Group)), key=lambda unit: unit[1].file):
            yield from of_file
            file.release()
        for file in opened(self.filesystem, [unit for _, unit in units if isinstance(unit, Part)]):
            yield from ((numbers[file.part.path], group) for group in usable_groups(file, self.kind, self.on_damaged))


def sample(source: Source, parts: Sequence[Part], query: Query, *, rows: int, seed: int) -> Sample:
    """At most `rows` rows of the query, each as likely as any other.

    Raises:
        ChangedError: a part disappeared meanwhile.
        OSError: the storage is out of reach.
    """
    random, kind = np.random.default_rng(seed), source.kind
    draw, schema, newest = Draw(rows, random), query.schema(kind), None
    single = [(number, part) for number, part in enumerate(parts) if not part.is_compacted]
    whole, edges = _strata(source, parts, query)
    others = Stratum(single[:-1], 0)
    others.limit = _parts_to_read(source, parts, others, whole, query, draw) - 1
    # The last part is always read, for the newest row, and stands for itself alone.
    strata = (others, Stratum(single[-1:], 1), whole, edges)
    for stratum in strata:
        for place, group in source.read(stratum.drawn(random)):
            if not (query.overlaps(group) and _may_have(group, query.version)):
                continue
            try:
                table = read_group(group, schema)
            except DamagedPartError as error:
                source.on_damaged(group.file.part, str(error))
                stratum.missing += group.rows
                continue
            found = table if stratum is whole else query.filtered(table, kind.time)
            stratum.matched += len(found)
            draw.add(found, stratum.weight, place * PLACES + group.index * 2**30)
            if len(found):
                newest = max(newest or 0, found[kind.time].cast(pa.int64()).to_numpy().max())
    newest = max([each for each in (newest, *(group.last for _, group in whole.units)) if each is not None], default=None)
    return Sample(
        draw.table(schema).select(list(query.columns)),
        sum(stratum.total for stratum in strata),
        None if newest is None else (EPOCH + int(newest) * MICROSECOND).astimezone(UTC),
    )


def _strata(source: Source, parts: Sequence[Part], query: Query) -> tuple[Stratum, Stratum]:
    """The row groups of compacted parts: those of which every row is wanted, and those that must be read to know."""
    whole: list[tuple[int, Group]] = []
    edges: list[tuple[int, Group]] = []
    compacted = [(number, part) for number, part in enumerate(parts) if part.is_compacted]
    for number, group in source.read(compacted):
        if query.overlaps(group) and _may_have(group, query.version):
            (whole if query.matches_all(group) else edges).append((number, group))
    return _within_budget(whole, counted=True), _within_budget(edges, counted=False)


def _parts_to_read(source: Source, parts: Sequence[Part], single: Stratum, whole: Stratum, query: Query, draw: Draw) -> int:
    """How many of the parts that are not compacted: they are of some days of the window, and need as large a share of it.

    Of parts with many rows, fewer are enough.
    """
    days, days_of_single = {part.day for part in parts}, {part.day for _, part in single.units}
    limit = min(SAMPLED_PARTS, max(FEWEST_PARTS, round(SAMPLED_PARTS * len(days_of_single) / max(len(days), 1))))
    if min(limit, len(single.units)) <= max(FEWEST_PARTS, PILOT_PARTS):
        return limit
    pilot = Stratum(single.units, PILOT_PARTS)
    for _, group in source.read(pilot.drawn(draw.random)):
        if query.overlaps(group) and _may_have(group, query.version):
            pilot.matched += _matching(source, group, query)
    enough = ceil(SPARE * draw.rows * len(single.units) / max(pilot.total + whole.total, 1))
    return min(limit, max(FEWEST_PARTS, enough))


def _matching(source: Source, group: Group, query: Query) -> int:
    """How many rows of the group the query wants; none of a damaged one."""
    if query.matches_all(group):
        return group.rows
    try:
        return len(query.filtered(read_group(group, Query(0, 0, "", ()).schema(source.kind)), source.kind.time))
    except DamagedPartError as error:
        source.on_damaged(group.file.part, str(error))
        return 0


def _within_budget(units: list[tuple[int, Group]], *, counted: bool) -> Stratum:
    total = sum(group.rows for _, group in units)
    share = min(1.0, SAMPLED_ROWS / max(total, 1))
    return Stratum(units, max(1, int(len(units) * share)), counted)


def _may_have(group: Group, version: str) -> bool:
    bounds = text_bounds(group, "model_version")
    return bounds is None or bounds[0] <= version <= bounds[1]
