"""One check after another: read the window, measure it, decide, act, and leave evidence of each step."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from churn.adapters.events.compaction import compact
from churn.adapters.events.log import open_sink
from churn.adapters.files import rounded
from churn.adapters.mlflow.model_store import connect
from churn.adapters.moments import CLOCK_SKEW
from churn.errors import ChurnError, MonitorError
from churn.settings import Monitoring
from monitoring import metrics, policy
from monitoring.evidence import Evidence
from monitoring.exposition import show_check, show_retrainings
from monitoring.performance import MAX_AUC_LOSS
from monitoring.policy import Decision, Kind, Labels, Rules, Seen, Signal, Verdict
from monitoring.record_types import CHECKS, FORMAT, STAMP, CheckRecord
from monitoring.records import open_records
from monitoring.retrainings import Retrainings
from monitoring.set_aside import show_set_aside
from monitoring.versions import Versions, Watched

log = logging.getLogger(__name__)

CHECKS_LOOKED_AT = 12
"""Windows that are looked at for signals: more than enough to enter and to leave, with gaps."""
RETRY_S = 60.0
"""After a failed check: what it needed may only have been starting, and the next interval is far."""


@dataclass(frozen=True)
class Until:
    """Says whether `stop`, a `threading.Event`, is set, or it is later than `end_s` (Unix time)."""

    stop: Any
    end_s: float

    def __call__(self) -> bool:
        """Whether it is time to stop."""
        return bool(self.stop.is_set() or time.time() > self.end_s)


class Watcher:
    """Watches the production version. `check` is one round; `run` goes on until `stop` is set."""

    def __init__(self, settings: Monitoring) -> None:
        self._settings = settings
        self._versions = Versions(connect(settings.tracking_uri, timeout_s=settings.tracking_timeout_s))
        self._checks = open_records(f"{settings.monitor.rstrip('/')}/checks", CHECKS)
        self._evidence = Evidence(settings)
        self._compacted: date | None = None
        self._retrainings = Retrainings(settings, self._checks, self._versions)
        self._rules = Rules(
            cooldown=timedelta(seconds=settings.cooldown_s),
            budget=settings.budget,
            budget_time=timedelta(seconds=settings.budget_s),
            max_rejected=settings.max_rejected,
            min_rows=settings.min_rows,
            min_positives=settings.min_positives,
        )

    def run(self, stop: Any) -> None:
        """Check at every multiple of the interval until `stop`, a `threading.Event`, is set.

        A failed check is not the end: it is tried again every `RETRY_S` seconds, and counts as one.
        """
        interval_s = self._settings.interval_s
        metrics.INTERVAL.set(interval_s)
        failed = None
        while not stop.is_set():
            began = time.time()
            wait_s = interval_s
            try:
                with metrics.CHECK_DURATION.time():
                    self.check(datetime.fromtimestamp(began, UTC))
                # Until half of the interval is over: the next check must not wait.
                self.compact(datetime.fromtimestamp(began, UTC), Until(stop, began + interval_s / 2))
            except ChurnError as error:
                log.error("check failed: %s", error)  # noqa: TRY400 - one line says it
                if failed != (failed := began // interval_s):
                    metrics.CHECKS.labels("failed").inc()
                wait_s = RETRY_S
            stop.wait(min(wait_s, interval_s - time.time() % interval_s))

    def check(self, now: datetime) -> Decision | None:
        """One round at the last multiple of the interval; None where there is no production version.

        A round that another watcher did, or that this one did not finish, is taken up where it was left: what was decided stays.
        A retraining that could not be started is reported at the end of the check; checks go on.

        Raises:
            ChurnError: the log, the registry or the records are out of reach, or a retraining could not be started.
        """
        end = datetime.fromtimestamp(now.timestamp() // self._settings.interval_s * self._settings.interval_s, UTC)
        show_set_aside(self._settings.events)
        version = self._versions.production()
        _check_clock(version, now)
        self._retrainings.note_what_has_ended(now)
        if not version:
            log.warning("there is no production version to watch")
            metrics.LAST_CHECK.set(now.timestamp())
            return None
        name = f"{end:{STAMP}}-v{version.number}"
        record = self._checks.get(name, now)
        if record is None:
            made = self._judge(version, end, name, now)
            self._checks.add(name, made)
            # That of another watcher, if it was faster.
            record = self._checks.get(name, now)
            if record is None:
                raise MonitorError(f"check {name}: the record that was written cannot be read; see the line before")
        decision = Decision(record.decision, record.reason)
        try:
            self._retrainings.start_what_was_decided(now)
        finally:
            self._tell(version, record, now)
        return decision

    def compact(self, now: datetime, is_stopped: Callable[[], bool]) -> None:
        """Merge the log's parts of days that are over, once a day.

        What is left when `is_stopped` says so waits for the next check. It is no
        part of a check: where it fails, the log stays as it is, only slower to read.
        """
        if not self._settings.compact or self._compacted == now.date():
            return
        try:
            after = timedelta(seconds=self._settings.compact_after_s)
            result = compact(open_sink(self._settings.events), now=now, after=after, is_stopped=is_stopped)
        except ChurnError as error:
            metrics.COMPACTIONS.labels("failed").inc()
            log.error("compaction failed: %s", error)  # noqa: TRY400 - one line says it
            return
        metrics.COMPACTIONS.labels("done").inc()
        if result.days or result.deleted:
            log.info("event log: %s", result)
        if result.is_complete:
            self._compacted = now.date()

    def reset(self, now: datetime) -> None:
        """Close the circuit: what was rejected or failed until now no longer counts. Damaged records are set aside."""
        self._checks.since("", now)
        self._retrainings.reset(now)

    def _judge(self, version: Watched, end: datetime, name: str, now: datetime) -> dict[str, Any]:
        """The whole record of a round: what was seen, what is decided, and on what evidence."""
        settings = self._settings
        past = self._past(version, end, now)
        self._evidence.begin()
        lengths: dict[Signal, float] = {"short": settings.window_s, "long": settings.long_window_s}
        samples = {
            which: self._evidence.sampled(version, end - timedelta(seconds=seconds), end) for which, seconds in lengths.items()
        }
        windows = [self._evidence.window(version, which, samples[which], end, lengths[which], name) for which in lengths]
        performance, matured = self._evidence.performance(version, end)
        estimate = self._evidence.promised_auc(samples["short"])
        verdicts: dict[Signal, Verdict] = {each.name: each.verdict for each in windows}
        reasons: dict[Signal, str] = {each.name: each.reason for each in windows}
        verdicts["performance"] = performance.verdict() if performance else Verdict.INSUFFICIENT
        reasons["performance"] = performance.reason if performance else "too few final labels"
        if not performance and estimate and estimate < version.promised_auc - MAX_AUC_LOSS:
            verdicts["performance"] = Verdict.WARN
            reasons["performance"] = f"probabilities promise ROC-AUC {estimate:.3f}, the reference's {version.promised_auc:.3f}"
        on = policy.signals_on(verdicts, end, past)
        evidence = policy.evidence_of(on, verdicts, reasons, past)
        seen = Seen(end, version.number, verdicts, reasons, on, evidence)
        # What came on at the end of a window began in it.
        learnable = (
            self._evidence.labels_since(min(on.values()) - timedelta(seconds=settings.window_s), end) if on else Labels(0, 0)
        )
        decision = policy.decide(seen, self._retrainings.history(now), learnable, self._rules)
        record = {
            "format": FORMAT,
            "name": name,
            "at": end.isoformat(),
            "version": version.number,
            "decision": decision.kind,
            "reason": decision.reason,
            "retraining": f"retrain-v{version.number}-{end:%Y%m%dt%H%M%Sz}" if decision.kind is Kind.RETRAIN else None,
            "verdicts": dict(verdicts),
            "reasons": dict(reasons),
            "on_since": {signal: since.isoformat() for signal, since in on.items()},
            "evidence": evidence,
            "windows": [each.as_record() for each in windows],
            "matured": asdict(matured),
            "performance": asdict(performance) if performance else None,
            "promised_auc": {"window": estimate, "reference": version.promised_auc},
            "labels_since": asdict(learnable),
            "newest_prediction": samples["long"].newest and samples["long"].newest.isoformat(),
            "damaged_parts": self._evidence.damaged_parts,
            "refused_outcomes": self._evidence.refused_outcomes,
        }
        return dict(rounded(record))

    def _past(self, version: Watched, end: datetime, now: datetime) -> list[Seen]:
        """The version's earlier checks, oldest first."""
        since = end - timedelta(seconds=CHECKS_LOOKED_AT * self._settings.interval_s)
        found = [each for each in self._checks.since(f"{since:{STAMP}}", now) if each.version == version.number]
        return [_seen(each) for each in found if each.at < end]

    def _tell(self, version: Watched, record: CheckRecord, now: datetime) -> None:
        """Metrics, the version's tag, and one line."""
        show_check(version, record)
        show_retrainings(self._retrainings.history(now), self._rules, now)
        newest = record.newest_prediction
        # Where a server's clock is ahead, its newest prediction is of the future.
        metrics.DATA_AGE.set(max((now - newest).total_seconds(), 0.0) if newest else float("nan"))
        metrics.RECORDS_SET_ASIDE.set(self._checks.set_aside() + self._retrainings.set_aside())
        metrics.CHECKS.labels("done").inc()
        metrics.LAST_CHECK.set(now.timestamp())
        summary = {
            "at": record.at.isoformat(),
            "decision": record.decision,
            "reason": record.reason,
            "retraining": record.retraining,
        }
        self._versions.tag(version.number, "monitor", json.dumps(summary))
        log.info("version %s: %s: %s", version.number, record.decision, record.reason)


def _check_clock(version: Watched | None, now: datetime) -> None:
    """Refuse to work by a clock that is behind: every record would be of the future, and be set aside."""
    if version and version.created_at > now + CLOCK_SKEW:
        raise MonitorError(
            f"clock: it is {now:%Y-%m-%dT%H:%M:%SZ} here, and version {version.number} was made at "
            f"{version.created_at:%Y-%m-%dT%H:%M:%SZ}; correct the clock of this machine, or of the one that trains"
        )


def _seen(record: CheckRecord) -> Seen:
    return Seen(record.at, record.version, record.verdicts, record.reasons, dict(record.on_since), record.evidence)
