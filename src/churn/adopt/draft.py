"""The draft of a contract: each raw column as a `Column`, or left out with the reason."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import Any

import numpy as np
import pandas as pd

from churn.adopt.columns import RawColumn, Repair, named, snake_case
from churn.adopt.leaks import leak
from churn.adopt.roles import Roles
from churn.domain.evidence import separation
from churn.domain.values import FALSE, MAX_REAL, TRUE
from churn.errors import ConfigError

MANY = 30
"""A text column with more values is no category."""
SUSPICIOUS = 0.85
"""From this ROC-AUC of one column on, a person has to decide whether it was known at the row's time."""
LONG = 40
"""Text of this mean length is free text."""
PROTECTED = r"(^|_)(gender|sex|race|ethnic\w*|nationality|religion|disab\w*|senior|is_senior|marital\w*|age_group)(_|$)"
SLICED = r"plan|contract|tariff|product|segment|region|state|country|term|channel|type|tier|geograph"
SEATED = r"tenure|seniority|months|member_since"
SHARE = r"rate|ratio|share|pct|percent|prob"
FREE_TEXT = r"comment|note|remark|descript|reason|text|message|feedback|address|(^|_)e?mail|phone|(first|last|full|sur)_?name"


SHORTEST = timedelta(hours=1)
"""The shortest horizon of a label that is proposed."""
FUTURE = 0.01
"""So large a share of the rows may lie in the future: the pipeline leaves them out."""

NO_REPAIR = Repair()


@dataclass(frozen=True)
class Proposal:
    """A feature as proposed: `kind` and `null_as` as Python writes them; `decide` are questions for a person."""

    column: RawColumn
    name: str
    kind: str
    null_as: str = ""
    decide: tuple[str, ...] = ()
    repair: Repair = NO_REPAIR


@dataclass(frozen=True)
class LeftOut:
    """A column that is no feature, with the reason; `decide`: a person might decide otherwise."""

    column: RawColumn
    reason: str
    decide: bool = False


@dataclass(frozen=True)
class Draft:
    """Everything that the files are written from. `outdated`: when the newest row was true, if it is older than `ttl` today."""

    roles: Roles
    names: dict[str, str]
    features: tuple[Proposal | LeftOut, ...]
    horizon: timedelta
    ttl: timedelta
    snapshot: datetime | None
    outdated: datetime | None = None

    @property
    def timestamp_name(self) -> str:
        """The timestamp's name; where the table has none, one that no column of it has."""
        if self.roles.timestamp is not None:
            return self.names[self.roles.timestamp.raw]
        taken = {*self.names, *self.names.values()}
        names = chain(("event_timestamp", "snapshot_time"), (f"snapshot_time_{index}" for index in count(2)))
        return next(each for each in names if each not in taken)

    @property
    def proposals(self) -> list[Proposal]:
        """The features."""
        return [each for each in self.features if isinstance(each, Proposal)]

    @property
    def left_out(self) -> list[LeftOut]:
        """The columns that are none."""
        return [each for each in self.features if isinstance(each, LeftOut)]

    @property
    def repairs(self) -> dict[str, Repair]:
        """Raw name → how its column has to be rewritten."""
        found = {each.column.raw: each.repair for each in self.proposals if each.repair}
        if self.roles.timestamp is not None and self.roles.timestamp.moment:
            found[self.roles.timestamp.raw] = Repair(moment=self.roles.timestamp.moment)
        return found

    @property
    def slices(self) -> list[tuple[str, tuple[int, ...]]]:
        """(feature, edges) for up to four groups of rows."""
        few = [
            each
            for each in self.proposals
            if each.kind.startswith(("Category", "Flag")) and not each.null_as and _is_balanced(each)
        ]
        few.sort(key=lambda each: not re.search(SLICED, each.name))
        bands = [(each.name, edges) for each in self.proposals if re.search(SEATED, each.name) and (edges := _edges(each))]
        return [*((each.name, ()) for each in few[:3]), *bands[:1]]

    @property
    def protected(self) -> list[str]:
        """Features that look like those that law protects."""
        groups = [each for each in self.proposals if each.kind.startswith(("Category", "Flag"))]
        return [each.name for each in groups if re.search(PROTECTED, each.name)]


