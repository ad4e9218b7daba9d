"""The checks of a running cluster: the policy denies forged Jobs, and drift starts a Job."""

import json
import os
from contextlib import nullcontext
from typing import Any

import pytest

from delivering import Bench, items, workload
from ops import cluster
from ops.outside import Failed


class FakeApiServer:
    """An API server that refuses a Job with one of these words, by the policy or for a reason of its own."""

    def __init__(self, *refused: str, says: str = "ValidatingAdmissionPolicy 'churn-watcher-jobs' denied request") -> None:
        self.refused, self.says = refused, says

    def refusal(self, job: dict[str, Any]) -> str:
        return self.says if any(word in json.dumps(job) for word in self.refused) else ""


def job_of_the_template() -> dict[str, Any]:
    pod = {"containers": [{"command": ["churn"], "image": "churn-train:local"}], "volumes": []}
    template = {"metadata": {"labels": {"app.kubernetes.io/name": "retrain"}}, "spec": pod}
    return {"metadata": {"name": "retrain-v1-20260101t000000z"}, "spec": {"template": template}}


FORGED = ("by-hand", '"id"', "default", 'kubernetes.io/name": "api"', "evil", "secretName", "CHURN_SOURCE", "finalizers")


def admission(monkeypatch: pytest.MonkeyPatch, api_server: FakeApiServer) -> None:
    monkeypatch.setattr(cluster, "template", job_of_the_template)
    monkeypatch.setattr(cluster, "refusal", api_server.refusal)
    cluster.prove()


def test_the_check_passes_if_the_policy_denies_every_forged_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admission(monkeypatch, FakeApiServer(*FORGED))

    assert capsys.readouterr().out.count("ok  ") == 1 + len(FORGED)


@pytest.mark.parametrize("missed", FORGED)
def test_the_check_fails_if_the_policy_accepts_a_forged_job(monkeypatch: pytest.MonkeyPatch, missed: str) -> None:
    with pytest.raises(Failed, match="lets the watcher create a Job with a"):
        admission(monkeypatch, FakeApiServer(*(word for word in FORGED if word != missed)))


def test_the_check_fails_if_a_forged_job_is_denied_for_another_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="kubectl said 'connection refused'"):
        admission(monkeypatch, FakeApiServer(*FORGED, says="connection refused"))


def test_the_check_fails_if_the_policy_denies_the_templates_own_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="may not create the CronJob's own Job"):
        admission(monkeypatch, FakeApiServer("retrain-v1"))


@pytest.mark.reported
def test_the_check_restores_the_policy_binding_and_cronjob(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    monkeypatch.setattr(cluster, "UNBOUND_S", 0)
    monkeypatch.setattr(cluster, "template", job_of_the_template)
    found = {kind: workload(kind, name, uid="1") | {"status": {}} for kind, name in cluster.DELETED}
    answers = {f"get {kind} {name} ": (json.dumps(found[kind]), 0) for kind, name in cluster.DELETED}
    bench.answer("kubectl", {**answers, "--dry-run=server": ("", 0)})
    monkeypatch.setattr(cluster, "refusal", FakeApiServer("by-hand").refusal)

    cluster.recreate()

    calls = [call.split()[:3] for call in bench.calls("kubectl") if call.split()[0] != "get"]
    assert calls == [*(["delete", kind, name] for kind, name in cluster.DELETED), ["create", "--filename=-"]]
    created = json.loads((bench.programs / "kubectl.given").read_text())["items"]
    assert created == [workload(kind, name) for kind, name in cluster.DELETED]


@pytest.mark.reported
def test_intervals_are_shortened_in_the_config_map(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    monkeypatch.setattr(cluster, "wait", lambda: None)
    sources = [{"configMapRef": {"name": name}} for name in ("object-storage-bghm5dd5tm", "churn-49t7959hdt")]
    source = {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"envFrom": sources}]}}}}}}
    bench.answer("kubectl", {"get cronjob churn-retrain": (json.dumps(source), 0)})

    cluster.scale({"CHURN_INTERVAL_S": "15"})

    assert bench.calls("kubectl")[1:] == [
        'patch configmap churn-49t7959hdt --namespace=churn --patch={"data": {"CHURN_INTERVAL_S": "15"}}',
        "rollout restart deployment/api deployment/watcher --namespace=churn",
    ]


def test_only_jobs_with_the_watchers_name_count_as_started_by_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    by_the_clock, by_the_watcher = "churn-retrain-29000000", "retrain-v1-20261126t130000z"
    bench.answer("kubectl", {"get jobs": items(workload("Job", by_the_clock), workload("Job", by_the_watcher))})

    assert set(cluster.jobs()) == {by_the_watcher}


@pytest.mark.parametrize(("condition", "well"), [("Complete", True), ("Failed", False)])
def test_the_drift_check_passes_only_if_the_job_succeeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, condition: str, well: bool
) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    job = workload("Job", "retrain-v1-20261126t130000z")
    bench.answer("kubectl", {"get jobs": items(job | {"status": {"conditions": [{"type": condition, "status": "True"}]}})})

    with nullcontext() if well else pytest.raises(Failed, match="failed"):
        cluster.ended("retrain-v1-20261126t130000z")


def test_the_log_of_every_job_attempt_is_printed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    job = workload("Job", "retrain-v1-20261126t130000z")
    bench.answer("kubectl", {"get jobs": items(job | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})})

    cluster.ended("retrain-v1-20261126t130000z")

    (shown,) = [call for call in bench.calls("kubectl") if call.startswith("logs ")]
    assert "--selector=job-name=retrain-v1-20261126t130000z" in shown
