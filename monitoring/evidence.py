"""What a check looks at: windows against the reference, final labels against the test figures, labels to learn from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churn.adapters import expectations
from churn.adapters.events import labels
from churn.adapters.events import log as events
from churn.adapters.events.labels import Refused
from churn.adapters.events.parts import Damaged
from churn.adapters.events.reader import DamageLog
from churn.adapters.events.sampling import Sample
from churn.adapters.rows import dated
from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP, Violation
from churn.features import FEATURES
from churn.settings import Monitoring
from monitoring.customers import SomeCustomers
from monitoring.drift import IMPORTANT, SCORE, Drift, Report, measure
from monitoring.performance import Performance, measured
from monitoring.performance import promised_auc as promised
from monitoring.policy import Labels, Signal, Verdict
from monitoring.reports import Reports
from monitoring.versions import Watched

SHOWN_VIOLATIONS = 3
SCORED = (*labels.PREDICTION_COLUMNS, SCORE)
"""What is read of a prediction to evaluate it."""
MAX_ROWS = 200_000
"""Predictions that are held to count final labels: some 50 MB."""


@dataclass(frozen=True)
class Window:
    """What one window showed. `drift` is None where there are too few rows, or where they break the contract."""

    name: Signal
    start: datetime
    end: datetime
    rows: int
    verdict: Verdict
    reason: str
    violations: tuple[Violation, ...] = ()
    drift: Drift | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON has it."""
        drift = self.drift and {**asdict(self.drift), "drifted": self.drift.drifted, "reasons": self.drift.reasons}
        times = {"start": self.start.isoformat(), "end": self.end.isoformat()}
        said = {"verdict": self.verdict, "reason": self.reason, "violations": [str(each) for each in self.violations]}
        return {"name": self.name, "rows": self.rows, **times, **said, "drift": drift}


