"""What proves a system in a cluster: the policy that refuses forgeries, the Job that drift has started."""

import json
import os
from contextlib import nullcontext
from typing import Any

import pytest

from delivering import Bench, items, workload
from ops import cluster
from ops.outside import Failed


class Judge:
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


def admission(monkeypatch: pytest.MonkeyPatch, judge: Judge) -> None:
    monkeypatch.setattr(cluster, "template", job_of_the_template)
    monkeypatch.setattr(cluster, "refusal", judge.refusal)
    cluster.prove()


def test_a_policy_that_refuses_every_forgery_is_proved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admission(monkeypatch, Judge(*FORGED))

    assert capsys.readouterr().out.count("ok  ") == 1 + len(FORGED)


@pytest.mark.parametrize("missed", FORGED)
def test_a_policy_that_lets_one_forgery_in_fails(monkeypatch: pytest.MonkeyPatch, missed: str) -> None:
    with pytest.raises(Failed, match="lets the watcher create a Job with a"):
        admission(monkeypatch, Judge(*(word for word in FORGED if word != missed)))


def test_a_forgery_that_is_refused_for_another_reason_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="kubectl said 'connection refused'"):
        admission(monkeypatch, Judge(*FORGED, says="connection refused"))


def test_a_policy_that_refuses_the_templates_own_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="may not create the CronJob's own Job"):
        admission(monkeypatch, Judge("retrain-v1"))


@pytest.mark.reported
def test_policy_binding_and_cronjob_are_deleted_and_created_again_as_they_were(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    monkeypatch.setattr(cluster, "UNBOUND_S", 0)
    monkeypatch.setattr(cluster, "template", job_of_the_template)
    found = {kind: workload(kind, name, uid="1") | {"status": {}} for kind, name in cluster.DELETED}
    answers = {f"get {kind} {name} ": (json.dumps(found[kind]), 0) for kind, name in cluster.DELETED}
    bench.answer("kubectl", {**answers, "--dry-run=server": ("", 0)})
    monkeypatch.setattr(cluster, "refusal", Judge("by-hand").refusal)

    cluster.recreate()

    calls = [call.split()[:3] for call in bench.calls("kubectl") if call.split()[0] != "get"]
    assert calls == [*(["delete", kind, name] for kind, name in cluster.DELETED), ["create", "--filename=-"]]
    created = json.loads((bench.programs / "kubectl.given").read_text())["items"]
    assert created == [workload(kind, name) for kind, name in cluster.DELETED]


@pytest.mark.reported
def test_time_is_scaled_in_the_config_map_since_the_policy_refuses_variables(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_only_jobs_that_a_watcher_has_started_count_as_its(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    by_the_clock, by_the_watcher = "churn-retrain-29000000", "retrain-v1-20261126t130000z"
    bench.answer("kubectl", {"get jobs": items(workload("Job", by_the_clock), workload("Job", by_the_watcher))})

    assert set(cluster.jobs()) == {by_the_watcher}


@pytest.mark.parametrize(("condition", "well"), [("Complete", True), ("Failed", False)])
def test_drift_is_proved_by_a_job_that_ends_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, condition: str, well: bool
) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    job = workload("Job", "retrain-v1-20261126t130000z")
    bench.answer("kubectl", {"get jobs": items(job | {"status": {"conditions": [{"type": condition, "status": "True"}]}})})

    with nullcontext() if well else pytest.raises(Failed, match="failed"):
        cluster.ended("retrain-v1-20261126t130000z")


def test_every_attempt_of_the_job_is_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.programs), prepend=os.pathsep)
    job = workload("Job", "retrain-v1-20261126t130000z")
    bench.answer("kubectl", {"get jobs": items(job | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})})

    cluster.ended("retrain-v1-20261126t130000z")

    (shown,) = [call for call in bench.calls("kubectl") if call.startswith("logs ")]
    assert "--selector=job-name=retrain-v1-20261126t130000z" in shown