def draft(columns: Sequence[RawColumn], roles: Roles, *, now: datetime) -> Draft:
    """The draft for these columns; roles name three of them."""
    names = named([each.raw for each in columns] + ([roles.entity.raw] if roles.entity.parts else []))
    own = [each for each in (*roles.entity.parts, roles.entity, roles.timestamp, roles.label) if each is not None]
    seen: dict[Any, str] = {_fingerprint(each): each.raw for each in own}
    features = []
    for column in columns:
        if column.raw not in {each.raw for each in own}:
            features.append(_feature(column, names[column.raw], roles, seen))
    gap = _gap(roles.timestamp)
    horizon = _horizon(roles.timestamp, gap or timedelta(days=30), now)
    snapshot = None if roles.timestamp is not None else (now - timedelta(days=61)).replace(day=1)
    ttl = 2 * gap if gap else timedelta(days=3650)
    snapshot = snapshot and datetime(snapshot.year, snapshot.month, 1, tzinfo=UTC)
    newest = roles.timestamp.times.max().to_pydatetime() if roles.timestamp is not None else None
    outdated = newest if newest is not None and newest + ttl < now else None
    return Draft(roles, names, tuple(features), horizon, ttl, snapshot, outdated)


def _horizon(timestamp: RawColumn | None, gap: timedelta, now: datetime) -> timedelta:
    """Within which time after a row its label may be known: it is, of every row but a few that lie in the future.

    Raises:
        ConfigError: of more than a few rows it cannot be.
    """
    usual = min(timedelta(days=30), gap)
    if timestamp is None:
        return usual
    over = timestamp.times[timestamp.times <= pd.Timestamp(now - SHORTEST)]
    early = len(timestamp.times) - len(over)
    if early > FUTURE * len(timestamp.times):
        raise ConfigError(
            f"--timestamp {timestamp.raw}: expected rows whose label can be known, got {early} of {len(timestamp.times)} that "
            "are less than an hour old or in the future; leave them out, or name another column"
        )
    newest = over.max()
    return usual if newest + usual <= pd.Timestamp(now) else max(timedelta(days=(now - newest).days), SHORTEST)


def _gap(timestamp: RawColumn | None) -> timedelta | None:
    """The usual time between two refreshes, in whole days; None for a single one."""
    if timestamp is None:
        return None
    days = pd.Series(timestamp.times.dt.floor("D").unique()).sort_values().diff().dropna()
    return timedelta(days=max(1, round(pd.Timedelta(days.median()) / pd.Timedelta(days=1)))) if len(days) else None


def _fingerprint(column: RawColumn) -> Any:
    return hash(pd.util.hash_pandas_object(column.values.astype(str), index=False).to_numpy().tobytes())


def _feature(column: RawColumn, name: str, roles: Roles, seen: dict[Any, str]) -> Proposal | LeftOut:
    if not column.is_plain:
        return LeftOut(column, f"values of the type {column.arrow.type}: derive numbers or texts from them in the source")
    if not column.distinct:
        return LeftOut(column, "empty in every row")
    if column.distinct == 1 and not column.nulls:
        return LeftOut(column, f"constant: {column.first} in every row")
    first = seen.setdefault(_fingerprint(column), column.raw)
    if first != column.raw:
        return LeftOut(column, f"the same values as {first}")
    if why := leak(_values(column, roles), roles.churned):
        return LeftOut(column, f"gives the label away: {why}", decide=True)
    found = _kind(column, name, roles)
    if isinstance(found, Proposal) and (question := _suspicion(column, roles)):
        return Proposal(found.column, found.name, found.kind, found.null_as, (*found.decide, question), found.repair)
    return found


def _values(column: RawColumn, roles: Roles) -> "pd.Series[Any]":
    """The values as the check of the contract sees them: numbers, days before the row, or texts."""
    if column.moment is not None and (column.numbers is None or column.moment):
        return _days(column, roles)
    return column.values if column.numbers is None else column.numbers


