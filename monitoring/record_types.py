"""What the watcher's records hold, as they are checked when they are read."""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, model_validator

from churn.adapters.moments import CLOCK_SKEW, Moment
from churn.domain.reasons import validation_message
from monitoring.policy import Kind, Signal, Verdict

FORMAT = 1
"""The number of the format that is written; records without one are of the first."""
STAMP = "%Y%m%dT%H%M%SZ"
"""The time in a name."""

Figure = Annotated[float, Field(allow_inf_nan=False, strict=False)]
Count = Annotated[int, Field(ge=0)]
Retraining = Annotated[str, Field(pattern=r"^retrain-v[^-]+-\d{8}t\d{6}z$")]


class Record(BaseModel):
    """A record; `name` is that of its file, `at` the time that it is about (UTC)."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Literal[1] = 1
    at: Moment

    @model_validator(mode="after")
    def _is_not_of_the_future(self, info: ValidationInfo) -> "Record":
        name, now = _context(info)
        if self.at > now + CLOCK_SKEW:
            raise ValueError(f"it is of {self.at:%Y-%m-%dT%H:%M:%SZ}, and it is {now:%Y-%m-%dT%H:%M:%SZ}: some clock was wrong")
        if not name.startswith(f"{self.stamped:{STAMP}}-"):
            raise ValueError(f"it is of {self.stamped:%Y-%m-%dT%H:%M:%SZ}, and its name is of another time")
        return self

    @property
    def stamped(self) -> datetime:
        """The time in its name."""
        return self.at


class Psi(BaseModel):
    """One column's drift."""

    name: str
    value: Figure | None
    bound: Figure | None


class DriftFound(BaseModel):
    """What a window showed against the reference."""

    features: list[Psi]
    drifted: list[str]
    score: Psi
    positive_rate: Figure | None
    reference_rate: Figure | None


class WindowSeen(BaseModel):
    """One window."""

    name: Signal
    rows: Count
    start: Moment
    end: Moment
    verdict: Verdict
    reason: str
    violations: list[str]
    drift: DriftFound | None


class Interval(BaseModel):
    """A score and the bounds of its 95 % interval."""

    value: Figure | None
    low: Figure | None
    high: Figure | None


class PerformanceSeen(BaseModel):
    """Scores on final labels."""

    scores: dict[str, Interval]


class LabelCount(BaseModel):
    """Final labels."""

    rows: Count
    positives: Count


class PromisedAuc(BaseModel):
    """The ROC-AUC that the probabilities promise."""

    window: Figure | None
    reference: Figure | None


class CheckRecord(Record):
    """One check: what was seen, and what was decided."""

    name: str
    version: str
    decision: Kind
    reason: str
    retraining: Retraining | None
    verdicts: dict[Signal, Verdict]
    reasons: dict[Signal, str]
    on_since: dict[Signal, Moment]
    evidence: dict[Signal, str] = {}
    """Of each signal that is on: what the window showed that switched it on."""
    windows: list[WindowSeen]
    matured: LabelCount
    performance: PerformanceSeen | None
    promised_auc: PromisedAuc
    labels_since: LabelCount
    newest_prediction: Moment | None
    damaged_parts: list[str] = []
    refused_outcomes: Count = 0

    @model_validator(mode="after")
    def _has_its_name(self, info: ValidationInfo) -> "CheckRecord":
        if self.name != _context(info)[0]:
            raise ValueError(f"it says that its name is {self.name!r}")
        return self


class StartedRecord(Record):
    """A retraining was started, as the check of `at` had decided."""

    kind: Literal["started"]
    name: Retraining
    version: str
    reason: str


class EndedRecord(Record):
    """A retraining had ended at `at`."""

    kind: Literal["ended"]
    name: Retraining
    result: Literal["promoted", "rejected", "failed"]
    reason: str

    @property
    def stamped(self) -> datetime:
        """When the retraining was decided: its name says it."""
        return datetime.strptime(f"{self.name[-16:].upper()}+0000", f"{STAMP}%z")


class ResetRecord(Record):
    """A person had looked at the retrainings so far."""

    kind: Literal["reset"]


RetrainingRecord: TypeAlias = Annotated[StartedRecord | EndedRecord | ResetRecord, Field(discriminator="kind")]

CHECKS: TypeAdapter[CheckRecord] = TypeAdapter(CheckRecord)
RETRAININGS: TypeAdapter[StartedRecord | EndedRecord | ResetRecord] = TypeAdapter(RetrainingRecord)


def _context(info: ValidationInfo) -> tuple[str, datetime]:
    """The name of the record's file, and what time it is."""
    if info.context is None:
        raise ValueError("a record is validated with its name and the time of day")
    return info.context["name"], info.context["now"]


def problem(error: ValidationError) -> str:
    """The first thing that is wrong with a record, in one line."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    message = validation_message(first)
    return f"{place}: {message}" if place else message
