"""Which columns are the entity, the timestamp and the label: as the options say, or where only one is likely."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from churn.adopt.columns import RawColumn, snake_case, spelled
from churn.errors import ConfigError

Ask = Callable[[str, str, Sequence[str]], str]
"""(option, question, likely answers) → the answer of the person at the terminal."""

PEOPLE = r"(customer|client|account|user|subscriber|member|policy|contract|cust|acct)"
ID = r"(id|no|nr|num|number|key|code|uuid|guid)"
CHURN = r"churn|attrition|attrited|exited|cancel|lapse|has_left|^left$|unsubscribed|defected"
AS_OF = (
    r"^((snapshot|as_of|asof|event|observation|obs|reference|reporting|record|month)(_?(date|time|timestamp|ts|at|end|month))?"
    r"|timestamp|date|month|period)$"
)
ANSWERS = frozenset({"yes", "y", "true", "t", "1", "1.0", "ja", "j", "oui", "si"})
"""Values that mean churned only where the column's name asks for it."""
STAYED = (
    r"(^|_)(not?|non|active|current|existing|stay\w*|retain\w*|retention|kept|keep\w*|renew\w*|remain\w*|loyal|surviv\w*)(_|$)"
)
"""Names of columns that say yes for a customer who stayed."""
ONES, ZEROS = ("1", "1.0"), ("0", "0.0", "-1", "-1.0")
POSITIVE = ANSWERS | {"churned", "churn", "churner", "left", "exited"}
POSITIVE |= {
    "cancelled",
    "canceled",
    "attrited customer",
    "attrited",
    "lost",
    "lapsed",
    "closed",
    "inactive",
    "terminated",
    "gone",
}
NONE = "none"
"""What `--timestamp` says where the table is one snapshot without a date."""
SHOWN = 8


@dataclass(frozen=True)
class Wanted:
    """The options of `churn init`; empty where they were not given."""

    entity: str = ""
    timestamp: str = ""
    label: str = ""
    positive: str = ""


@dataclass(frozen=True)
class Roles:
    """The columns of each role; `timestamp` is None for a snapshot without a date. `yes` and `no` are the label's spellings."""

    entity: RawColumn
    timestamp: RawColumn | None
    label: RawColumn
    yes: str
    no: str

    @property
    def churned(self) -> "pd.Series[bool]":
        """True (n,) for churned customers."""
        meanings = {value: text == self.yes for value, text in zip(self.label.counts.index, self.label.spellings, strict=True)}
        return self.label.values.map(meanings).astype(bool)


def choose(columns: Sequence[RawColumn], wanted: Wanted, ask: Ask | None) -> Roles:
    """The roles; what is neither given nor obvious is asked for.

    Raises:
        ConfigError: an option names no column or one that does not fit, or is missing and `ask` is None: it names all of those.
    """
    missing: list[str] = []

    def get(option: str, given: str, obvious: str, question: str, likely: Sequence[str]) -> str:
        if given or obvious:
            return given or obvious
        if ask:
            return ask(option, question, likely)
        shown = ", ".join(likely[:SHOWN]) or "none found"
        missing.append(f"--{option} ({question}; likely: {shown})")
        return ""

    labels = [each for each in columns if each.distinct == 2 and not each.nulls]
    likely = sorted(labels, key=lambda each: not re.search(CHURN, snake_case(each.raw)))
    telling = [each.raw for each in labels if re.search(CHURN, snake_case(each.raw))]
    answer = get(
        "label",
        wanted.label,
        telling[0] if len(telling) == 1 else "",
        "the column that says whether the customer churned",
        [each.raw for each in likely],
    )
    label = _column(columns, "label", answer).trimmed if answer else None
    if label:
        _require_binary(label)
    answer = get(
        "entity",
        wanted.entity,
        _obvious_entity(columns, label),
        "the column that identifies the customer",
        [each.raw for each in _likely_entities(columns) if label is None or each.raw != label.raw],
    )
    entity = _entity(columns, answer) if answer else None
    if entity and not entity.is_identifier:
        raise ConfigError(
            f"--entity {entity.raw}: expected identifiers in every row, whole numbers or text of 1 to 128 characters, got others "
            f"({entity.nulls} rows without a value); name another column, or correct the rows"
        )
    timestamp = _timestamp(columns, entity, wanted, get) if entity else None
    yes = ""
    if label:
        yes = get(
            "positive", wanted.positive, _obvious_positive(label), f"the value of {label.raw} that means churned", label.spellings
        )
    if missing:
        raise ConfigError(f"churn init: expected every option that is not obvious, got none for {'; '.join(missing)}; give them")
    assert label
    assert entity
    if yes not in label.spellings:
        raise ConfigError(f"--positive {yes}: expected a value of {label.raw}, got another; give {' or '.join(label.spellings)}")
    no = next(each for each in label.spellings if each != yes)
    return Roles(entity, timestamp, label, yes, no)


