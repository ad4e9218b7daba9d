"""The watcher with a real log, registry, records and trigger, and with other watchers."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from churn.adapters import set_aside
from churn.adapters.events import log as events
from churn.adapters.mlflow import model_store
from churn.contract import LABEL
from churn.errors import ChurnError, EventsError, RegistryError
from churn.paths import BUNDLE
from http_server import HttpServer, Reply
from monitoring import watcher
from monitoring.policy import Decision, Kind
from monitoring.watcher import Watcher
from served import Releases
from watching import (
    HORIZON,
    HOUR,
    MINUTE,
    NOON,
    Origin,
    Workspace,
    broken,
    dearer,
    everyone_left,
    exported,
    process,
    wait_until,
)

pytestmark = pytest.mark.slow

ONE, TWO, THREE, FOUR = (NOON + hours * HOUR for hours in (1, 2, 3, 4))
FIRST = "retrain-v1-20260302t130000z"
"""The retraining that is due at one o'clock."""
REFUSED = {"gate": "failed: roc_auc", "decision": "failed roc_auc 0.8000 (refused: ≥ 0.82)"}
PASSED = {"gate": "passed", "decision": "passed every check; better than version 1"}
PROMOTED = PASSED | {"promoted_at": "2026-03-02T13:30:00+00:00"}

WATCH = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from churn.settings import load_monitoring
from monitoring.watcher import Watcher

now, number = datetime.fromisoformat(sys.argv[1]), int(sys.argv[2])
watchers = [Watcher(load_monitoring()) for _ in range(number)]
"""
CHECK = """
sys.stdin.read()
with ThreadPoolExecutor(number) as pool:
    print(*{decision.kind for decision in pool.map(lambda watcher: watcher.check(now), watchers)})
"""
DIE = """
class Dying:
    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return die if name == {method!r} else getattr(self.real, name)

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

