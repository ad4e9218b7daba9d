"""One check after another: read the window, judge it, decide, act, and leave evidence of each step."""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from churn import events, expectations, labels
from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP, Violation
from churn.errors import ChurnError
from churn.features import FEATURES
from churn.files import rounded
from churn.model_store import connect
from churn.settings import Monitoring
from monitoring import metrics, policy
from monitoring.drift import IMPORTANT, SCORE, Drift, Report, measure
from monitoring.performance import MAX_AUC_LOSS, Performance, judge, promised_auc
from monitoring.policy import Decision, Kind, Labels, Retraining, Rules, Seen, Signal, Verdict
from monitoring.records import open_records
from monitoring.reports import Reports
from monitoring.trigger import open_trigger
from monitoring.versions import Versions, Watched

log = logging.getLogger(__name__)

STAMP = "%Y%m%dT%H%M%SZ"
CHECKS_LOOKED_AT = 12
"""Windows that are looked at for signals: more than enough to enter and to leave, with gaps."""
SHOWN_VIOLATIONS = 3


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


class Watcher:
    """Watches the production version. `check` is one round; `run` goes on until `stop` is set."""

    def __init__(self, settings: Monitoring) -> None:
        self._settings = settings
        self._versions = Versions(connect(settings.tracking_uri, timeout_s=settings.tracking_timeout_s))
        self._log = events.open_sink(settings.events)
        self._checks = open_records(f"{settings.monitor.rstrip('/')}/checks")
        self._retrainings = open_records(f"{settings.monitor.rstrip('/')}/retrainings")
        self._reports = Reports(settings.reports, settings.kept_reports)
        self._trigger = open_trigger(settings)
        self._horizon = labels.horizon(settings)
        self._rules = Rules(
            cooldown=timedelta(seconds=settings.cooldown_s),
            budget=settings.budget,
            budget_time=timedelta(seconds=settings.budget_s),
            max_rejected=settings.max_rejected,
            min_rows=settings.min_rows,
            min_positives=settings.min_positives,
        )

    def run(self, stop: Any) -> None:
        """Check at every multiple of the interval until `stop`, a `threading.Event`, is set. A failed check is not the end."""
        metrics.INTERVAL.set(self._settings.interval_s)
        while not stop.is_set():
            began = time.time()
            try:
                with metrics.CHECK_DURATION.time():
                    self.check(datetime.fromtimestamp(began, UTC))
            except ChurnError as error:
                metrics.CHECKS.labels("failed").inc()
                log.error("check failed: %s", error)  # noqa: TRY400 - one line says it
            stop.wait(self._settings.interval_s - time.time() % self._settings.interval_s)

    def check(self, now: datetime) -> Decision | None:
        """One round at the last multiple of the interval; None where there is no production version.

        A round that another watcher did, or that this one did not finish, is taken up where it was left: what was decided stays.
        What could not be started is told at the end: it does not keep the watcher from watching.

        Raises:
            ChurnError: the log, the registry or the records are out of reach, or a retraining could not be started.
        """
        end = datetime.fromtimestamp(now.timestamp() // self._settings.interval_s * self._settings.interval_s, UTC)
        self._note_what_has_ended(now)
        version = self._versions.production()
        if not version:
            log.warning("there is no production version to watch")
            metrics.LAST_CHECK.set(now.timestamp())
            return None
        name = f"{end:{STAMP}}-v{version.number}"
        record = self._checks.get(name)
        if record is None:
            made = self._judge(version, end, name)
            record = made if self._checks.add(name, made) else self._checks.get(name) or made
        decision = Decision(Kind(record["decision"]), record["reason"])
        try:
            self._start_what_was_decided(now)
        finally:
            self._tell(version, record, now)
        return decision

    def reset(self, now: datetime) -> None:
        """Close the circuit: what was rejected or failed until now no longer counts."""
        self._retrainings.add(f"{now:{STAMP}}-3-reset", {"kind": "reset", "at": now.isoformat()})

    def _judge(self, version: Watched, end: datetime, name: str) -> dict[str, Any]:
        """The whole record of a round: what was seen, what is decided, and on what evidence."""
        settings = self._settings
        past = self._past(version, end)
        lengths: dict[Signal, float] = {"short": settings.window_s, "long": settings.long_window_s}
        samples = {which: self._sampled(version, end - timedelta(seconds=seconds), end) for which, seconds in lengths.items()}
        windows = [self._window(version, which, samples[which], end, lengths[which], name) for which in lengths]
        performance, matured = self._performance(version, end)
        estimate = self._promised(samples["short"])
        verdicts: dict[Signal, Verdict] = {each.name: each.verdict for each in windows}
        reasons: dict[Signal, str] = {each.name: each.reason for each in windows}
        verdicts["performance"] = performance.verdict() if performance else Verdict.INSUFFICIENT
        reasons["performance"] = performance.reason if performance else "too few final labels"
        if not performance and estimate and estimate < version.promised_auc - MAX_AUC_LOSS:
            verdicts["performance"] = Verdict.WARN
            reasons["performance"] = f"probabilities promise ROC-AUC {estimate:.3f}, the reference's {version.promised_auc:.3f}"
        on = policy.signals_on(verdicts, end, past)
        seen = Seen(end, version.number, verdicts, reasons, on)
        # What came on at the end of a window began in it.
        learnable = self._labels_since(min(on.values()) - timedelta(seconds=settings.window_s), end) if on else Labels(0, 0)
        decision = policy.decide(seen, self._history(end), learnable, self._rules)
        record = {
            "name": name,
            "at": end.isoformat(),
            "version": version.number,
            "decision": decision.kind,
            "reason": decision.reason,
            "retraining": f"retrain-v{version.number}-{end:%Y%m%dt%H%M%Sz}" if decision.kind is Kind.RETRAIN else None,
            "verdicts": dict(verdicts),
            "reasons": dict(reasons),
            "on_since": {signal: since.isoformat() for signal, since in on.items()},
            "windows": [_window_record(each) for each in windows],
            "matured": asdict(matured),
            "performance": asdict(performance) if performance else None,
            "promised_auc": {"window": estimate, "reference": version.promised_auc},
            "labels_since": asdict(learnable),
            "newest_prediction": samples["long"].newest and samples["long"].newest.isoformat(),
        }
        return dict(rounded(record))

    def _sampled(self, version: Watched, since: datetime, until: datetime) -> events.Sample:
        columns = ["prediction_id", "time", ENTITY, SCORE, *(each.name for each in FEATURES)]
        rows, seed = self._settings.max_rows, int(until.timestamp())
        return self._log.sample(since=since, until=until, version=version.number, columns=columns, rows=rows, seed=seed)

    def _window(self, version: Watched, which: Signal, sample: events.Sample, end: datetime, seconds: float, name: str) -> Window:
        settings = self._settings
        start, total = end - timedelta(seconds=seconds), sample.total
        if total < settings.min_warn_rows:
            reason = f"{total} rows, {settings.min_warn_rows} are needed"
            return Window(which, start, end, total, Verdict.INSUFFICIENT, reason)
        if violations := _violations(sample.rows):
            shown = "; ".join(map(str, violations[:SHOWN_VIOLATIONS]))
            return Window(which, start, end, total, Verdict.INCIDENT, f"of {len(sample.rows)} rows, {shown}", violations)
        about = {"version": version.number, "window": which, "end": end.isoformat()}
        drift = measure(
            sample.rows.to_pandas(),
            version.reference,
            important=version.importance[:IMPORTANT],
            threshold=version.threshold,
            report=Report(self._reports.add, f"{name}-{which}", about),
        )
        verdict = drift.verdict(min_rows=settings.min_rows)
        return Window(which, start, end, total, verdict, "; ".join(drift.reasons or drift.warnings), (), drift)

    def _performance(self, version: Watched, end: datetime) -> tuple[Performance | None, Labels]:
        """The version's performance on final labels, and how many there are; None if there are too few."""
        settings = self._settings
        until = end - self._horizon
        since = until - timedelta(seconds=settings.performance_window_s)
        matured = self._matured(self._sampled(version, since, until).rows.to_pandas(), since, end)
        final = labels.once_per_horizon(matured, self._horizon)
        y = final[LABEL].to_numpy(dtype=bool)
        counted = Labels(len(y), int(y.sum()))
        if not settings.min_positives <= y.sum() < len(y):
            return None, counted
        p = final[SCORE].to_numpy()
        return judge(y, p, threshold=version.threshold, costs=version.costs, test=version.test), counted

    def _promised(self, sample: events.Sample) -> float | None:
        """The ROC-AUC that the window's probabilities promise."""
        return promised_auc(sample.rows[SCORE].to_numpy()) if sample.total >= self._settings.min_rows else None

    def _labels_since(self, since: datetime, end: datetime) -> Labels:
        """How many customers of predictions since then have a final label, and how many of them left."""
        columns = list(labels.PREDICTION_COLUMNS)
        predictions = self._log.read("predictions", since=since, until=end - self._horizon, columns=columns).to_pandas()
        named = predictions[predictions[ENTITY].notna()]
        final = labels.once_per_horizon(self._matured(named, since, end), self._horizon)
        return Labels(len(final), int(final[LABEL].sum()))

    def _matured(self, predictions: pd.DataFrame, since: datetime, end: datetime) -> pd.DataFrame:
        reports = self._log.read("outcomes", since=since, columns=labels.OUTCOME_COLUMNS).to_pandas()
        return labels.matured(predictions, reports, now=end, horizon=self._horizon)

    def _past(self, version: Watched, end: datetime) -> list[Seen]:
        """The version's earlier checks, oldest first."""
        since = end - timedelta(seconds=CHECKS_LOOKED_AT * self._settings.interval_s)
        found = [each for each in self._checks.since(f"{since:{STAMP}}") if each["version"] == version.number]
        return [_seen(each) for each in found if datetime.fromisoformat(each["at"]) < end]

    def _history(self, now: datetime) -> list[Retraining]:
        """Every retraining, oldest first: those that were started, and those that were decided and not started yet."""
        decided = [Retraining(each["retraining"], datetime.fromisoformat(each["at"])) for each in self._unstarted(now)]
        return sorted([*self._started(), *decided], key=lambda each: each.started_at)

    def _started(self) -> list[Retraining]:
        """Every retraining that was started, oldest first; what had ended when a person closed the circuit is forgiven."""
        found: dict[str, Retraining] = {}
        # Not in the order of names, by which an end follows its start: a reset may lie between.
        for each in sorted(self._retrainings.since(""), key=lambda each: datetime.fromisoformat(each["at"])):
            match each["kind"]:
                case "reset":
                    found = {name: replace(old, is_forgiven=old.result is not None) for name, old in found.items()}
                case "started":
                    found[each["name"]] = Retraining(each["name"], datetime.fromisoformat(each["at"]))
                case "ended":
                    found[each["name"]] = replace(found[each["name"]], result=each["result"])
        return list(found.values())

    def _unstarted(self, now: datetime) -> list[dict[str, Any]]:
        """The checks that decided to retrain, where nothing was started yet: a watcher died in between, or the trigger failed."""
        since = now - timedelta(seconds=CHECKS_LOOKED_AT * self._settings.interval_s)
        decided = [each for each in self._checks.since(f"{since:{STAMP}}") if each["retraining"]]
        return [each for each in decided if not self._retrainings.get(_key(each["at"], "1-started"))]

    def _start_what_was_decided(self, now: datetime) -> None:
        """Start it, then note it: a watcher that dies in between starts it again, by the same name."""
        for record in self._unstarted(now):
            evidence = {key: record[key] for key in ("version", "reason", "at", "verdicts", "reasons")}
            self._trigger.start(record["retraining"], evidence)
            started = {key: record[key] for key in ("at", "version", "reason")}
            self._retrainings.add(_key(record["at"], "1-started"), {"kind": "started", "name": record["retraining"], **started})
            log.info("%s started: %s", record["retraining"], record["reason"])

    def _note_what_has_ended(self, now: datetime) -> None:
        for each in self._started():
            if each.result is None and (ended := self._ended(each, now)):
                result, reason = ended
                told = {"kind": "ended", "name": each.name, "at": now.isoformat(), "result": result, "reason": reason}
                self._retrainings.add(_key(each.started_at.isoformat(), "2-ended"), told)
                log.info("%s %s: %s", each.name, result, reason)

    def _ended(self, each: Retraining, now: datetime) -> tuple[str, str] | None:
        """How a retraining ended, by the candidate that it made; None while it is under way."""
        # Asked before the registry, so that one that ended has noted there what it has to say.
        status = self._trigger.status(each.name)
        candidate = self._versions.released("candidate")
        if candidate and candidate.created_at > each.started_at and (decision := candidate.tags.get("decision")):
            told = f"version {candidate.number}: {decision}"
            if "promoted_at" in candidate.tags:
                return "promoted", told
            # One that passed the gate is promoted a moment later.
            if status == "succeeded" or candidate.tags.get("gate") != "passed":
                return "rejected", told
        if status == "failed":
            return "failed", "it ended with an error: read its log"
        if status == "succeeded":
            return "failed", "it ended without a new version"
        if now - each.started_at > timedelta(seconds=self._settings.retrain_timeout_s):
            return "failed", f"it did not end within {self._settings.retrain_timeout_s:g} s"
        return None

    def _tell(self, version: Watched, record: dict[str, Any], now: datetime) -> None:
        """Metrics, the version's tag, and one line."""
        metrics_of(version, record)
        history = self._history(now)
        metrics.COOLDOWN.set(policy.cooldown_left(now, history, self._rules).total_seconds())
        metrics.CIRCUIT_OPEN.set(policy.is_circuit_open(history, self._rules))
        metrics.RUNNING.set(sum(each.result is None for each in history))
        recent = [each for each in history if each.started_at > now - self._rules.budget_time]
        metrics.STARTED.set(len(recent))
        for result in metrics.RESULTS:
            metrics.ENDED.labels(result).set(sum(each.result == result for each in recent))
        newest = record["newest_prediction"]
        metrics.DATA_AGE.set((now - datetime.fromisoformat(newest)).total_seconds() if newest else float("nan"))
        metrics.CHECKS.labels("done").inc()
        metrics.LAST_CHECK.set(now.timestamp())
        told = {key: record[key] for key in ("at", "decision", "reason", "retraining")}
        self._versions.tag(version.number, "monitor", json.dumps(told))
        log.info("version %s: %s: %s", version.number, record["decision"], record["reason"])


def _key(at: str, kind: str) -> str:
    """The name of a record of the retraining that was decided then."""
    return f"{datetime.fromisoformat(at):{STAMP}}-{kind}"


def metrics_of(version: Watched, record: dict[str, Any]) -> None:
    """Set what a check's record says."""
    metrics.VERSION.clear()
    metrics.VERSION.labels(version.number).set(1)
    for each in metrics.DECISIONS:
        metrics.DECISION.labels(each).set(each == record["decision"])
    for gauge in OF_THE_VERSION:
        gauge.clear()
    for window in record["windows"]:
        which, drift = window["name"], window["drift"]
        metrics.WINDOW_ROWS.labels(which).set(window["rows"])
        metrics.WINDOW_VIOLATIONS.labels(which).set(len(window["violations"]))
        for state in metrics.STATES:
            metrics.WINDOW_STATE.labels(which, state).set(state == STATE_OF[Verdict(window["verdict"])])
        for each in drift["features"] if drift else ():
            metrics.FEATURE_PSI.labels(which, each["name"]).set(each["value"])
            metrics.FEATURE_BOUND.labels(which, each["name"]).set(each["bound"])
        if drift:
            metrics.DRIFTED.labels(which).set(len(drift["drifted"]))
            metrics.SCORE_PSI.labels(which).set(drift["score"]["value"])
            metrics.POSITIVE_RATE.labels(which).set(drift["positive_rate"])
            metrics.POSITIVE_RATE_REFERENCE.set(drift["reference_rate"])
    for score, value in version.test.items():
        if score in TESTED:
            metrics.PERFORMANCE_TEST.labels(score).set(value)
    metrics.MATURED_ROWS.set(record["matured"]["rows"])
    metrics.MATURED_POSITIVES.set(record["matured"]["positives"])
    if performance := record["performance"]:
        for score, found in performance["scores"].items():
            for bound in ("value", "low", "high"):
                metrics.PERFORMANCE.labels(score, bound).set(found[bound])
    if (estimate := record["promised_auc"]["window"]) is not None:
        metrics.PERFORMANCE_ESTIMATED.labels("roc_auc").set(estimate)


OF_THE_VERSION = (
    metrics.FEATURE_PSI,
    metrics.FEATURE_BOUND,
    metrics.DRIFTED,
    metrics.SCORE_PSI,
    metrics.POSITIVE_RATE,
    metrics.PERFORMANCE,
    metrics.PERFORMANCE_TEST,
    metrics.PERFORMANCE_ESTIMATED,
)
"""What an earlier version, or an earlier window, leaves behind where this one has nothing to say."""
TESTED = ("roc_auc", "log_loss", "ece", "brier", "profit_per_customer")
STATE_OF = {
    Verdict.CLEAN: "none",
    Verdict.BETWEEN: "none",
    Verdict.WARN: "warn",
    Verdict.BAD: "drift",
    Verdict.INCIDENT: "data incident",
    Verdict.INSUFFICIENT: "insufficient data",
}


def _window_record(window: Window) -> dict[str, Any]:
    drift = window.drift and {**asdict(window.drift), "drifted": window.drift.drifted, "reasons": window.drift.reasons}
    times = {"start": window.start.isoformat(), "end": window.end.isoformat()}
    said = {"verdict": window.verdict, "reason": window.reason, "violations": [str(each) for each in window.violations]}
    return {"name": window.name, "rows": window.rows, **times, **said, "drift": drift}


def _seen(record: dict[str, Any]) -> Seen:
    return Seen(
        at=datetime.fromisoformat(record["at"]),
        version=record["version"],
        verdicts={signal: Verdict(each) for signal, each in record["verdicts"].items()},
        reasons=record["reasons"],
        on_since={signal: datetime.fromisoformat(since) for signal, since in record["on_since"].items()},
    )


def _violations(table: pa.Table) -> tuple[Violation, ...]:
    """What the window's rows break of the contract; a prediction is a row of its own, whoever the customer is."""
    rows = (
        table.select([each.name for each in RAW_FEATURES])
        .append_column(ENTITY, table["prediction_id"])
        .append_column(TIMESTAMP, table["time"])
    )
    return expectations.check(rows).violations
