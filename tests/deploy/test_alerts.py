"""Every alert fires at its threshold, has a runbook entry, and queries existing metrics only."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from monitoring.metrics import DECISIONS, RESULTS, STATES, WINDOWS
from ports import free_port
from prometheus_tools import daemon, exported, parsed, unknown
from requirements import need
from serving.requests import UNGUARDED

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring/prometheus"
ALERTMANAGER = ROOT / "monitoring/alertmanager/alertmanager.yml"
RUNBOOK = ROOT / "monitoring/runbook.md"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in rules() if "record" in rule}
CASES = [case for path in TESTS for case in yaml.safe_load(path.read_text())["tests"]]
HEADINGS = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)

every_alert = pytest.mark.parametrize("alert", ALERTS)


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration_and_every_rule() -> None:
    report = run(need("promtool"), "check", "config", str(PROMETHEUS / "prometheus.yml"))

    assert re.findall(r"SUCCESS: (\d+) rules found", report) == [str(len(ALERTS)), str(len(RECORDS))]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_fire_at_their_thresholds(path: Path) -> None:
    report = run(need("promtool"), "test", "rules", str(path))

    assert report.split() == ["Unit", "Testing:", str(path), "SUCCESS"]


@every_alert
def test_every_alert_is_tested_just_before_and_just_after_it_fires(alert: str) -> None:
    steps = [
        (before, after)
        for case in CASES
        for before, after in zip(case.get("alert_rule_test", []), case.get("alert_rule_test", [])[1:], strict=False)
        if before["alertname"] == after["alertname"] == alert and not before["exp_alerts"] and after["exp_alerts"]
    ]

    assert [after for before, after in steps if minutes(after) - minutes(before) == 1]


def minutes(evaluation: dict[str, Any]) -> int:
    return int(evaluation["eval_time"].removesuffix("m"))


@pytest.mark.parametrize("record", RECORDS)
def test_every_recording_rule_is_tested(record: str) -> None:
    expected = [each["expr"] for case in CASES for each in case.get("promql_expr_test", [])]

    assert any(record in [name for name, _ in parsed(query).metrics] for query in expected)


@every_alert
def test_every_alert_has_duration_severity_component_and_annotations(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["for"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["labels"]["component"] in {"api", "watcher"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


@every_alert
def test_the_runbook_url_of_an_alert_has_an_existing_heading(alert: str) -> None:
    path, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")

    assert (ROOT / path) == RUNBOOK
    assert anchor == alert.lower()
    assert HEADINGS.count(alert) == 1


def test_the_runbook_has_no_heading_without_an_alert() -> None:
    assert [heading for heading in HEADINGS if heading not in ALERTS] == []


def test_the_runbook_mentions_existing_alerts_only() -> None:
    named = set(re.findall(r"\bChurn[A-Z]\w+", RUNBOOK.read_text()))

    assert named - set(ALERTS) == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_query_exported_metrics_only(rule: dict[str, Any]) -> None:
    recorded = {record: parsed(RECORDS[record]["expr"]).grouped | {"job"} for record in RECORDS}

    assert unknown(rule["expr"], exported() | recorded) == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rule_labels_use_the_values_that_the_watcher_exports(rule: dict[str, Any]) -> None:
    values = {"window": WINDOWS, "state": STATES, "decision": DECISIONS, "result": ("done", *RESULTS)}

    matchers = [pair for _, matched in parsed(rule["expr"]).metrics for pair in matched.items()]

    assert [(label, value) for label, value in matchers if value not in values.get(label, (value,))] == []


def test_routes_excluded_from_objectives_are_those_never_shed() -> None:
    queries = [rule["expr"] for rule in RECORDS.values()]
    routes = [
        matched["route"] for query in queries for name, matched in parsed(query).metrics if name == "churn_http_requests_total"
    ]

    assert {frozenset(route.split("|")) for route in routes} == {UNGUARDED}


def test_amtool_accepts_the_configuration() -> None:
    report = run(need("amtool"), "check-config", str(ALERTMANAGER))

    receivers = yaml.safe_load(ALERTMANAGER.read_text())["receivers"]
    assert "SUCCESS" in report
    assert f"{len(receivers)} receivers" in report


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_an_alert_is_routed_to_the_receiver_of_its_severity(severity: str) -> None:
    printed = run(need("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")

    assert printed.split() == [severity]


def test_inhibition_rules_name_existing_alerts_only() -> None:
    named = set(re.findall(r"\bChurn\w+", ALERTMANAGER.read_text()))

    assert named - set(ALERTS) == set()


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[httpx2.Client]:
    address = f"127.0.0.1:{free_port()}"
    command = [
        need("alertmanager"),
        f"--config.file={ALERTMANAGER}",
        f"--storage.path={tmp_path}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (
        daemon(command, f"http://{address}", tmp_path / "alertmanager.log"),
        httpx2.Client(base_url=f"http://{address}/api/v2") as client,
    ):
        yield client


INHIBITED = [
    ("ChurnApiDown", "ChurnErrorsBurnFast", True),
    ("ChurnApiDown", "ChurnNoPredictions", True),
    ("ChurnApiDown", "ChurnRetrainFailed", False),
    ("ChurnWatcherDown", "ChurnWatcherSilent", True),
    ("ChurnWatcherDown", "ChurnErrorsBurnFast", False),
    ("ChurnNoModel", "ChurnErrorsBurnFast", True),
    ("ChurnNoModel", "ChurnPredictionsSlow", False),
    ("ChurnDataIncident", "ChurnDatasetDrifted", True),
    ("ChurnDataIncident", "ChurnFeatureDrifted", True),
    ("ChurnDataIncident", "ChurnPerformanceFell", False),
    ("ChurnErrorsBurn", "ChurnErrorsBurnSlowly", True),
    ("ChurnErrorsBurn", "ChurnPredictionsOftenSlow", False),
]


@pytest.mark.parametrize("source", dict.fromkeys(source for source, _, _ in INHIBITED))
def test_an_alert_inhibits_its_consequences_only(source: str, alertmanager: httpx2.Client) -> None:
    expected = {target: "suppressed" if hushed else "active" for each, target, hushed in INHIBITED if each == source}

    sent = [{"labels": {"alertname": name, **ALERTS[name]["labels"]}} for name in (source, *expected)]
    alertmanager.post("/alerts", json=sent).raise_for_status()

    assert settled(alertmanager, {source: "active", **expected}) == {source: "active", **expected}


def settled(alertmanager: httpx2.Client, expected: dict[str, str], seconds: float = 30) -> dict[str, str]:
    """The state of each alert, as soon as it is as expected: Alertmanager takes a moment to evaluate all of them."""
    end = time.monotonic() + seconds
    while True:
        found = {each["labels"]["alertname"]: each["status"]["state"] for each in alertmanager.get("/alerts").json()}
        if found == expected or time.monotonic() > end:
            return found
        time.sleep(0.05)