class Evidence:
    """Reads the log and measures what is in it."""

    def __init__(self, settings: Monitoring) -> None:
        self._settings = settings
        self._damaged: dict[str, str] = {}
        self._log_damaged = DamageLog()
        self._refused: set[str] = set()
        self._logged: set[str] = set()
        self._log = events.open_sink(settings.events, on_damaged=self._note_damaged)
        self._horizon = labels.horizon(settings)
        self._reports = Reports(settings.reports, settings.kept_reports)

    def begin(self) -> None:
        """Forget what the last check found damaged and refused."""
        # What the last check logged is all that this one may repeat: the set does not grow with the log.
        self._damaged, self._logged, self._refused = {}, self._refused, set()

    @property
    def damaged_parts(self) -> list[str]:
        """The parts of the log that were skipped since `begin`."""
        return sorted(self._damaged)

    @property
    def refused_outcomes(self) -> int:
        """How many outcomes were not used since `begin`, for their times cannot be true."""
        return len(self._refused)

    def _note_damaged(self, damaged: Damaged) -> None:
        self._damaged[damaged.place] = damaged.reason
        self._log_damaged(damaged)

    def _note_refused(self, refused: Refused) -> None:
        ids = set(refused.ids)
        self._refused |= ids
        # Once, not at every check.
        if ids - self._logged:
            labels.log_refused(refused)
        self._logged |= ids

    def sampled(self, version: Watched, since: datetime, until: datetime) -> Sample:
        """Predictions of the version in that time, with their features."""
        return self._sampled(version, since, until, [*SCORED, *(each.name for each in FEATURES)])

    def _sampled(self, version: Watched, since: datetime, until: datetime, columns: Sequence[str]) -> Sample:
        rows, seed = self._settings.sample_rows, int(until.timestamp())
        return self._log.sample(since=since, until=until, version=version.number, columns=columns, rows=rows, seed=seed)

    def window(self, version: Watched, which: Signal, sample: Sample, end: datetime, seconds: float, name: str) -> Window:
        """What a window of that length shows, with its report under that name."""
        settings = self._settings
        start, total = end - timedelta(seconds=seconds), sample.total
        if total < settings.min_warn_rows:
            reason = f"{total} rows, {settings.min_warn_rows} are needed"
            return Window(which, start, end, total, Verdict.INSUFFICIENT, reason)
        if violations := _violations(sample.rows):
            shown = "; ".join(map(str, violations[:SHOWN_VIOLATIONS]))
            return Window(
                which, start, end, total, Verdict.INCIDENT, f"of {len(sample.rows)} rows that were checked: {shown}", violations
            )
        about = {"version": version.number, "window": which, "end": end.isoformat()}
        drift = measure(
            sample.rows.to_pandas(),
            version.reference,
            inputs=version.inputs,
            important=version.importance[:IMPORTANT],
            threshold=version.threshold,
            report=Report(self._reports.add, f"{name}-{which}", about),
        )
        verdict = drift.verdict(min_rows=settings.min_rows)
        return Window(which, start, end, total, verdict, "; ".join(drift.reasons or drift.warnings), (), drift)

    def performance(self, version: Watched, end: datetime) -> tuple[Performance | None, Labels]:
        """The version's performance on final labels, and how many there are; None if there are too few."""
        settings = self._settings
        until = end - self._horizon
        since = until - timedelta(seconds=settings.performance_window_s)
        matured = self._matured(self._sampled(version, since, until, SCORED).rows.to_pandas(), since, end)
        final = labels.once_per_horizon(matured, self._horizon)
        y = final[LABEL].to_numpy(dtype=bool)
        counted = Labels(len(y), int(y.sum()))
        if not settings.min_positives <= y.sum() < len(y):
            return None, counted
        p = final[SCORE].to_numpy()
        return measured(y, p, threshold=version.threshold, costs=version.costs, test=version.test), counted

    def promised_auc(self, sample: Sample) -> float | None:
        """The ROC-AUC that the window's probabilities promise."""
        return promised(sample.rows[SCORE].to_numpy()) if sample.total >= self._settings.min_rows else None

    def labels_since(self, since: datetime, end: datetime) -> Labels:
        """How many customers of predictions since then have a final label, and how many of them churned.

        Of very many predictions, those of some customers are counted, and the numbers scaled: memory does not grow with the log.
        """
        columns, until = list(labels.PREDICTION_COLUMNS), end - self._horizon
        schema = pa.schema([events.prediction_schema().field(name) for name in columns])
        some = SomeCustomers(schema, ENTITY, MAX_ROWS)
        for table in self._log.stream("predictions", since=since, until=until, columns=columns):
            some.add(table)
        final = labels.once_per_horizon(self._matured(some.table().to_pandas(), since, end), self._horizon)
        return Labels(round(len(final) / some.share), round(int(final[LABEL].sum()) / some.share))

    def _matured(self, predictions: pd.DataFrame, since: datetime, end: datetime) -> pd.DataFrame:
        names, customers = (pa.array(predictions[name].dropna().unique(), pa.string()) for name in ("prediction_id", ENTITY))

        def about_them(outcomes: pa.Table) -> pa.ChunkedArray:
            return pc.or_(pc.is_in(outcomes["prediction_id"], names), pc.is_in(outcomes[ENTITY], customers))

        reports = self._log.read("outcomes", since=since, columns=labels.OUTCOME_COLUMNS, where=about_them).to_pandas()
        return labels.matured(predictions, reports, now=end, horizon=self._horizon, on_refused=self._note_refused)


def _violations(table: pa.Table) -> tuple[Violation, ...]:
    """What the window's rows break of the contract; each prediction is a row, even of the same customer."""
    rows = (
        table.select([each.name for each in RAW_FEATURES])
        .append_column(ENTITY, table["prediction_id"])
        .append_column(TIMESTAMP, table["time"])
    )
    return expectations.check(dated(rows)).violations
