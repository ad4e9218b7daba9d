"""The book of retrainings: what was decided, started, and how it ended. Records that are never changed, and a trigger."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from churn.settings import Monitoring
from monitoring.policy import Retraining
from monitoring.record_types import FORMAT, RETRAININGS, STAMP, CheckRecord, EndedRecord, ResetRecord, StartedRecord
from monitoring.records import Records, open_records
from monitoring.triggers.trigger import open_trigger
from monitoring.versions import Versions

log = logging.getLogger(__name__)

CHECKS_LOOKED_AT = 12
"""How many intervals back a check may lie whose retraining was not started yet."""


class Retrainings:
    """Starts what `checks` decided, once each, and knows of every one how it ended."""

    def __init__(self, settings: Monitoring, checks: Records[CheckRecord], versions: Versions) -> None:
        self._settings = settings
        self._checks = checks
        self._versions = versions
        self._records = open_records(f"{settings.monitor.rstrip('/')}/retrainings", RETRAININGS)
        self._trigger = open_trigger(settings)

    def history(self, now: datetime) -> list[Retraining]:
        """Every retraining, oldest first: those that were started, and those that were decided and not started yet."""
        decided = [Retraining(name, record.at) for name, record in self._unstarted(now)]
        return sorted([*self._started(now), *decided], key=lambda each: each.started_at)

    def _started(self, now: datetime) -> list[Retraining]:
        """Every retraining that was started, oldest first; `was_reset` is true of those that had ended before the last reset."""
        found: dict[str, Retraining] = {}
        # Not in the order of names, by which an end follows its start: a reset may lie between.
        for record in sorted(self._records.since("", now), key=lambda record: record.at):
            match record:
                case ResetRecord():
                    found = {name: replace(old, was_reset=old.result is not None) for name, old in found.items()}
                case StartedRecord(name=name):
                    found[name] = Retraining(name, record.at)
                case EndedRecord(name=name):
                    # The record of its start may have been damaged.
                    found[name] = replace(found.get(name) or Retraining(name, record.stamped), result=record.result)
        return list(found.values())

    def _unstarted(self, now: datetime) -> list[tuple[str, CheckRecord]]:
        """The checks that decided to retrain, where nothing was started yet: a watcher died in between, or the trigger failed."""
        since = now - timedelta(seconds=CHECKS_LOOKED_AT * self._settings.interval_s)
        decided = [(each.retraining, each) for each in self._checks.since(f"{since:{STAMP}}", now) if each.retraining]
        # An end without a start: the record of the start was damaged.
        return [
            (name, each)
            for name, each in decided
            if not any(self._records.get(_key(each.at, kind), now) for kind in ("1-started", "2-ended"))
        ]

    def start_what_was_decided(self, now: datetime) -> None:
        """Start it, then note it: a watcher that dies in between starts it again, by the same name."""
        for name, record in self._unstarted(now):
            about = {"version": record.version, "reason": record.reason, "at": record.at.isoformat()}
            seen = {"evidence": dict(record.evidence), "verdicts": dict(record.verdicts), "reasons": dict(record.reasons)}
            # In this order, for the annotation of a Job has room for so much.
            self._trigger.start(name, {**about, **seen})
            self._records.add(_key(record.at, "1-started"), {"format": FORMAT, "kind": "started", "name": name, **about})
            log.info("%s started: %s", name, record.reason)

    def note_what_has_ended(self, now: datetime) -> None:
        """Note how retrainings ended."""
        for each in self._started(now):
            if each.result is None and (ended := self._ended(each, now)):
                result, reason = ended
                record = {"kind": "ended", "name": each.name, "at": now.isoformat(), "result": result, "reason": reason}
                self._records.add(_key(each.started_at, "2-ended"), {"format": FORMAT, **record})
                log.info("%s %s: %s", each.name, result, reason)

    def _ended(self, each: Retraining, now: datetime) -> tuple[str, str] | None:
        """How a retraining ended, by the candidate that it made; None while it is under way."""
        # Read before the registry: a run that ended has already written its decision there.
        status = self._trigger.status(each.name)
        candidate = self._versions.released("candidate")
        if candidate and candidate.created_at > each.started_at and (decision := candidate.tags.get("decision")):
            outcome = f"version {candidate.number}: {decision}"
            if "promoted_at" in candidate.tags:
                return "promoted", outcome
            # One that passed the gate is promoted a moment later.
            if status == "succeeded" or candidate.tags.get("gate") != "passed":
                return "rejected", outcome
        if status == "failed":
            return "failed", "it ended with an error: read its log"
        if status == "succeeded":
            return "failed", "it ended without a new version"
        if now - each.started_at > timedelta(seconds=self._settings.retrain_timeout_s):
            return "failed", f"it did not end within {self._settings.retrain_timeout_s:g} s"
        return None

    def reset(self, now: datetime) -> None:
        """Close the circuit: what was rejected or failed until now no longer counts."""
        self._records.since("", now)  # which sets aside what is damaged
        self._records.add(f"{now:{STAMP}}-3-reset", {"format": FORMAT, "kind": "reset", "at": now.isoformat()})

    def set_aside(self) -> int:
        """How many of its records are not used."""
        return self._records.set_aside()


def _key(at: datetime, kind: str) -> str:
    """The name of a record of the retraining that was decided then."""
    return f"{at:{STAMP}}-{kind}"