watchers[0].{part} = Dying(watchers[0].{part})
watchers[0].check(now)
"""


@dataclass(frozen=True)
class Story:
    """Checks at 12, 13, 14 and 15 o'clock of a watcher without outcomes; bills rise by a fifth at noon.

    Until 14 o'clock `learnable` is the same, then it has the outcomes, in `labelled`: the log and an hour of broken totals.
    """

    workspace: Workspace
    learnable: Workspace
    labelled: Path
    decisions: list[Decision | None] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    def check(self, at: datetime) -> None:
        self.decisions.append(self.workspace.check(at + MINUTE))
        self.samples.append(exported())


@pytest.fixture(scope="module")
def story(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    workspace = Workspace.made(folder / "untold", origin)
    predictions = [
        workspace.predict(NOON - 2 * HOUR, NOON, 1200),
        workspace.predict(NOON, THREE, 1800, change=dearer, seed=1),
        workspace.predict(THREE, FOUR, 600, change=broken, seed=2),
    ]
    shutil.copytree(workspace.events, folder / "labelled")
    for each in predictions:
        replace(workspace, events=folder / "labelled").report(each)
    story = Story(
        workspace, replace(workspace, folder=folder / "learnable").but(events=str(folder / "labelled")), folder / "labelled"
    )
    for at in (NOON, ONE, TWO):
        story.check(at)
    workspace.copied(folder / "learnable")
    story.check(THREE)
    story.learnable.check(THREE)
    return story


@pytest.fixture
def webhook() -> Iterator[HttpServer]:
    """A receiver that accepts retrainings and never reports their result."""
    with HttpServer(lambda request: Reply(202)) as server:
        yield server


def with_webhook(brink: Workspace, webhook: HttpServer, **options: Any) -> Workspace:
    """The same, with retrainings posted to the webhook."""
    return brink.but(trigger="webhook", trigger_url=webhook.url, **options)


def kinds(workspace: Workspace) -> list[str]:
    return [each["decision"] for each in workspace.checks()]


def started(workspace: Workspace) -> list[str]:
    return [each["name"] for each in workspace.retrainings() if each["kind"] == "started"]


def results(workspace: Workspace) -> list[tuple[str, str]]:
    return [(each["name"], each["result"]) for each in workspace.retrainings() if each["kind"] == "ended"]


def test_no_check_is_recorded_without_a_production_version(origin: Origin, tmp_path: Path) -> None:
    workspace = Workspace.made(tmp_path, origin)
    Releases(tmp_path).client.delete_registered_model_alias("churn", "production")

    assert workspace.check(NOON) is None

    assert not (tmp_path / "monitoring" / "checks").exists()


def test_a_log_without_rows_is_insufficient_data(origin: Origin, tmp_path: Path) -> None:
    workspace = Workspace.made(tmp_path, origin)

    decision = workspace.check(NOON)

    assert decision
    assert decision.kind is Kind.INSUFFICIENT_DATA
    assert "short: 0 rows, 300 are needed" in decision.reason
    assert kinds(workspace) == ["insufficient data"]


def test_unchanged_traffic_is_kept(story: Story) -> None:
    assert story.decisions[0] == Decision(Kind.KEEP, "nothing moved")


def test_a_check_records_its_windows_and_scores(story: Story) -> None:
    record = story.workspace.checks()[0]

    assert (record["name"], record["version"]) == ("20260302T120000Z-v1", "1")
    assert record["at"] == NOON.isoformat()
    assert [(each["name"], each["rows"]) for each in record["windows"]] == [("short", 600), ("long", 1200)]
    assert [each["drift"]["drifted"] for each in record["windows"]] == [[], []]
    assert record["newest_prediction"].startswith("2026-03-02T11:59")


def test_windows_end_at_the_last_complete_interval(story: Story) -> None:
    windows = story.workspace.checks()[0]["windows"]

    assert [each["end"] for each in windows] == [NOON.isoformat()] * 2
    assert [each["start"] for each in windows] == [(NOON - HOUR).isoformat(), (NOON - 2 * HOUR).isoformat()]


def test_the_last_decision_is_a_tag_on_the_version(story: Story) -> None:
    tag = json.loads(story.learnable.tags()["monitor"])

    assert tag["at"] == THREE.isoformat()
    assert (tag["decision"], tag["retraining"]) == ("retrain", "retrain-v1-20260302t150000z")


def test_every_evaluated_window_has_a_report(story: Story) -> None:
    reports = story.workspace.folder / "monitoring" / "reports"

    for end in ("20260302T120000Z", "20260302T150000Z"):
        for window in ("short", "long"):
            page, values = (reports / f"{end}-v1-{window}.{kind}" for kind in ("html", "json"))
            assert "<html" in page.read_text()
            assert json.loads(values.read_text())["metrics"]


def test_metrics_have_the_values_of_the_check(story: Story) -> None:
    kept, drifted = story.samples[0], story.samples[1]
    record = story.workspace.checks()[1]

    assert kept['churn_window_rows{window="short"}'] == 600
    assert kept['churn_window_state{state="none",window="short"}'] == 1
    assert kept['churn_monitor_decision{decision="keep"}'] == 1
    assert kept['churn_monitor_model_version{version="1"}'] == 1
    assert kept["churn_monitor_last_check_timestamp_seconds"] == (NOON + MINUTE).timestamp()
    assert drifted['churn_window_state{state="none",window="short"}'] == 0
    assert drifted['churn_window_state{state="drift",window="short"}'] == 1
    assert drifted['churn_monitor_decision{decision="warn"}'] == 1
    short = {each["name"]: each["value"] for each in record["windows"][0]["drift"]["features"]}
    assert drifted['churn_feature_psi{feature="monthly_fee",window="short"}'] == short["monthly_fee"] > 0.2


def test_the_data_age_is_the_age_of_the_newest_prediction(story: Story) -> None:
    assert 60 < story.samples[0]["churn_monitor_data_age_seconds"] < 70


def test_the_age_of_data_that_is_ahead_of_this_clock_is_zero(brink: Workspace) -> None:
    brink.check(ONE + MINUTE)
    (file,) = (brink.folder / "monitoring" / "checks").glob(f"{ONE:%Y%m%dT%H}*.json")
    record = json.loads(file.read_text()) | {"newest_prediction": (ONE + 3 * MINUTE).isoformat()}
    file.write_text(json.dumps(record))

    brink.check(ONE + MINUTE)

    assert exported()["churn_monitor_data_age_seconds"] == 0


def test_drift_warns_until_the_third_bad_window(story: Story) -> None:
    assert kinds(story.learnable) == ["keep", "warn", "warn", "retrain"]
    assert "monthly_fee PSI" in story.learnable.checks()[1]["reason"]
    assert story.learnable.checks()[3]["on_since"]["short"] == ONE.isoformat()


def test_a_retraining_runs_with_the_final_labels_since_the_drift_began(story: Story) -> None:
    since_noon = 600 * 3
    not_yet_final = 600 * HORIZON // HOUR

    assert story.learnable.ended() == ["retrain-v1-20260302t150000z"]
    assert story.learnable.checks()[3]["labels_since"]["rows"] == since_noon - not_yet_final


def test_drift_without_enough_labels_is_a_warning_with_the_reason(story: Story) -> None:
    last = story.decisions[3]

    assert last
    assert last.kind is Kind.WARN
    assert "monthly_fee PSI" in last.reason
    assert "no retraining: 0 final labels since (0 left); 500 (50) are needed to learn from" in last.reason
    assert story.workspace.retrainings() == []


def test_bad_data_is_an_incident_and_blocks_retraining_while_drift_is_on(story: Story, tmp_path: Path) -> None:
    workspace = story.workspace.copied(tmp_path, events=str(story.labelled))

    decision = workspace.check(FOUR)

    record = workspace.checks()[-1]
    totals = events.open_sink(story.labelled).read("predictions", since=THREE, until=FOUR, columns=["total_fees"])["total_fees"]
    billed = len(totals) - totals.null_count
    assert decision
    assert decision.kind is Kind.DATA_INCIDENT
    assert billed > 590
    assert re.search(f"billed_as_charged: expected that .* in {billed} rows", decision.reason)
    assert "nothing is retrained on bad data" in decision.reason
    assert record["on_since"]["short"] == ONE.isoformat()
    assert record["labels_since"]["rows"] > 500
    assert workspace.retrainings() == []
    assert exported()['churn_window_state{state="data incident",window="short"}'] == 1
    assert exported()['churn_window_violations{window="short"}'] == 1


def test_values_of_an_earlier_window_are_not_exported(story: Story, tmp_path: Path) -> None:
    assert 'churn_score_psi{window="short"}' in story.samples[3]

    story.workspace.copied(tmp_path, events=str(tmp_path / "empty")).check(FOUR + HOUR)

    names = {each.partition("{")[0] for each in exported()}
    assert names.isdisjoint({"churn_feature_psi", "churn_score_psi", "churn_drifted_features", "churn_positive_rate"})
    assert names.isdisjoint({"churn_performance", "churn_performance_estimated"})


def test_performance_below_the_test_score_leads_to_retraining(brink: Workspace) -> None:
    decision = brink.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert decision.reason.startswith("performance since 2026-03-02 11:00: ROC-AUC 0.1")
    assert kinds(brink) == ["warn", "warn", "retrain"]
    assert brink.ended() == [FIRST]
    assert exported()['churn_performance{bound="value",score="roc_auc"}'] < 0.3
    assert exported()['churn_performance_test{score="roc_auc"}'] > 0.8


def test_a_recorded_check_is_not_repeated(brink: Workspace) -> None:
    first = brink.check(ONE)
    before = brink.checks()

    again = brink.but(events=str(brink.folder / "empty")).check(ONE + 59 * MINUTE)

    assert again == first
    assert brink.checks() == before
    assert brink.ended() == [FIRST]


def test_a_restarted_watcher_makes_the_same_decisions(failing: Workspace, tmp_path: Path) -> None:
    moments = [ONE, TWO, THREE]
    going_on, anew = (failing.copied(tmp_path / each, trigger="none", cooldown_s=2 * 3600) for each in ("one", "many"))
    watcher = Watcher(going_on.settings)

    for each in moments:
        watcher.check(each)
        anew.check(each)

    assert kinds(anew) == ["warn", "warn", "retrain", "warn", "warn"]
    assert anew.checks() == going_on.checks()
    assert anew.retrainings() == going_on.retrainings()


def test_a_restart_does_not_shorten_the_cooldown(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook, cooldown_s=3 * 3600, retrain_timeout_s=60)

    decisions = [workspace.check(each) for each in (ONE, TWO, THREE, FOUR)]

    assert [each and each.kind for each in decisions] == [Kind.RETRAIN, Kind.WARN, Kind.WARN, Kind.RETRAIN]
    assert decisions[1]
    assert "the last one started less than 3 h ago; 2 h to wait" in decisions[1].reason
    assert len(webhook.received) == 2


def test_a_restart_does_not_increase_the_budget(brink: Workspace, webhook: HttpServer) -> None:
    options = {"cooldown_s": 0, "retrain_timeout_s": 60, "budget": 2, "max_rejected": 9}
    workspace = with_webhook(brink, webhook, **options)

    decisions = [workspace.check(each) for each in (ONE, TWO, THREE)]

    assert len(started(workspace)) == len(webhook.received) == 2
    assert decisions[2]
    assert "no retraining: 2 started within 336 h, 2 are allowed" in decisions[2].reason


@pytest.fixture
def twice_rejected(brink: Workspace, webhook: HttpServer) -> Workspace:
    """Two retrainings were rejected; the third would be allowed by all but the circuit."""
    workspace = with_webhook(brink, webhook, cooldown_s=0, budget=9)
    for each in (ONE, TWO):
        workspace.check(each)
        workspace.version(each + MINUTE, REFUSED)
    return workspace


def test_two_rejected_retrainings_open_the_circuit_breaker(twice_rejected: Workspace, webhook: HttpServer) -> None:
    decision = twice_rejected.check(THREE)

    assert decision
    assert decision.kind is Kind.WARN
    assert "the last 2 were rejected or failed: look at them, then `python -m monitoring reset`" in decision.reason
    assert [result for _, result in results(twice_rejected)] == ["rejected", "rejected"]
    assert len(webhook.received) == 2
    assert exported()["churn_retrain_circuit_open"] == 1


def test_a_reset_closes_the_circuit_breaker(twice_rejected: Workspace, webhook: HttpServer) -> None:
    twice_rejected.check(THREE)

    Watcher(twice_rejected.settings).reset(THREE + MINUTE)

    decision = twice_rejected.check(FOUR)
    assert decision
    assert decision.kind is Kind.RETRAIN
    assert len(webhook.received) == 3
    assert exported()["churn_retrain_circuit_open"] == 0


def test_a_reset_keeps_the_counters_of_retraining_results(twice_rejected: Workspace) -> None:
    twice_rejected.check(THREE)

    Watcher(twice_rejected.settings).reset(THREE + MINUTE)

    twice_rejected.check(FOUR)
    assert exported()['churn_retrains_ended{result="rejected"}'] == 2
    assert exported()['churn_retrains_ended{result="promoted"}'] == 0


def test_a_retraining_running_at_a_reset_counts_for_the_circuit_breaker(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook, cooldown_s=0, budget=9, max_rejected=1)
    workspace.check(ONE)

    Watcher(workspace.settings).reset(ONE + MINUTE)
    workspace.version(ONE + 2 * MINUTE, REFUSED)

    decision = workspace.check(TWO)
    assert decision
    assert "the last 1 were rejected or failed" in decision.reason


def test_two_concurrent_watchers_start_one_retraining(brink: Workspace) -> None:
    watchers = [process(brink, "-c", WATCH + CHECK, ONE.isoformat(), "1") for _ in range(2)]

    outputs = release(watchers)

    assert outputs == ["retrain\n"] * 2
    assert kinds(brink) == ["warn", "warn", "retrain"]
    assert brink.ended() == started(brink) == [FIRST]


def test_concurrent_triggers_start_one_retraining(brink: Workspace) -> None:
    with pytest.raises(ChurnError, match="no program 'away'"):
        brink.but(trigger_command="away").check(ONE)
    watchers = [process(brink, "-c", WATCH + CHECK, ONE.isoformat(), "25") for _ in range(2)]

    outputs = release(watchers)

    assert outputs == ["retrain\n"] * 2
    assert brink.ended() == started(brink) == [FIRST]


def release(watchers: list[Any]) -> list[str]:
    """The end of their input starts them all; what they print, once all have ended well."""
    for each in watchers:
        each.stdin.close()
        each.stdin = None
    ended = [each.communicate() for each in watchers]
    assert [each.returncode for each in watchers] == [0] * len(watchers), ended
    return [out for out, _ in ended]


@pytest.mark.parametrize(
    ("part", "method", "recorded"),
    [("_checks", "add", 2), ("_retrainings._trigger", "start", 3), ("_retrainings._records", "add", 3)],
    ids=["before the check is recorded", "before the retraining starts", "before the start is recorded"],
)
@pytest.mark.parametrize("later", [MINUTE, HOUR], ids=["in the same interval", "in the next one"])
def test_a_killed_watcher_neither_loses_nor_repeats_a_retraining(
    brink: Workspace, part: str, method: str, recorded: int, later: timedelta
) -> None:
    killed = process(brink, "-c", WATCH + DIE.format(part=part, method=method), ONE.isoformat(), "1")
    killed.communicate()
    assert killed.returncode == -9
    assert (len(brink.checks()), brink.retrainings()) == (recorded, [])

    brink.check(ONE + later)
    brink.check(ONE + later + HOUR)

    # What was not recorded was not decided: the next check decides.
    name = "retrain-v1-20260302t140000z" if recorded == 2 and later == HOUR else FIRST
    assert brink.ended() == started(brink) == [name]


def test_a_retraining_that_failed_to_start_is_retried_with_the_same_name(brink: Workspace) -> None:
    with pytest.raises(ChurnError, match="no program 'away' on PATH"):
        brink.but(trigger_command="away").check(ONE)

    brink.check(TWO)

    assert brink.ended() == started(brink) == [FIRST]


def test_a_failed_trigger_neither_stops_checks_nor_repeats_the_decision(brink: Workspace) -> None:
    broken = brink.but(trigger_command="away", cooldown_s=0)
    for at in (ONE, TWO):
        with pytest.raises(ChurnError, match="no program 'away' on PATH"):
            broken.check(at)

    first, second = broken.checks()[-2:]

    assert first["decision"] == "retrain"
    assert second["decision"] == "warn"
    assert f"{FIRST} is under way" in second["reason"]


def test_a_running_retraining_blocks_the_next(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook, cooldown_s=0)
    workspace.check(ONE)

    decision = workspace.check(TWO)

    assert decision
    assert f"no retraining: {FIRST} is under way" in decision.reason
    assert results(workspace) == []
    assert exported()["churn_retrain_running"] == 1


@pytest.mark.parametrize(("tags", "result"), [(PROMOTED, "promoted"), (REFUSED, "rejected")])
def test_a_retraining_result_follows_the_tags_of_its_version(
    brink: Workspace, webhook: HttpServer, tags: dict[str, str], result: str
) -> None:
    workspace = with_webhook(brink, webhook)
    workspace.check(ONE)
    number = workspace.version(ONE + MINUTE, tags)

    workspace.check(TWO)

    last = workspace.retrainings()[-1]
    assert (last["kind"], last["name"], last["result"]) == ("ended", FIRST, result)
    assert last["reason"] == f"version {number}: {tags['decision']}"
    assert exported()[f'churn_retrains_ended{{result="{result}"}}'] == 1


def test_a_version_older_than_the_retraining_does_not_end_it(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook)
    workspace.version(ONE - MINUTE, PROMOTED)
    workspace.check(ONE)

    workspace.check(TWO)

    assert results(workspace) == []


def test_a_retraining_with_a_passed_version_ends_at_its_promotion(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook)
    workspace.check(ONE)
    number = workspace.version(ONE + MINUTE, PASSED)

    workspace.check(TWO)
    assert results(workspace) == []

    Releases(workspace.folder).client.set_model_version_tag("churn", number, "promoted_at", "2026-03-02T14:00:01+00:00")
    workspace.check(THREE)
    assert results(workspace) == [(FIRST, "promoted")]


@pytest.mark.parametrize(
    ("command", "reason"), [("false", "it ended with an error: read its log"), ("true", "it ended without a new version")]
)
def test_a_command_that_registers_no_version_has_failed(brink: Workspace, command: str, reason: str) -> None:
    workspace = brink.but(trigger_command=command)
    workspace.check(ONE)
    workspace.ended()

    workspace.check(TWO)

    assert results(workspace) == [(FIRST, "failed")]
    assert workspace.retrainings()[-1]["reason"] == reason


def test_a_retraining_fails_after_its_timeout(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook, retrain_timeout_s=90 * 60)
    workspace.check(ONE)

    workspace.check(TWO)
    assert results(workspace) == []
    workspace.check(THREE)

    assert results(workspace) == [(FIRST, "failed")]
    assert workspace.retrainings()[-1]["reason"] == "it did not end within 5400 s"


def test_windows_of_the_old_version_do_not_count_after_a_promotion(brink: Workspace, webhook: HttpServer) -> None:
    workspace = with_webhook(brink, webhook, cooldown_s=0)
    workspace.check(ONE)
    number = workspace.version(ONE + MINUTE, PROMOTED, production=True)

    decision = workspace.check(TWO)

    record = workspace.checks()[-1]
    assert decision
    assert decision.kind is Kind.INSUFFICIENT_DATA
    assert (record["version"], record["on_since"], record["matured"]["rows"]) == (number, {}, 0)
    assert started(workspace) == [FIRST]
    assert exported()[f'churn_monitor_model_version{{version="{number}"}}'] == 1


def test_labels_that_are_not_final_are_not_evaluated(origin: Origin, tmp_path: Path) -> None:
    workspace = Workspace.made(tmp_path, origin, window_s=600, long_window_s=600)
    workspace.report(workspace.predict(NOON - HORIZON, NOON, 200), change=everyone_left, after=MINUTE)

    workspace.check(NOON)
    workspace.check(ONE)

    assert [each["matured"]["rows"] for each in workspace.checks()] == [0, 200]


def test_an_unreachable_registry_is_an_error(brink: Workspace) -> None:
    (brink.folder / "mlflow.db").unlink()

    with pytest.raises(RegistryError, match="check that it runs and MLFLOW_TRACKING_URI"):
        brink.check(ONE)


def test_an_unreachable_log_is_an_error_without_a_record(brink: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(EventsError, match=r"s3://bucket/log/.*: .*check the address"):
        brink.but(events="s3://bucket/log").check(ONE)

    assert len(brink.checks()) == 2


def test_a_check_exports_the_rows_that_the_pipeline_set_aside(brink: Workspace, tmp_path: Path) -> None:
    place = str(tmp_path / "another log")
    brink = brink.but(events=place)
    set_aside.report(place, "ingest", {set_aside.UNKNOWN_CUSTOMER: 8000})
    brink.check(ONE)
    assert exported()['churn_rows_set_aside{reason="unknown customer",stage="ingest"}'] == 8000

    set_aside.report(place, "ingest", {})
    brink.check(ONE)
    assert exported()['churn_rows_set_aside{reason="unknown customer",stage="ingest"}'] == 0


def test_a_version_without_monitoring_data_is_an_error_with_its_name(brink: Workspace) -> None:
    Releases(brink.folder).client.delete_model_version_tag("churn", "1", "threshold")

    with pytest.raises(ChurnError, match=r"^version 1: 'threshold': what it brings to be watched is missing, malformed, or of"):
        brink.check(ONE)


@pytest.mark.parametrize("content", [b"", b"garbage"])
@pytest.mark.parametrize("name", ["reference.parquet", "importance.json"])
def test_a_version_with_damaged_files_is_an_error_with_its_name(brink: Workspace, name: str, content: bytes) -> None:
    released = model_store.connect(f"sqlite:///{brink.folder}/mlflow.db", timeout_s=5).of_alias("churn", "production")
    assert released
    file = Path(released.location.removeprefix("file://")) / BUNDLE / name
    before = file.read_bytes()
    file.write_bytes(content)

    try:
        with pytest.raises(ChurnError, match=r"^version 1: .*: what it brings to be watched is missing, malformed, or of"):
            brink.check(ONE)
    finally:
        file.write_bytes(before)  # the registries of other tests name the same file


def test_a_failed_check_is_counted_and_the_watcher_continues(origin: Origin, tmp_path: Path) -> None:
    workspace, before = Workspace.made(tmp_path, origin, interval_s=0.05), exported()

    with watching_while_the_registry_is_away(workspace, tmp_path) as come_back:
        wait_until(lambda: counted("failed", before) >= 2)
        assert counted("done", before) == 0
        come_back()
        wait_until(lambda: counted("done", before) >= 1)

    assert kinds(workspace)[0] == "insufficient data"


def test_a_failed_check_is_retried_early_and_counted_once(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher, "RETRY_S", 0.05)
    workspace, before = Workspace.made(tmp_path, origin, interval_s=10**7), exported()

    with watching_while_the_registry_is_away(workspace, tmp_path) as come_back:
        wait_until(lambda: caplog.text.count("check failed: ") >= 3)
        come_back()
        wait_until(lambda: counted("done", before) == 1)

    assert counted("failed", before) == 1


@contextmanager
def watching_while_the_registry_is_away(workspace: Workspace, folder: Path) -> Iterator[Callable[[], object]]:
    """A watcher that runs while the registry's file in the folder has another name; what is yielded gives it back."""
    registry, away = folder / "mlflow.db", folder / "away.db"
    registry.rename(away)
    stop = threading.Event()
    thread = threading.Thread(target=Watcher(workspace.settings).run, args=(stop,))
    thread.start()
    try:
        yield lambda: away.rename(registry)
    finally:
        stop.set()
        thread.join()


