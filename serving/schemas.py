"""What requests and answers look like, from the contract."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, create_model, model_validator

from churn.contract import BY_NAME, ENTITY, LABEL, RAW_FEATURES, Category, Column, Flag, Integer, Real
from serving.examples import EXAMPLE

MAX_ID = 128
"""Characters of an identifier."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
"""What an integer column holds where the contract sets no bound."""

Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Risk = Literal["low", "medium", "high"]


class Strict(BaseModel):
    """No unknown keys, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _type(column: Column) -> Any:
    bounds: dict[str, Any] = {}
    match column.kind:
        case Category(values):
            kind: Any = Literal[values]
        case Flag():
            kind = bool
        case Integer(ge, le):
            kind, bounds = int, {"ge": MIN_INTEGER if ge is None else ge, "le": MAX_INTEGER if le is None else le}
        case Real(ge, le):
            kind, bounds = float, {"ge": ge, "le": le}
        case _:
            kind = str
    return Annotated[kind, Field(**bounds)] if bounds else kind


def _field(column: Column) -> Any:
    kind = _type(column)
    given: Any = ... if column.null_as is None else None
    return kind if given is ... else kind | None, Field(given, description=column.description, examples=[EXAMPLE[column.name]])


_FIELDS: dict[str, Any] = {
    ENTITY: (Identifier | None, Field(None, description=BY_NAME[ENTITY].description, examples=[EXAMPLE[ENTITY]])),
    **{each.name: _field(each) for each in RAW_FEATURES},
}

Customer = create_model("Customer", __base__=Strict, __doc__="A customer's attributes: the contract's raw columns.", **_FIELDS)


CUSTOMERS = TypeAdapter(Annotated[list[Customer], Field(fail_fast=True)])
"""Rows that another protocol brought."""


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
    observed_at: Annotated[AwareDatetime, Field(strict=False, description="With its zone", examples=["2026-02-01T00:00:00Z"])]

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