def _days(column: RawColumn, roles: Roles) -> "pd.Series[Any]":
    if roles.timestamp is None:
        return -column.times.astype("int64").where(column.times.notna()) / 86_400_000_000
    days: pd.Series[Any] = (roles.timestamp.times.dt.floor("D") - column.times.dt.floor("D")) / pd.Timedelta(days=1)
    return days


def _suspicion(column: RawColumn, roles: Roles) -> str:
    values = _values(column, roles)
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return ""
    numbers = values.astype("float64")
    area = separation(roles.churned.to_numpy(dtype=bool), numbers.fillna(numbers.min() - 1).to_numpy())
    return f"ROC-AUC {area:.2f} alone: was it known at the row's time?" if area >= SUSPICIOUS else ""


def _kind(column: RawColumn, name: str, roles: Roles) -> Proposal | LeftOut:
    if (column.distinct <= 2 or set(column.spellings) <= {*TRUE, *FALSE}) and not column.is_code and (flag := _flag(column)):
        return _nullable_text(column, name, flag)
    if column.moment is not None and (column.numbers is None or column.moment == "%Y%m%d"):
        return _date(column, name, roles)
    if column.numbers is not None:
        return _number(column, name)
    return _text(column, name)


def _flag(column: RawColumn) -> str:
    """The flag that two values spell; "" if they do not look like one, or one of them never occurs."""
    from churn.adopt.roles import POSITIVE

    if column.is_boolean or (column.distinct > 2 and set(column.spellings) <= {*TRUE, *FALSE}):
        return "Flag()"
    if column.distinct != 2 or column.repair:
        return ""
    positive = [each for each in column.spellings if each.strip().casefold() in POSITIVE]
    if len(positive) != 1 or any(each != each.strip() for each in column.spellings):
        return ""
    yes = positive[0]
    no = next(each for each in column.spellings if each != yes)
    return "Flag()" if (yes, no) == ("Yes", "No") else f"Flag({text(yes)}, {text(no)})"


def _nullable_text(column: RawColumn, name: str, kind: str) -> Proposal | LeftOut:
    if not column.nulls:
        return Proposal(column, name, kind)
    words = chain(("missing", "null", "no value"), (f"no value {index}" for index in count(2)))
    missing = next(each for each in words if each not in column.spellings)
    return Proposal(column, name, kind, text(missing), (f"what does a blank mean ({column.nulls} rows)?",))


def _date(column: RawColumn, name: str, roles: Roles) -> Proposal | LeftOut:
    if column.moment and not column.repairable:
        return LeftOut(column, f"dates of the form {column.moment}: write them as ISO 8601 in the source", decide=True)
    if column.too_far:
        return LeftOut(column, f"a date before 1678 or after 2261 in {column.too_far} rows: write null there", decide=True)
    if roles.timestamp is None:
        return LeftOut(
            column, "a date, and the table has no timestamp to count its days from: compute the days in the source", decide=True
        )
    later = int((_days(column, roles) < 0).sum())
    if later:
        return LeftOut(column, f"a date after the row's timestamp in {later} rows: it was not known then", decide=True)
    questions = ["is this date known at the row's time, and never changed afterwards?"]
    questions += ["day and month could be exchanged"] if column.is_ambiguous else []
    repair = Repair(moment=column.moment or "")
    return Proposal(column, name, "Date()", "-1" if column.nulls else "", tuple(questions), repair)


def _number(column: RawColumn, name: str) -> Proposal | LeftOut:
    assert column.numbers is not None
    if column.repair and not column.repairable:
        return LeftOut(column, f"numbers that are not written as such ({column.repair}): do it in the source", decide=True)
    if column.is_whole and column.is_unique and re.search(r"(^|_)(id|no|nr|num|number|key|uuid|rownames|index|row)$", name):
        return LeftOut(column, "another identifier: every row has its own")
    numbers = column.numbers.dropna()
    infinite = 0 if column.is_text else int(np.isinf(column.values.astype("float64")).sum())
    if infinite:
        return LeftOut(column, f"infinite in {infinite} rows: write null there in the source", decide=True)
    if numbers.empty:
        return LeftOut(column, "no finite number in any row")
    if too_large := int((numbers.abs() > MAX_REAL).sum()):
        return LeftOut(column, f"larger than the model's numbers can be, {MAX_REAL:.1e}, in {too_large} rows", decide=True)
    low, high = _bounds(float(numbers.min()), float(numbers.max()), name, whole=column.is_whole)
    nulls = int(column.numbers.isna().sum())
    kind = f"{'Integer' if column.is_whole else 'Real'}({_number_text(low)}, {_number_text(high)})"
    questions = [f"what does a blank mean ({nulls} rows)? 0 where it means none"] if nulls else []
    null_as = _number_text(-1 if low is not None and low >= 0 else math.floor((low or 0) - 1)) if nulls else ""
    return Proposal(column, name, kind, null_as, tuple(questions), column.repair)


