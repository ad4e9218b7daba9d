"""One check after another: read the window, judge it, decide, act, and leave evidence of each step."""

import json
import logging
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from churn.errors import ChurnError
from churn.files import rounded
from churn.model_store import connect
from churn.settings import Monitoring
from monitoring import metrics, policy
from monitoring.evidence import Evidence
from monitoring.exposition import show_check, show_retrainings
from monitoring.performance import MAX_AUC_LOSS
from monitoring.policy import Decision, Kind, Labels, Rules, Seen, Signal, Verdict
from monitoring.records import STAMP, open_records
from monitoring.retrainings import Retrainings
from monitoring.set_aside import show_set_aside
from monitoring.versions import Versions, Watched

log = logging.getLogger(__name__)

CHECKS_LOOKED_AT = 12
"""Windows that are looked at for signals: more than enough to enter and to leave, with gaps."""
RETRY_S = 60.0
"""After a failed check: what it needed may only have been starting, and the next interval is far."""


class Watcher:
    """Watches the production version. `check` is one round; `run` goes on until `stop` is set."""

    def __init__(self, settings: Monitoring) -> None:
        self._settings = settings
        self._versions = Versions(connect(settings.tracking_uri, timeout_s=settings.tracking_timeout_s))
        self._checks = open_records(f"{settings.monitor.rstrip('/')}/checks")
        self._evidence = Evidence(settings)
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
            except ChurnError as error:
                log.error("check failed: %s", error)  # noqa: TRY400 - one line says it
                if failed != (failed := began // interval_s):
                    metrics.CHECKS.labels("failed").inc()
                wait_s = RETRY_S
            stop.wait(min(wait_s, interval_s - time.time() % interval_s))

    def check(self, now: datetime) -> Decision | None:
        """One round at the last multiple of the interval; None where there is no production version.

        A round that another watcher did, or that this one did not finish, is taken up where it was left: what was decided stays.
        What could not be started is told at the end: it does not keep the watcher from watching.

        Raises:
            ChurnError: the log, the registry or the records are out of reach, or a retraining could not be started.
        """
        end = datetime.fromtimestamp(now.timestamp() // self._settings.interval_s * self._settings.interval_s, UTC)
        show_set_aside(self._settings.events)
        self._retrainings.note_what_has_ended(now)
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
            self._retrainings.start_what_was_decided(now)
        finally:
            self._tell(version, record, now)
        return decision

    def reset(self, now: datetime) -> None:
        """Close the circuit: what was rejected or failed until now no longer counts."""
        self._retrainings.reset(now)

    def _judge(self, version: Watched, end: datetime, name: str) -> dict[str, Any]:
        """The whole record of a round: what was seen, what is decided, and on what evidence."""
        settings = self._settings
        past = self._past(version, end)
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
        seen = Seen(end, version.number, verdicts, reasons, on)
        # What came on at the end of a window began in it.
        learnable = (
            self._evidence.labels_since(min(on.values()) - timedelta(seconds=settings.window_s), end) if on else Labels(0, 0)
        )
        decision = policy.decide(seen, self._retrainings.history(end), learnable, self._rules)
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
            "windows": [each.as_record() for each in windows],
            "matured": asdict(matured),
            "performance": asdict(performance) if performance else None,
            "promised_auc": {"window": estimate, "reference": version.promised_auc},
            "labels_since": asdict(learnable),
            "newest_prediction": samples["long"].newest and samples["long"].newest.isoformat(),
        }
        return dict(rounded(record))

    def _past(self, version: Watched, end: datetime) -> list[Seen]:
        """The version's earlier checks, oldest first."""
        since = end - timedelta(seconds=CHECKS_LOOKED_AT * self._settings.interval_s)
        found = [each for each in self._checks.since(f"{since:{STAMP}}") if each["version"] == version.number]
        return [_seen(each) for each in found if datetime.fromisoformat(each["at"]) < end]

    def _tell(self, version: Watched, record: dict[str, Any], now: datetime) -> None:
        """Metrics, the version's tag, and one line."""
        show_check(version, record)
        show_retrainings(self._retrainings.history(now), self._rules, now)
        newest = record["newest_prediction"]
        metrics.DATA_AGE.set((now - datetime.fromisoformat(newest)).total_seconds() if newest else float("nan"))
        metrics.CHECKS.labels("done").inc()
        metrics.LAST_CHECK.set(now.timestamp())
        told = {key: record[key] for key in ("at", "decision", "reason", "retraining")}
        self._versions.tag(version.number, "monitor", json.dumps(told))
        log.info("version %s: %s: %s", version.number, record["decision"], record["reason"])


def _seen(record: dict[str, Any]) -> Seen:
    return Seen(
        at=datetime.fromisoformat(record["at"]),
        version=record["version"],
        verdicts={signal: Verdict(each) for signal, each in record["verdicts"].items()},
        reasons=record["reasons"],
        on_since={signal: datetime.fromisoformat(since) for signal, since in record["on_since"].items()},
    )
