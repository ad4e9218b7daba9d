"""When signals switch on and off, and the decision that follows."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.policy import (
    SIGNALS,
    Decision,
    Kind,
    Labels,
    Retraining,
    Rules,
    Seen,
    Signal,
    Verdict,
    blocker_of,
    cooldown_left,
    decide,
    evidence_of,
    is_circuit_open,
    signals_on,
)

CLEAN, BETWEEN, WARN, BAD, INCIDENT, INSUFFICIENT = Verdict
NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOMENT = timedelta(microseconds=1)
RULES = Rules(cooldown=3 * DAY, budget=2, budget_time=14 * DAY, max_rejected=2, min_rows=500, min_positives=50)
ENOUGH = Labels(500, 50)


def hour(number: int) -> datetime:
    return NOW + number * HOUR


def watched(*verdicts: Verdict, signal: Signal = "short") -> list[Seen]:
    """A check an hour of one signal, each with the signals that were on after it; the others are clean all the time."""
    past: list[Seen] = []
    for number, verdict in enumerate(verdicts):
        verdicts_of = dict.fromkeys(SIGNALS, CLEAN) | {signal: verdict}
        reasons = {each: f"{each} is {what} in check {number}" for each, what in verdicts_of.items()}
        on = signals_on(verdicts_of, hour(number), past)
        past.append(Seen(hour(number), "1", verdicts_of, reasons, on, evidence_of(on, verdicts_of, reasons, past)))
    return past


def since(*verdicts: Verdict, signal: Signal = "short") -> datetime | None:
    """Since when the signal is on after these verdicts; None if it is off."""
    return watched(*verdicts, signal=signal)[-1].on_since.get(signal)


def seen(*, on: Sequence[Signal] = (), **verdicts: Verdict) -> Seen:
    verdicts_of: dict[Signal, Verdict] = {signal: verdicts.get(signal, CLEAN) for signal in SIGNALS}
    reasons: dict[Signal, str] = {signal: f"{signal} is {what}" for signal, what in verdicts_of.items()}
    return Seen(NOW, "1", verdicts_of, reasons, dict.fromkeys(on, NOW - HOUR), {signal: f"{signal} was bad" for signal in on})


def ended(result: Any, ago: timedelta, name: str = "some") -> Retraining:
    return Retraining(name, NOW - ago, result)


def decision(what: Seen, retrainings: Sequence[Retraining] = (), labels: Labels = ENOUGH, **rules: Any) -> Decision:
    return decide(what, retrainings, labels, replace(RULES, **rules))


ON = seen(on=["short"], short=BAD)


# Signals


@pytest.mark.parametrize("signal", SIGNALS)
def test_three_bad_windows_of_the_last_four_switch_a_signal_on(signal: Signal) -> None:
    assert since(BAD, BAD, BAD, signal=signal)
    assert since(BAD, CLEAN, BAD, BAD, signal=signal)
    assert since(BAD, BAD, WARN, BAD, signal=signal)


def test_two_bad_windows_of_the_last_four_do_not() -> None:
    assert since(BAD, BAD) is None
    assert since(BAD, CLEAN, CLEAN, BAD) is None
    assert since(BAD, BAD, CLEAN, CLEAN) is None


def test_a_third_bad_window_five_windows_after_the_first_does_not() -> None:
    assert since(BAD, CLEAN, BAD, CLEAN, BAD) is None


@pytest.mark.parametrize("other", [WARN, BETWEEN])
def test_windows_that_are_not_bad_never_switch_a_signal_on(other: Verdict) -> None:
    assert since(*[other] * 12) is None


def test_a_signal_is_on_since_the_first_of_the_bad_windows() -> None:
    assert since(CLEAN, BAD, CLEAN, BAD, BAD) == hour(1)
    assert since(CLEAN, CLEAN, BAD, BAD, BAD) == hour(2)


def test_a_bad_window_before_the_last_four_does_not_set_since() -> None:
    assert since(BAD, CLEAN, CLEAN, BAD, BAD, BAD) == hour(3)


def test_an_active_signal_keeps_its_since() -> None:
    assert since(*[BAD] * 10) == hour(0)


def test_a_signal_switches_off_after_exactly_three_clean_windows() -> None:
    assert since(BAD, BAD, BAD, CLEAN, CLEAN)
    assert since(BAD, BAD, BAD, CLEAN, CLEAN, CLEAN) is None
    assert since(BAD, BAD, BAD, BAD, BAD, CLEAN, CLEAN, CLEAN) is None


@pytest.mark.parametrize("other", [BETWEEN, WARN, BAD])
def test_a_signal_stays_on_if_one_of_three_windows_is_not_clean(other: Verdict) -> None:
    assert since(BAD, BAD, BAD, CLEAN, CLEAN, other, CLEAN, CLEAN) == hour(0)


@pytest.mark.parametrize("other", [BETWEEN, WARN])
def test_windows_neither_clean_nor_bad_keep_a_signal_on(other: Verdict) -> None:
    assert since(BAD, BAD, BAD, *[other] * 12) == hour(0)


@pytest.mark.parametrize("other", [BETWEEN, WARN])
def test_windows_neither_clean_nor_bad_keep_a_signal_off(other: Verdict) -> None:
    assert since(BAD, BAD, other, other, other, BAD) is None


def test_a_signal_that_switched_off_needs_three_new_bad_windows() -> None:
    off = [BAD, BAD, BAD, CLEAN, CLEAN, CLEAN]

    assert since(*off, BAD, BAD) is None
    assert since(*off, BAD, BAD, BAD) == hour(6)


@pytest.mark.parametrize("silent", [INSUFFICIENT, INCIDENT])
def test_insufficient_windows_do_not_count_for_switching_on(silent: Verdict) -> None:
    assert since(BAD, silent, silent, silent, silent, BAD, BAD) == hour(0)
    assert since(BAD, BAD, silent, silent) is None


@pytest.mark.parametrize("silent", [INSUFFICIENT, INCIDENT])
def test_insufficient_windows_do_not_count_for_switching_off(silent: Verdict) -> None:
    assert since(BAD, BAD, BAD, CLEAN, CLEAN, silent, silent, silent) == hour(0)
    assert since(BAD, BAD, BAD, CLEAN, CLEAN, silent, CLEAN) is None


def test_signals_switch_on_independently() -> None:
    past = [
        Seen(hour(number), "1", {"short": BAD, "long": CLEAN, "performance": each}, {}, {})
        for number, each in enumerate([CLEAN, BAD, BAD])
    ]

    found = signals_on({"short": BAD, "long": CLEAN, "performance": BAD}, hour(3), past)

    assert found == {"short": hour(0), "performance": hour(1)}


def test_a_version_without_past_windows_has_no_active_signal() -> None:
    assert signals_on(dict.fromkeys(SIGNALS, BAD), NOW, []) == {}


# Decisions


def test_no_drift_is_kept() -> None:
    assert decision(seen()) == Decision(Kind.KEEP, "nothing moved")


def test_an_active_signal_without_a_blocker_retrains() -> None:
    assert decision(ON) == Decision(Kind.RETRAIN, "short since 2026-02-28 23:00: short was bad")


def test_an_active_signal_retrains_after_a_clean_window() -> None:
    assert decision(seen(on=["long"], long=CLEAN)).kind is Kind.RETRAIN


def test_a_retraining_reason_has_every_active_signal_and_its_start() -> None:
    found = decision(seen(on=["performance", "short"], short=BAD, performance=BAD))

    assert found.reason == (
        "short since 2026-02-28 23:00: short was bad; performance since 2026-02-28 23:00: performance was bad"
    )


def test_a_missing_evidence_record_is_reported_in_the_reason() -> None:
    assert decision(replace(ON, evidence={})).reason.endswith(": the record of its evidence is missing")


# Evidence


@pytest.mark.parametrize("later", [[], [INSUFFICIENT], [INSUFFICIENT] * 20, [CLEAN, CLEAN], [BETWEEN], [INCIDENT], [BAD, BAD]])
def test_the_evidence_of_a_signal_is_the_window_that_switched_it_on(later: list[Verdict]) -> None:
    last = watched(CLEAN, BAD, BAD, BAD, *later)[-1]

    assert last.evidence == {"short": "short is bad in check 3"}


@pytest.mark.reported
def test_the_reason_is_the_signals_evidence_and_not_the_last_window() -> None:
    last = replace(watched(BAD, BAD, BAD, INSUFFICIENT)[-1], reasons={"short": "0 rows, 300 are needed"})

    assert decision(last).reason == f"short since {hour(0):%Y-%m-%d %H:%M}: short is bad in check 2"


def test_a_signal_that_switches_on_again_has_new_evidence() -> None:
    last = watched(BAD, BAD, BAD, CLEAN, CLEAN, CLEAN, BAD, BAD, BAD)[-1]

    assert last.evidence == {"short": "short is bad in check 8"}


def test_missing_evidence_is_taken_from_past_windows() -> None:
    past = [replace(each, evidence={}) for each in watched(BAD, BAD, BAD, INSUFFICIENT)]

    found = evidence_of(["short"], {"short": INSUFFICIENT}, {"short": "0 rows"}, past)

    assert found == {"short": "short is bad in check 2"}


def test_a_second_signal_has_its_own_evidence_beside_that_of_the_first() -> None:
    past = watched(BAD, BAD, BAD)
    verdicts: dict[Signal, Verdict] = {"short": CLEAN, "long": BAD, "performance": CLEAN}

    found = evidence_of(["short", "long"], verdicts, {"long": "long is bad now"}, past)

    assert found == {"short": "short is bad in check 2", "long": "long is bad now"}


def test_an_inactive_signal_has_no_evidence() -> None:
    assert watched(BAD, BAD)[-1].evidence == {}


@pytest.mark.parametrize("verdict", [BAD, WARN])
def test_a_window_above_the_thresholds_warns_without_an_active_signal(verdict: Verdict) -> None:
    assert decision(seen(long=verdict)) == Decision(Kind.WARN, f"long: long is {verdict}")


def test_a_window_without_a_reason_is_named_by_its_verdict() -> None:
    assert decision(replace(seen(long=BAD), reasons={})) == Decision(Kind.WARN, "long: bad")


def test_a_window_just_below_the_thresholds_is_kept() -> None:
    assert decision(seen(short=BETWEEN)).kind is Kind.KEEP


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_data_incident_has_priority_over_retraining(signal: Signal) -> None:
    other: dict[str, Verdict] = dict.fromkeys(SIGNALS, BAD)

    found = decision(seen(on=SIGNALS, **other | {signal: INCIDENT}))

    assert found.kind is Kind.DATA_INCIDENT
    assert found.reason == f"{signal}: {signal} is incident; nothing is retrained on bad data: correct its source"


def test_a_data_incident_has_priority_over_blockers() -> None:
    assert decision(seen(on=["long"], short=INCIDENT), [ended(None, HOUR)]).kind is Kind.DATA_INCIDENT


def test_insufficient_data_is_reported_only_if_every_signal_has_it() -> None:
    assert decision(seen(short=INSUFFICIENT, long=INSUFFICIENT, performance=INSUFFICIENT)) == Decision(
        Kind.INSUFFICIENT_DATA,
        "short: short is insufficient; long: long is insufficient; performance: performance is insufficient",
    )
    assert decision(seen(short=INSUFFICIENT, long=CLEAN, performance=INSUFFICIENT)).kind is Kind.KEEP
    assert decision(seen(short=INSUFFICIENT, long=WARN, performance=INSUFFICIENT)).kind is Kind.WARN


def test_insufficient_data_does_not_hide_an_active_signal() -> None:
    everywhere: dict[str, Verdict] = dict.fromkeys(SIGNALS, INSUFFICIENT)

    assert decision(seen(on=["short"], **everywhere)).kind is Kind.RETRAIN


# What hinders


def blocked(retrainings: Sequence[Retraining] = (), labels: Labels = ENOUGH, **rules: Any) -> str:
    """Why nothing is retrained though a signal is on; empty if it is."""
    found = decision(ON, retrainings, labels, **rules)
    assert found.kind in (Kind.RETRAIN, Kind.WARN)
    reason, _, blocker = found.reason.partition("; no retraining: ")
    assert reason == decision(ON).reason
    assert (found.kind is Kind.WARN) == bool(blocker)
    return blocker


def test_a_running_retraining_blocks_another() -> None:
    assert blocked([ended("promoted", 30 * DAY), ended(None, 29 * DAY, "retrain-v3")]) == "retrain-v3 is under way"


def test_the_cooldown_blocks_a_retraining() -> None:
    assert "to wait" in blocked([ended("promoted", 3 * DAY - MOMENT)])
    assert blocked([ended("promoted", 3 * DAY)]) == ""


def test_the_cooldown_blocker_has_the_remaining_time() -> None:
    assert blocked([ended("promoted", DAY)]) == "the last one started less than 72 h ago; 48 h to wait"


def test_the_cooldown_begins_at_the_last_start() -> None:
    assert "24 h to wait" in blocked([ended("promoted", 2 * DAY), ended("promoted", 5 * DAY)])


def test_the_budget_limits_the_number_of_retrainings() -> None:
    first, second = ended("promoted", 14 * DAY - MOMENT), ended("promoted", 4 * DAY)

    assert blocked([first, second]) == "2 started within 336 h, 2 are allowed"
    assert blocked([second]) == ""


def test_the_budget_is_restored_after_its_period() -> None:
    assert blocked([ended("promoted", 14 * DAY), ended("promoted", 4 * DAY)]) == ""


def test_a_budget_of_0_never_retrains() -> None:
    assert "0 are allowed" in blocked(budget=0)


@pytest.mark.parametrize("last", ["rejected", "failed"])
def test_the_circuit_breaker_opens_after_two_failed_retrainings(last: str) -> None:
    assert blocked([ended("rejected", 60 * DAY)]) == ""
    assert blocked([ended("rejected", 60 * DAY), ended(last, 30 * DAY)]) == (
        "the last 2 were rejected or failed: look at them, then `python -m monitoring reset`"
    )


def test_a_promotion_resets_the_count_of_failed_retrainings() -> None:
    failed, good = [ended("rejected", 90 * DAY)], [ended("promoted", 60 * DAY)]

    assert not is_circuit_open([*failed, *good, *failed], RULES)
    assert not is_circuit_open([*failed, *failed, *good], RULES)
    assert is_circuit_open([*good, *failed, *failed], RULES)


def test_a_running_retraining_does_not_change_the_circuit_breaker() -> None:
    failed, running = ended("failed", 60 * DAY), ended(None, HOUR)

    assert not is_circuit_open([failed, running], RULES)
    assert is_circuit_open([failed, failed, running], RULES)


def test_retrainings_before_a_reset_do_not_open_the_circuit_breaker() -> None:
    failed = ended("rejected", 60 * DAY)
    reset = replace(failed, was_reset=True)

    assert not is_circuit_open([reset, reset], RULES)
    assert not is_circuit_open([reset, reset, failed], RULES)
    assert is_circuit_open([reset, failed, failed], RULES)


def test_retrainings_before_a_reset_count_for_cooldown_and_budget() -> None:
    reset = replace(ended("rejected", 4 * DAY), was_reset=True)

    assert "to wait" in blocked([replace(reset, started_at=NOW - DAY)])
    assert "are allowed" in blocked([reset, reset])


def test_the_circuit_breaker_limit_is_configurable() -> None:
    failed = ended("rejected", 60 * DAY)

    assert not is_circuit_open([failed] * 2, replace(RULES, max_rejected=3))
    assert is_circuit_open([failed] * 3, replace(RULES, max_rejected=3))


@pytest.mark.parametrize(
    ("labels", "enough"), [((499, 50), False), ((500, 49), False), ((0, 0), False), ((500, 50), True), ((9000, 2000), True)]
)
def test_retraining_needs_enough_labels_and_churned_customers(labels: tuple[int, int], enough: bool) -> None:
    blocker = blocked(labels=Labels(*labels))

    assert (blocker == "") is enough
    assert enough or blocker == f"{labels[0]} final labels since ({labels[1]} left); 500 (50) are needed to learn from"


def test_blockers_that_need_a_reset_come_before_temporary_ones() -> None:
    failed = [ended("failed", 2 * DAY), ended("failed", DAY)]

    assert "reset" in blocker_of(NOW, failed, Labels(0, 0), RULES)
    assert "to wait" in blocker_of(NOW, [ended("promoted", 2 * DAY), ended("promoted", DAY)], Labels(0, 0), RULES)
    assert "are allowed" in blocker_of(NOW, [ended("promoted", 4 * DAY), ended("promoted", 4 * DAY)], Labels(0, 0), RULES)


def test_durations_below_two_hours_are_shown_in_seconds() -> None:
    assert "less than 20 s ago; 5 s to wait" in blocked(
        [ended("promoted", timedelta(seconds=15))], cooldown=timedelta(seconds=20)
    )


@pytest.mark.parametrize(("hours", "told"), [(2, "2 h"), (5000, "5000 h")])
def test_a_time_of_two_hours_or_more_is_told_in_hours(hours: int, told: str) -> None:
    assert f"less than {told} ago" in blocked([ended("promoted", HOUR)], cooldown=hours * HOUR)


def test_no_cooldown_remains_without_a_retraining() -> None:
    assert cooldown_left(NOW, [], RULES) == timedelta(0)


# Whatever happened


VERDICTS = st.fixed_dictionaries({signal: st.sampled_from(Verdict) for signal in SIGNALS})
RESULTS = st.sampled_from(["promoted", "rejected", "failed", None])
HISTORIES = st.lists(st.tuples(st.integers(0, 40 * 24), RESULTS), max_size=6).map(
    lambda drawn: [ended(result, ago * HOUR) for ago, result in sorted(drawn, key=lambda each: each[0], reverse=True)]
)
LABELS = st.builds(Labels, st.sampled_from([0, 499, 500, 5000]), st.sampled_from([0, 49, 50, 500]))
SEEN = st.builds(
    lambda verdicts, on: Seen(NOW, "1", verdicts, {}, dict.fromkeys(on, NOW - HOUR)), VERDICTS, st.sets(st.sampled_from(SIGNALS))
)


@settings(deadline=None)
@given(SEEN, HISTORIES, LABELS)
def test_a_retraining_is_decided_only_if_every_rule_allows_it(what: Seen, history: list[Retraining], labels: Labels) -> None:
    if decide(what, history, labels, RULES).kind is not Kind.RETRAIN:
        return

    ends = [each.result for each in history]
    starts = [each.started_at for each in history]
    assert what.on_since
    assert INCIDENT not in what.verdicts.values()
    assert None not in ends
    assert len(ends) < 2 or "promoted" in ends[-2:]
    assert all(NOW - start >= 3 * DAY for start in starts)
    assert sum(NOW - start < 14 * DAY for start in starts) < 2
    assert labels.rows >= 500
    assert labels.positives >= 50


@settings(deadline=None)
@given(SEEN, HISTORIES, LABELS)
def test_decisions_are_deterministic_with_a_one_line_reason(what: Seen, history: list[Retraining], labels: Labels) -> None:
    first, second = (decide(what, list(history), labels, RULES) for _ in range(2))

    assert first == second
    assert first.reason
    assert "\n" not in first.reason


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([BAD, BAD, BAD, *Verdict]), min_size=24, max_size=24 * 8),
    st.lists(RESULTS, min_size=1),
    st.sampled_from([1, 5, 24]),
)
def test_no_sequence_of_windows_exceeds_the_retraining_limits(
    verdicts: list[Verdict], results: list[Any], every_hours: int
) -> None:
    history: list[Retraining] = []
    past: list[Seen] = []
    for number, verdict in enumerate(verdicts):
        at = NOW + number * every_hours * HOUR
        if history and history[-1].result is None:
            history[-1] = replace(history[-1], result=results[number % len(results)])
        on = signals_on({"short": verdict}, at, past)
        past.append(Seen(at, "1", {"short": verdict}, {}, on))
        if decide(past[-1], history, ENOUGH, RULES).kind is Kind.RETRAIN:
            history.append(Retraining(str(number), at))

    starts = [each.started_at for each in history]
    ends = [each.result for each in history]
    assert all(later - earlier >= 3 * DAY for earlier, later in pairwise(starts))
    assert all(later - earlier >= 14 * DAY for earlier, later in zip(starts, starts[2:], strict=False))
    assert all(None not in ends[:number] for number in range(1, len(ends)))
    assert all("promoted" in ends[number - 2 : number] for number in range(2, len(ends)))


def test_concurrent_decisions_are_equal() -> None:
    past = watched(CLEAN, BAD, WARN, BAD, BAD)
    history = [ended("rejected", 40 * DAY), ended("promoted", 20 * DAY)]

    def decided(_: int) -> tuple[dict[Signal, datetime], Decision]:
        on = signals_on(past[-1].verdicts, past[-1].at, past[:-1])
        return on, decide(replace(past[-1], on_since=on), history, ENOUGH, RULES)

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(decided, range(50)))

    assert found == [({"short": hour(1)}, Decision(Kind.RETRAIN, "short since 2026-03-01 01:00: short is bad in check 4"))] * 50
