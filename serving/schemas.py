"""What requests and answers look like, from the contract."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, create_model, model_validator

from churn.adapters.moments import EARLIEST, PastMoment
from churn.contract import (
    BY_NAME,
    DATES,
    ENTITY,
    LABEL,
    RAW_FEATURES,
    TIMESTAMP,
    Category,
    Column,
    Date,
    Flag,
    Integer,
    Kind,
    Real,
    Text,
)
from churn.domain.values import MAX_ID, MAX_INTEGER, MAX_REAL, MAX_WHOLE, MIN_WHOLE, plain
from serving.examples import EXAMPLE

SOURCES = {
    each.sources[0]: each.name
    for each in (BY_NAME[ENTITY], *RAW_FEATURES)
    if len(each.sources) == 1 and each.sources[0] != each.name
}
"""The raw file's own name of a column → the name that a request gives it."""


def _plain(kind: Kind, schema: Any) -> BeforeValidator:
    """Reads a JSON number that stands for a value of the kind, as `churn.domain.values` says; the document shows `schema`."""
    return BeforeValidator(partial(plain, kind), json_schema_input_type=schema)


# The rule of `churn.domain.values.is_identifier`. `\s` alone would let the control characters in.
_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
_IDENTIFIER = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=_PATTERN)]
_NUMBERED = Annotated[int, Field(ge=MIN_WHOLE, le=MAX_WHOLE)]
Identifier = Annotated[_IDENTIFIER, _plain(BY_NAME[ENTITY].kind, _IDENTIFIER | _NUMBERED)]
"""An identifier as text, or a whole number of at most 64 bits that is read as its digits."""
_Day = Annotated[date, _plain(Date(), Annotated[str, Field(examples=["2026-01-31"])])]
Risk = Literal["low", "medium", "high"]


class Strict(BaseModel):
    """No unknown keys, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _type(kind: Kind) -> Any:
    """The pydantic type of the values that `churn.domain.values` accepts."""
    match kind:
        case Category(values):
            return (
                Annotated[Literal[values], _plain(kind, Literal[values])] if any(map(str.isdecimal, values)) else Literal[values]
            )
        case Flag(yes, no):
            return Annotated[bool, _plain(kind, bool)] if (yes + no).isdecimal() else bool
        case Integer(ge, le):
            low, high = (-MAX_INTEGER if ge is None else ge), (MAX_INTEGER if le is None else le)
            number = Annotated[int, Field(ge=low, le=high)]
            return Annotated[number, _plain(kind, number)]
        case Real(ge, le):
            return Annotated[float, Field(ge=-MAX_REAL if ge is None else ge, le=MAX_REAL if le is None else le)]
        case Date():
            return _Day
        case Text():
            return Identifier
        case _:
            return str


def _blank_as_null(value: Any) -> Any:
    """As in tables, where a blank text is a null."""
    return None if isinstance(value, str) and not value.strip() else value


def _field(column: Column) -> Any:
    kind = _type(column.kind)
    if column.nullable:
        is_text = isinstance(column.kind, Category | Date | Text)
        kind = Annotated[kind | None, BeforeValidator(_blank_as_null)] if is_text else kind | None
    given: Any = None if column.nullable else ...
    return kind, Field(given, description=column.description, examples=[EXAMPLE[column.name]])


_FIELDS: dict[str, Any] = {
    ENTITY: (Identifier | None, Field(None, description=BY_NAME[ENTITY].description, examples=[EXAMPLE[ENTITY]])),
    **{each.name: _field(each) for each in RAW_FEATURES},
}


class _Dated(Strict):
    """Dates, none of them after the day of the row."""

    @model_validator(mode="after")
    def _dates_before_the_row(self) -> Self:
        moment = getattr(self, TIMESTAMP) or datetime.now(UTC).date()
        for name in DATES:
            if (day := getattr(self, name)) and day > moment:
                raise ValueError(f"{name}: expected a {BY_NAME[name].kind}, got a later one")
        return self


if DATES:
    _at = Field(None, description=f"{BY_NAME[TIMESTAMP].description}; the present if it is left out")
    _FIELDS[TIMESTAMP] = (_Day | None, _at)

Customer = create_model(
    "Customer",
    __base__=_Dated if DATES else Strict,
    __doc__="A customer's attributes: the contract's raw columns.",
    **_FIELDS,
)


CUSTOMERS = TypeAdapter(Annotated[list[Customer], Field(fail_fast=True)])
"""Rows that another protocol brought."""


def renamed(names: Iterable[object]) -> str:
    """What to send instead of the raw file's own column names among `names`; "" if there are none."""
    raw = [str(name) for name in names if name in SOURCES]
    return f"rename {', '.join(f'{name} to {SOURCES[name]}' for name in raw)}" if raw else ""