def _timestamp(columns: Sequence[RawColumn], entity: RawColumn, wanted: Wanted, get: Any) -> RawColumn | None:
    times = [each for each in columns if each.moment is not None and not each.nulls and each is not entity]
    fitting = [each for each in times if not pd.DataFrame({"e": entity.values, "t": each.times}).duplicated().any()]
    named = [each.raw for each in fitting if re.search(AS_OF, snake_case(each.raw))]
    if entity.is_unique:
        answer = wanted.timestamp or (named[0] if len(named) == 1 else NONE)
    else:
        obvious = named if len(named) == 1 else [each.raw for each in fitting]
        answer = get(
            "timestamp",
            wanted.timestamp,
            obvious[0] if len(obvious) == 1 else "",
            f"{entity.raw} has several rows: the column that says when each was true",
            [each.raw for each in fitting],
        )
    if not answer:
        return None
    if answer == NONE:
        if not entity.is_unique:
            repeated = len(entity.values) - entity.distinct
            raise ConfigError(
                f"--entity {entity.raw}: expected one row per customer where there is no timestamp, got {repeated} more; "
                "name the column of the row's time with --timestamp, or another entity"
            )
        return None
    column = _column(columns, "timestamp", answer)
    if column not in times:
        shown = ", ".join(each.raw for each in times[:SHOWN]) or "none found"
        raise ConfigError(
            f"--timestamp {answer}: expected dates in every row, got {column.first}; name another ({shown}) or {NONE}"
        )
    if 0 < column.zoned < len(column.values):
        raise ConfigError(
            f"--timestamp {answer}: expected a time zone in every row or in none, got one in {column.zoned} of "
            f"{len(column.values)}; write all in UTC"
        )
    if column not in fitting:
        repeated = int(pd.DataFrame({"e": entity.values, "t": column.times}).duplicated().sum())
        raise ConfigError(
            f"--timestamp {answer}: expected one row per {entity.raw} and time, got {repeated} more; remove them, or name another"
        )
    return column


def _entity(columns: Sequence[RawColumn], answer: str) -> RawColumn:
    """The column of that name; of names with commas between them, their values joined by ":", as the pipeline joins them."""
    if "," not in answer or any(each.raw == answer for each in columns):
        return _column(columns, "entity", answer)
    parts = tuple(_column(columns, "entity", each.strip()) for each in answer.split(","))
    for each in parts:
        if not each.is_identifier or any(":" in str(value) for value in each.counts.index):
            raise ConfigError(
                f"--entity {each.raw}: expected identifiers without ':' in every row, got others; name other columns"
            )
    texts = [each.values.map(spelled) for each in parts]
    joined = [":".join(values) for values in zip(*texts, strict=True)]
    return RawColumn(" ".join(each.raw for each in parts), pa.array(joined, pa.string()), parts=parts)


def _column(columns: Sequence[RawColumn], option: str, name: str) -> RawColumn:
    exact = [each for each in columns if each.raw == name]
    close = exact or [each for each in columns if snake_case(each.raw) == snake_case(name)]
    if len(close) != 1:
        raise ConfigError(f"--{option} {name}: expected a column of the table, got none; name one of {_listed(columns)}")
    return close[0]


def _listed(columns: Sequence[RawColumn]) -> str:
    more = f" and {len(columns) - 40} more" if len(columns) > 40 else ""
    return ", ".join(each.raw for each in columns[:40]) + more


def _require_binary(label: RawColumn) -> None:
    if label.nulls:
        raise ConfigError(
            f"--label {label.raw}: expected a value in every row, got none in {label.nulls}; leave out rows without a label"
        )
    if label.distinct != 2:
        raise ConfigError(
            f"--label {label.raw}: expected two values, got {label.distinct} ({label.first}); make it a yes/no column"
        )


def _likely_entities(columns: Sequence[RawColumn]) -> list[RawColumn]:
    many = max(20, len(columns[0].values) // 100)
    likely = [each for each in columns if each.is_identifier and (each.is_unique or (_id_score(each) and each.distinct >= many))]
    return sorted(likely, key=lambda each: (-_id_score(each), not each.is_unique))


def _id_score(column: RawColumn) -> int:
    name = snake_case(column.raw)
    if re.search(rf"(^|_){PEOPLE}_?{ID}$|^id$|^{PEOPLE}$", name):
        return 2
    return 1 if re.search(rf"(^|_){ID}$|(^|_)id_", name) else 0


def _obvious_entity(columns: Sequence[RawColumn], label: RawColumn | None) -> str:
    likely = [each for each in _likely_entities(columns) if label is None or each.raw != label.raw]
    if not likely:
        return ""
    best = _id_score(likely[0])
    first = [each for each in likely if _id_score(each) == best and each.is_unique == likely[0].is_unique]
    return first[0].raw if best and len(first) == 1 else ""


def _obvious_positive(label: RawColumn) -> str:
    """The value that says by itself, or as the answer to the column's name, that a customer churned."""
    positive = [each for each in label.spellings if each.strip().casefold() in POSITIVE]
    if len(positive) != 1:
        return ""
    other = next(each for each in label.spellings if each != positive[0])
    if positive[0] in ONES and other not in ZEROS:
        return ""  # 1 beside 2 is a code
    is_answer = positive[0].strip().casefold() in ANSWERS
    return "" if is_answer and re.search(STAYED, snake_case(label.raw)) else positive[0]