def counted(result: str, before: dict[str, float]) -> float:
    name = f'churn_monitor_checks_total{{result="{result}"}}'
    return exported().get(name, 0) - before.get(name, 0)


@pytest.fixture
def rotten(brink: Workspace) -> Workspace:
    """The same with a log of its own."""
    shutil.copytree(brink.events, brink.folder / "rotten")
    return replace(brink, events=brink.folder / "rotten")


@pytest.mark.parametrize("kind", ["predictions", "outcomes"])
def test_parts_of_other_days_are_not_read(rotten: Workspace, kind: events.Kind) -> None:
    log = Path(rotten.settings.events)
    (log / kind / "date=2026-02-20").mkdir()
    (log / kind / "date=2026-02-20" / "part.parquet").write_bytes(b"rotten")

    decision = rotten.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert rotten.checks()[-1]["damaged_parts"] == []


def test_columns_that_are_not_needed_are_not_read(rotten: Workspace) -> None:
    log = Path(rotten.settings.events)
    for part in (log / "predictions").rglob("*.parquet"):
        spoil(part, "latency_ms")

    decision = rotten.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert rotten.checks()[-1]["damaged_parts"] == []
    assert events.open_sink(log).read("predictions", columns=["latency_ms"]).num_rows == 0


@pytest.mark.reported
@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"], ids=["empty", "truncated", "foreign"])
@pytest.mark.parametrize("kind", ["predictions", "outcomes"])
def test_a_damaged_part_is_recorded_and_the_check_continues(rotten: Workspace, kind: events.Kind, content: bytes) -> None:
    # Predictions end on the day after, whose folder a check at one o'clock does not open.
    part = sorted(Path(rotten.settings.events).glob(f"{kind}/*/*.parquet"))[0 if kind == "predictions" else -1]
    bad = part.with_name("bad.parquet")
    bad.write_bytes(content)

    decision = rotten.check(ONE)

    assert decision
    assert decision.kind is Kind.RETRAIN
    assert rotten.checks()[-1]["damaged_parts"] == [str(bad)]
    assert exported()["churn_monitor_damaged_parts"] == 1