class PredictRequest(Strict):
    """Customers to score, by their attributes."""

    customers: Annotated[list[Customer], Field(min_length=1, fail_fast=True)]


class ByIdRequest(Strict):
    """Customers to score, by identifier: their features come from the online store."""

    customer_ids: Annotated[list[Identifier], Field(min_length=1, fail_fast=True, examples=[[EXAMPLE[ENTITY]]])]


class ExplainRequest(Strict):
    """Customers to explain, by their attributes or by identifier."""

    customers: Annotated[list[Customer] | None, Field(min_length=1, fail_fast=True)] = None
    customer_ids: Annotated[list[Identifier] | None, Field(min_length=1, fail_fast=True)] = None

    @model_validator(mode="after")
    def _one_form(self) -> "ExplainRequest":
        if (self.customers is None) == (self.customer_ids is None):
            raise ValueError("give either customers or customer_ids")
        return self


class Prediction(Strict):
    """One customer's score."""

    prediction_id: str
    customer_id: str | None
    churn_probability: Annotated[float, Field(ge=0, le=1)]
    churn: Annotated[bool, Field(description="The probability is at least the version's decision threshold")]
    risk: Annotated[Risk, Field(description="low: below the threshold; high: at least .5; medium: between")]


class PredictResponse(Strict):
    """Scores, in the order of the request, all by one version."""

    model_version: str
    predictions: list[Prediction]


class Reason(Strict):
    """What one feature adds to a customer's log-odds of churning."""

    feature: str
    value: Any
    contribution: Annotated[float, Field(description="Log-odds; above 0 raises the risk")]
    text: str


class Explanation(Prediction):
    """One customer's score and its reasons, the largest first."""

    log_odds: Annotated[float, Field(description="base_log_odds and every contribution, added up")]
    reasons: list[Reason]


class ExplainResponse(Strict):
    """Explanations, in the order of the request."""

    model_version: str
    base_log_odds: Annotated[float, Field(description="The average customer's log-odds")]
    explanations: list[Explanation]


class Outcome(Strict):
    """Whether a customer left."""

    customer_id: Identifier | None = None
    prediction_id: Identifier | None = None
    churned: Annotated[bool, Field(description=BY_NAME[LABEL].description)]
    observed_at: Annotated[
        PastMoment,
        Field(description=f"With its zone, from {EARLIEST:%Y} on, and not in the future", examples=["2026-02-01T00:00:00Z"]),
    ]

    @model_validator(mode="after")
    def _one_name(self) -> "Outcome":
        if (self.customer_id is None) == (self.prediction_id is None):
            raise ValueError("give either customer_id or prediction_id")
        return self


class OutcomesRequest(Strict):
    """Outcomes to keep; the same one may be sent again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"outcomes": [{ENTITY: EXAMPLE[ENTITY], "churned": True, "observed_at": "2026-02-01T00:00:00Z"}]}]
        }
    )

    outcomes: Annotated[list[Outcome], Field(min_length=1, fail_fast=True)]


class OutcomesResponse(Strict):
    """What was kept: one id per outcome, the same for the same outcome."""

    outcome_ids: list[str]


class ModelResponse(Strict):
    """The version that is serving."""

    model: str
    model_version: str
    threshold: float
    features: list[str]
    metrics: dict[str, float]
    trained_at: datetime
    age_s: float
    bundle_sha256: str
    pinned: Annotated[bool, Field(description="Rolled back on this server: the registry is not followed")]


class Status(Strict):
    """How the server is."""

    status: str


class Problem(Strict):
    """Why a request was refused: what, the rule, what to do."""

    detail: str
