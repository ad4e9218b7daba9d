"""What one raw column holds, and what of it could be a feature."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn.adopt.tables import LOGGED, OUTCOMES, is_name
from churn.domain.values import CONTROL, EXACT, FIRST, LAST, MAX_ID, MAX_INTEGER, MAX_REAL, NUMBER, WHOLE, as_moment

NOTHING = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."})
"""How exports write that a number is not known; the pipeline takes only a blank for a null."""
ZONE = r"(?:[+-][0-9]{2}(?::?[0-9]{2})?|Z)$"
"""How a timestamp in text ends that has a time zone."""
THOUSANDS = r"[+-]?[0-9]{1,3}(\.[0-9]{3})+|[+-]?[0-9]{1,3}"
"""A whole number whose points separate thousands, where points do that."""
DECIMAL_COMMA = r"[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?"
DECORATED = r"[^0-9a-zA-Z]{0,2}[0-9][0-9.,' ]*\s?(%|[^0-9a-zA-Z]|[A-Z]{3})?"
"""A number with a currency, a percent sign or separators of thousands."""
MOMENTS = ("%Y-%m", "%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%Y%m%d")
SLASHES = ("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%y", "%d/%m/%y")
"""Day and month may be exchanged here: the first that reads every value is taken."""
LETTERS = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "Ä": "Ae",
        "Ö": "Oe",
        "Ü": "Ue",
        "ß": "ss",
        "%": " pct ",
        "#": " number ",
        "€": " eur ",
        "$": " usd ",
    }
)

SYNONYMS = {"churn": "churned"}
"""Names instead of some of those that the event log uses."""


@dataclass(frozen=True)
class Repair:
    """How a column of a local file has to be rewritten before the pipeline can read it.

    `nothing` are the texts that become a null, `comma` that numbers have a decimal comma, `moment` the format of its timestamps.
    """

    nothing: tuple[str, ...] = ()
    comma: bool = False
    moment: str = ""

    def __bool__(self) -> bool:
        return bool(self.nothing or self.comma or self.moment)

    def __str__(self) -> str:
        parts = [f"{', '.join(map(repr, self.nothing))} become blank"] if self.nothing else []
        parts += ["decimal commas become points"] if self.comma else []
        parts += [f"dates of the form {self.moment} become ISO 8601"] if self.moment else []
        return ", ".join(parts)

    def applied(self, texts: "pd.Series[Any]") -> "pd.Series[Any]":
        """The repaired texts."""
        if self.nothing:
            texts = texts.mask(texts.str.strip().isin(self.nothing))
        if self.comma:
            texts = texts.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        if self.moment:
            moments = pd.to_datetime(texts.str.strip(), format=self.moment, utc=True, errors="coerce")
            texts = moments.dt.strftime("%Y-%m-%dT%H:%M:%SZ").where(moments.notna())
        return texts


@dataclass(frozen=True)
class RawColumn:
    """A column as the table has it. `repairable`: its file can be rewritten. `comma`: numbers may have a decimal comma.

    `points`: a point separates thousands, as in the other columns of the table. `parts` are the columns of a key of several.
    """

    raw: str
    arrow: Any = field(repr=False)
    repairable: bool = False
    comma: bool = False
    points: bool = False
    parts: tuple["RawColumn", ...] = ()

    @cached_property
    def values(self) -> "pd.Series[Any]":
        """Texts, numbers, booleans or UTC times; nulls and blank texts are null."""
        kind = self.arrow.type
        if pa.types.is_decimal(kind):
            return pd.Series(self.arrow.cast(pa.float64()).to_pandas())
        if self.is_moment:
            times = pd.Series(pd.to_datetime(self.arrow.to_pandas(), utc=True, errors="coerce"))
            times = times.where((times >= pd.Timestamp(FIRST)) & (times < pd.Timestamp(LAST)))
            return times.astype("datetime64[us, UTC]")
        if self.is_text:
            texts: pd.Series[Any] = self.arrow.cast(pa.string()).to_pandas()
            return texts.where(texts.str.strip() != "")
        values: pd.Series[Any] = self.arrow.to_pandas()
        return values

    @cached_property
    def trimmed(self) -> "RawColumn":
        """The column without blanks around its texts, which a flag ignores."""
        return dataclasses.replace(self, arrow=pc.utf8_trim_whitespace(self.arrow)) if self.is_text else self

    @cached_property
    def is_text(self) -> bool:
        """True if its values are texts."""
        kind = self.arrow.type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

    @cached_property
    def is_moment(self) -> bool:
        """True if its values are dates or timestamps in a type of their own."""
        return bool(pa.types.is_timestamp(self.arrow.type) or pa.types.is_date(self.arrow.type))

    @property
    def too_far(self) -> int:
        """Rows whose date or timestamp, in a type of its own, lies outside of what the pipeline reads."""
        return self.nulls - self.arrow.null_count if self.is_moment else 0

    @property
    def zoned(self) -> int:
        """Rows whose time, as text, names a time zone."""
        return int(self.values.dropna().str.strip().str.contains(ZONE).sum()) if self.is_text else 0

    @cached_property
    def is_boolean(self) -> bool:
        """True if its values are true and false in a type of their own."""
        return bool(pa.types.is_boolean(self.arrow.type))

    @cached_property
    def is_plain(self) -> bool:
        """False for lists, structs and other types that no kind reads."""
        kind = self.arrow.type
        simple = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
        return self.is_text or self.is_moment or any(check(kind) for check in simple)

    @cached_property
    def counts(self) -> "pd.Series[Any]":
        """Value → in how many rows it is; nulls are left out."""
        return self.values.value_counts()

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return int(self.values.isna().sum())

    @property
    def distinct(self) -> int:
        """Different values."""
        return len(self.counts)

    @property
    def is_unique(self) -> bool:
        """True if every row has a value of its own."""
        return self.distinct == len(self.values)

    @cached_property
    def spellings(self) -> list[str]:
        """The different values as a contract writes them."""
        if self.is_boolean:
            return ["Yes" if each else "No" for each in self.counts.index]
        return [spelled(each) for each in self.counts.index]

    @cached_property
    def is_code(self) -> bool:
        """True for digits that are no number: some begin with a zero."""
        return self.is_text and any(re.fullmatch(r"0[0-9]+", each.strip()) for each in self.counts.index)

    @cached_property
    def repair(self) -> Repair:
        """What has to be rewritten so that its numbers can be read."""
        if not self.is_text:
            return Repair()
        if self._all(self.counts.index, NUMBER):
            has_points = any("." in each for each in self.counts.index)
            return Repair(comma=self.points and has_points and self._all(self.counts.index, THOUSANDS))
        texts = [each.strip() for each in self.counts.index]
        nothing = tuple(sorted({each for each in texts if each.casefold() in NOTHING}))
        numbers = [each for each in texts if each not in nothing]
        if numbers and self._all(numbers, NUMBER):
            return Repair(nothing=nothing)
        if numbers and self.comma and self._all(numbers, DECIMAL_COMMA):
            return Repair(nothing=nothing, comma=True)
        return Repair()

    @cached_property
    def numbers(self) -> "pd.Series[Any] | None":
        """The values as numbers, after the repair; None if they are none."""
        if self.is_boolean or not self.is_plain or self.is_code or not self.distinct:
            return None
        if not self.is_text:
            numeric = pd.api.types.is_numeric_dtype(self.values)
            return self.values.astype("float64").replace([np.inf, -np.inf], np.nan) if numeric else None
        texts = self.repair.applied(self.values)
        if not self._all(texts.dropna().unique(), NUMBER):
            return None
        numbers = pd.to_numeric(texts.str.strip(), errors="coerce").astype("float64")
        # What float64 cannot hold, 1e400, is not a number here either.
        return numbers if bool(((numbers.abs() <= MAX_REAL) | texts.isna()).all()) else None

    @cached_property
    def is_whole(self) -> bool:
        """True if its numbers are integers that the contract can hold."""
        if self.numbers is None:
            return False
        if self.is_text:
            return self._all(self.repair.applied(self.values).dropna().unique(), WHOLE)
        filled = self.numbers.dropna()
        return bool(((filled % 1 == 0) & (filled.abs() <= MAX_INTEGER)).all())

    @cached_property
    def moment(self) -> str | None:
        """How its times are written: "" as the pipeline reads them, else the format to repair; None if they are no times."""
        if pd.api.types.is_datetime64_any_dtype(self.values):
            return ""
        if not self.is_text or not self.distinct:
            return None
        texts = [each.strip() for each in self.counts.index]
        if all(as_moment(each) for each in texts):
            return ""
        if len(texts[0]) > 20 or not any(each.isdigit() for each in texts[0]):
            return None
        series = pd.Series(texts)
        for form in (*MOMENTS, *SLASHES):
            if form == "%Y%m%d" and not self._all(texts, "[0-9]{8}"):
                continue
            if pd.to_datetime(series.head(20), format=form, errors="coerce").notna().all():
                times = pd.to_datetime(series, format=form, errors="coerce")
                if times.notna().all() and times.dt.year.between(1900, 2200).all():
                    return form
        return None

    @cached_property
    def times(self) -> "pd.Series[Any]":
        """The values as UTC times; only where `moment` is not None."""
        if not self.is_text:
            return self.values
        texts = Repair(moment=self.moment).applied(self.values) if self.moment else self.values
        few = {each: as_moment(each.strip()) for each in texts.dropna().unique()}
        return pd.to_datetime(texts.map(few), utc=True).astype("datetime64[us, UTC]")

    @cached_property
    def is_ambiguous(self) -> bool:
        """True if day and month of its times could be exchanged."""
        if self.moment not in SLASHES:
            return False
        other = SLASHES[SLASHES.index(self.moment) ^ 1]
        return bool(pd.to_datetime(pd.Series(self.counts.index), format=other, errors="coerce").notna().all())

    @cached_property
    def is_identifier(self) -> bool:
        """True if every value can be an entity's."""
        if self.is_boolean or self.nulls or not self.is_plain or self.moment is not None:
            return False
        kind = self.arrow.type
        if pa.types.is_integer(kind):
            return True
        if not self.is_text:
            # A float that may stand for several whole numbers identifies nobody.
            exact = 2.0**24 if pa.types.is_float32(kind) or pa.types.is_float16(kind) else EXACT
            return self.is_whole and bool((self.values.abs() < exact).all())
        index: Iterable[str] = self.counts.index
        return all(each == each.strip() and len(each) <= MAX_ID and not re.search(CONTROL, each) for each in index)

    @staticmethod
    def _all(texts: Iterable[str], pattern: str) -> bool:
        form = re.compile(pattern)
        return all(form.fullmatch(each.strip()) for each in texts)

    @property
    def is_decorated(self) -> bool:
        """True for numbers with a currency, a percent sign or separators of thousands."""
        return self.is_text and self.distinct > 0 and self._all(self.counts.index, DECORATED)

    @property
    def first(self) -> str:
        """The commonest values, for a comment."""
        return ", ".join(_shortened(repr(spelled(each))) for each in self.counts.index[:3])


def spelled(value: Any) -> str:
    """A value as a CSV file spells it: whole floats without their fraction."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:22]}…"


def named(raws: Sequence[str]) -> dict[str, str]:
    """Raw name → snake_case name, each once, and none that is the raw name of another column."""
    names: dict[str, str] = {}
    for raw in sorted(raws, key=lambda each: snake_case(each) != each):
        name = snake_case(raw)
        candidates = chain(
            (name, SYNONYMS.get(name, name), f"{name}_value"), (f"{name}_{index}" for index in range(2, len(raws) + 2))
        )
        used = {*names.values(), *(each for each in raws if each != raw), *LOGGED, *OUTCOMES}
        names[raw] = next(each for each in candidates if is_name(each) and each not in used)
    return names


def snake_case(raw: str) -> str:
    """The name in small letters, digits and _: `Überziehung (€)` becomes `ueberziehung_eur`, `TotalCharges` total_charges."""
    plain = unicodedata.normalize("NFKD", raw.translate(LETTERS)).encode("ascii", "ignore").decode()
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    name = re.sub(r"[^0-9a-z]+", "_", parted.lower()).strip("_")
    return name if name and not name[0].isdigit() else f"column_{name}".rstrip("_")