def _bounds(low: float, high: float, name: str, *, whole: bool) -> tuple[float | None, float | None]:
    """Bounds with slack, which wrong units and broken exports exceed."""
    if whole and low >= 1900 and high <= 2100:
        return 1900, 2100
    if low >= 0 and high <= 1 and not whole and re.search(SHARE, name):
        return 0, 1
    return (0 if low >= 0 else _negated(_round_up(-3 * low))), (0 if high <= 0 else _round_up(3 * high))


def _round_up(value: float) -> float | None:
    """The next number of the form 1, 2 or 5 × 10^k, at least 10; None where it is too large to mean anything."""
    if value > 1e15:
        return None
    power = 10.0 ** max(1, math.floor(math.log10(value)) if value > 0 else 1)
    return next((factor * power for factor in (1, 2, 5, 10) if factor * power >= value), 10 * power)


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _number_text(value: float | None) -> str:
    return "None" if value is None else f"{int(value):_d}" if abs(value) >= 100_000 else str(int(value))


def _text(column: RawColumn, name: str) -> Proposal | LeftOut:
    texts = [str(each) for each in column.counts.index]
    mean = float(np.average([len(each) for each in texts], weights=column.counts.to_numpy()))
    if column.distinct > 2 and (mean > LONG or (re.search(FREE_TEXT, name) and column.distinct > MANY)):
        return LeftOut(column, "free text or personal data: derive numbers or a category from it in the source")
    if column.is_decorated and not column.is_code and column.distinct > 2:
        return LeftOut(column, f"numbers with other signs ({column.first}): write plain numbers in the source", decide=True)
    if column.is_text and column.repair.nothing and not column.repairable:
        return LeftOut(column, f"numbers and texts mixed ({column.first})", decide=True)
    if column.distinct > MANY and column.counts.iloc[0] <= max(2, 0.001 * len(column.values)):
        return LeftOut(column, f"{column.distinct} different texts, almost one per row: an identifier or free text")
    if column.distinct <= MANY:
        listed = ", ".join(text(each) for each in sorted(texts))
        return _nullable_text(column, name, f"Category(({listed}{',' if len(texts) == 1 else ''}))")
    if any(each != each.strip() or len(each) > 128 or not each.isprintable() for each in texts):
        return LeftOut(
            column, f"{column.distinct} different texts, some with blanks around them: clean them in the source", decide=True
        )
    return _nullable_text(column, name, "Grouped(commonest=20)")


def _is_balanced(proposal: Proposal) -> bool:
    counts = proposal.column.counts
    return len(counts) <= 6 and bool(counts.min() >= max(100, 0.05 * counts.sum()))


def _edges(proposal: Proposal) -> tuple[int, ...]:
    numbers = proposal.column.numbers
    if numbers is None or not proposal.kind.startswith(("Integer", "Real")):
        return ()
    edges = sorted({math.ceil(each) for each in numbers.dropna().quantile([0.25, 0.5, 0.75])})
    return tuple(each for each in edges if numbers.min() < each <= numbers.max())


def text(value: str) -> str:
    """The text as a Python literal, with the quotation marks that ruff's formatter writes."""
    body = "".join(each if each.isprintable() and each != "\\" else repr(each)[1:-1] for each in value)
    mark = "'" if body.count('"') > body.count("'") else '"'
    return mark + body.replace(mark, f"\\{mark}") + mark


def described(column: RawColumn) -> str:
    """A first description, from the raw name."""
    words = snake_case(column.raw).replace("_", " ")
    return words[:1].upper() + words[1:]
