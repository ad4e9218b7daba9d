"""When to retrain: a pure function from what was seen to a decision with its reason."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

Signal = Literal["short", "long", "performance"]
SIGNALS: tuple[Signal, ...] = ("short", "long", "performance")

WINDOWS_TO_ENTER, OF_THE_LAST = 3, 4
WINDOWS_TO_LEAVE = 3
"""A signal is on after 3 bad ones of the last 4 verdicts, and off again after 3 clean ones in a row."""


UNRECORDED = "the record of its evidence is missing"


class Verdict(StrEnum):
    """What one window says of one signal. `CLEAN` is well below the thresholds, `BETWEEN` below them."""

    CLEAN = "clean"
    BETWEEN = "between"
    WARN = "warn"
    BAD = "bad"
    INCIDENT = "incident"
    INSUFFICIENT = "insufficient"


class Kind(StrEnum):
    """What is to be done."""

    KEEP = "keep"
    WARN = "warn"
    RETRAIN = "retrain"
    DATA_INCIDENT = "data incident"
    INSUFFICIENT_DATA = "insufficient data"


@dataclass(frozen=True)
class Seen:
    """One check of one version: a verdict and a reason per signal, and which signals were on after it, since when (UTC).

    `evidence` has the reason of the window that switched a signal on, for as long as it is on.
    """

    at: datetime
    version: str
    verdicts: dict[Signal, Verdict]
    reasons: dict[Signal, str]
    on_since: dict[Signal, datetime]
    evidence: dict[Signal, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Retraining:
    """One that was started, and how it ended: None while it is under way.

    `was_reset`: a person has reset the circuit breaker since.
    """

    name: str
    started_at: datetime
    result: Literal["promoted", "rejected", "failed"] | None = None
    was_reset: bool = False


@dataclass(frozen=True)
class Labels:
    """Labels that became final since the signals came on: what a new version could learn from."""

    rows: int
    positives: int


@dataclass(frozen=True)
class Rules:
    """The limits. Their sources are in docs/monitoring.md."""

    cooldown: timedelta
    budget: int
    budget_time: timedelta
    max_rejected: int
    min_rows: int
    min_positives: int


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why, in one line."""

    kind: Kind
    reason: str


def signals_on(verdicts: dict[Signal, Verdict], at: datetime, past: Sequence[Seen]) -> dict[Signal, datetime]:
    """Which signals are on after a check with these verdicts, and since when; `past` are the version's earlier checks.

    A window without enough rows, or with bad data, says nothing for or against drift: it does not count.
    """
    before = past[-1].on_since if past else {}
    now: dict[Signal, datetime] = {}
    for signal, verdict in verdicts.items():
        counted = [(each.at, each.verdicts[signal]) for each in past if each.verdicts.get(signal) in _COUNTED]
        counted += [(at, verdict)] if verdict in _COUNTED else []
        if signal in before:
            last = [each for _, each in counted[-WINDOWS_TO_LEAVE:]]
            if last != [Verdict.CLEAN] * WINDOWS_TO_LEAVE:
                now[signal] = before[signal]
        else:
            bad = [when for when, each in counted[-OF_THE_LAST:] if each is Verdict.BAD]
            if len(bad) >= WINDOWS_TO_ENTER:
                now[signal] = bad[0]
    return now


def evidence_of(
    on: Iterable[Signal], verdicts: dict[Signal, Verdict], reasons: dict[Signal, str], past: Sequence[Seen]
) -> dict[Signal, str]:
    """The evidence of the signals that are on: the reason of the last bad window when each was switched on.

    Later windows may be clean, or have no rows: they say nothing of why it is on.
    """
    before = past[-1] if past else None
    found: dict[Signal, str] = {}
    for signal in on:
        if before and signal in before.on_since and signal in before.evidence:
            found[signal] = before.evidence[signal]
            continue
        bad = [each.reasons[signal] for each in past if each.verdicts.get(signal) is Verdict.BAD and each.reasons.get(signal)]
        bad += [reasons[signal]] if verdicts.get(signal) is Verdict.BAD and reasons.get(signal) else []
        if bad:
            found[signal] = bad[-1]
    return found


_COUNTED = frozenset({Verdict.CLEAN, Verdict.BETWEEN, Verdict.WARN, Verdict.BAD})


def decide(seen: Seen, retrainings: Sequence[Retraining], labels: Labels, rules: Rules) -> Decision:
    """The decision on what was seen last, with every retraining so far, oldest first."""
    if incidents := _those(seen, Verdict.INCIDENT):
        return Decision(Kind.DATA_INCIDENT, f"{incidents}; nothing is retrained on bad data: correct its source")
    if on := [signal for signal in SIGNALS if signal in seen.on_since]:
        why = "; ".join(
            f"{signal} since {seen.on_since[signal]:%Y-%m-%d %H:%M}: {seen.evidence.get(signal, UNRECORDED)}" for signal in on
        )
        if blocker := blocker_of(seen.at, retrainings, labels, rules):
            return Decision(Kind.WARN, f"{why}; no retraining: {blocker}")
        return Decision(Kind.RETRAIN, why)
    if warnings := _those(seen, Verdict.BAD, Verdict.WARN):
        return Decision(Kind.WARN, warnings)
    if all(each is Verdict.INSUFFICIENT for each in seen.verdicts.values()):
        return Decision(Kind.INSUFFICIENT_DATA, _those(seen, Verdict.INSUFFICIENT))
    return Decision(Kind.KEEP, "nothing moved")


def blocker_of(now: datetime, retrainings: Sequence[Retraining], labels: Labels, rules: Rules) -> str:
    """Why no retraining may start now; empty if one may."""
    if running := [each.name for each in retrainings if each.result is None]:
        return f"{running[-1]} is under way"
    if is_circuit_open(retrainings, rules):
        return f"the last {rules.max_rejected} were rejected or failed: look at them, then `python -m monitoring reset`"
    if left := cooldown_left(now, retrainings, rules):
        return f"the last one started less than {_hours(rules.cooldown)} ago; {_hours(left)} to wait"
    recent = [each for each in retrainings if each.started_at > now - rules.budget_time]
    if len(recent) >= rules.budget:
        return f"{len(recent)} started within {_hours(rules.budget_time)}, {rules.budget} are allowed"
    if labels.rows < rules.min_rows or labels.positives < rules.min_positives:
        return (
            f"{labels.rows} final labels since ({labels.positives} left); "
            f"{rules.min_rows} ({rules.min_positives}) are needed to learn from"
        )
    return ""


def is_circuit_open(retrainings: Sequence[Retraining], rules: Rules) -> bool:
    """True if none of the last `max_rejected` retrainings was promoted."""
    last = [each for each in retrainings if each.result][-rules.max_rejected :]
    return len(last) == rules.max_rejected and not any(each.result == "promoted" or each.was_reset for each in last)


def cooldown_left(now: datetime, retrainings: Sequence[Retraining], rules: Rules) -> timedelta:
    """How long until the cooldown is over; zero if it is."""
    last = max((each.started_at for each in retrainings), default=now - rules.cooldown)
    return max(last + rules.cooldown - now, timedelta(0))


def _those(seen: Seen, *verdicts: Verdict) -> str:
    return "; ".join(f"{signal}: {seen.reasons.get(signal, each)}" for signal, each in seen.verdicts.items() if each in verdicts)


def _hours(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours:.0f} h" if hours >= 2 else f"{time.total_seconds():.0f} s"