def report_too_early(workspace: Workspace) -> None:
    """Log an outcome that was observed before its prediction was made."""
    log = events.open_sink(workspace.events)
    prediction = log.read("predictions", since=NOON - HOUR, columns=["prediction_id", "time"]).to_pylist()[0]
    table = events.outcomes(
        [{"prediction_id": prediction["prediction_id"], LABEL: True, "observed_at": prediction["time"] - HOUR}],
        received_at=NOON,
    )
    log.write("outcomes", table, "early")


@pytest.mark.reported
def test_outcomes_before_their_prediction_are_refused_and_counted(rotten: Workspace) -> None:
    report_too_early(rotten)

    rotten.check(ONE)

    assert rotten.checks()[-1]["refused_outcomes"] == exported()["churn_monitor_refused_outcomes"] == 1


def test_a_refused_outcome_is_logged_once_however_many_checks_refuse_it(
    rotten: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    report_too_early(rotten)
    watcher = Watcher(rotten.settings)

    for at in (ONE, TWO, THREE):
        watcher.check(at)

    assert [each["refused_outcomes"] for each in rotten.checks()[-3:]] == [1, 1, 1]
    assert sum("outcomes: 1 are not used" in message for message in caplog.messages) == 1


@pytest.mark.reported
def test_a_retraining_shows_its_evidence_if_the_last_window_is_empty(
    story: Story, tmp_path: Path, webhook: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    # All have left the windows, and enough labels are final by then.
    workspace = with_webhook(story.learnable.copied(tmp_path, cooldown_s=0, retrain_timeout_s=1), webhook)
    evidence = workspace.checks()[-1]["evidence"]["short"]

    decision = workspace.check(FOUR + 8 * HOUR)

    assert decision
    assert decision.kind is Kind.RETRAIN
    record, started = workspace.checks()[-1], workspace.retrainings()[-1]
    body = json.loads(webhook.received[-1].content)["evidence"]
    assert record["windows"][0]["rows"] == 0
    assert "monthly_fee PSI" in evidence
    for shown in (
        decision.reason,
        record["reason"],
        started["reason"],
        body["reason"],
        json.loads(workspace.tags()["monitor"])["reason"],
    ):
        assert evidence in shown
        assert "rows" not in shown
    assert body["evidence"]["short"] == evidence
    assert any(evidence in message and "started" in message for message in caplog.messages)


def test_compaction_runs_once_a_day_and_does_not_change_decisions(rotten: Workspace) -> None:
    log, later = events.open_sink(rotten.events), NOON + 48 * HOUR
    rotten.predict(NOON, ONE, 10, version="2")
    before = log.read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()
    watcher = Watcher(rotten.settings)

    for _ in range(2):
        watcher.compact(later, lambda: False)

    assert sorted(log.read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()) == sorted(before)
    assert [part.is_compacted for part in log.reader.listing("predictions", NOON.date()).live] == [True]
    decision = rotten.check(ONE)
    assert decision
    assert decision.kind is Kind.RETRAIN


def test_a_failed_compaction_is_counted_and_does_not_fail_the_check(brink: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    Watcher(brink.but(events="s3://bucket/log").settings).compact(ONE, lambda: False)

    name = 'churn_monitor_compactions_total{result="failed"}'
    assert exported()[name] == before[name] + 1


def spoil(part: Path, column: str) -> None:
    """Fill the column's bytes with nonsense."""
    about, content = pq.read_metadata(part), bytearray(part.read_bytes())
    for group in range(about.num_row_groups):
        chunk = about.row_group(group).column(about.schema.names.index(column))
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    part.write_bytes(content)
