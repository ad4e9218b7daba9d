"""What proves a system in a cluster: the policy that refuses forgeries, the Job that drift has started."""

import json
import os
from contextlib import nullcontext
from typing import Any

import pytest

from compose.outside import Failed
from delivering import Bench, items, workload
from delivery import cluster


class Judge:
    """An API server that refuses a Job with what is named, as the policy or for a reason of its own."""

    def __init__(self, *refused: str, says: str = "ValidatingAdmissionPolicy 'churn-watcher-jobs' denied request") -> None:
        self.refused, self.says = refused, says

    def refusal(self, job: dict[str, Any]) -> str:
        return self.says if any(word in json.dumps(job) for word in self.refused) else ""


def job_of_the_template() -> dict[str, Any]:
    template = {"metadata": {"labels": {"app.kubernetes.io/name": "retrain"}}, "spec": {"containers": [{"command": ["churn"]}]}}
    return {"metadata": {"name": "retrain-v1-20260101t000000z"}, "spec": {"template": template}}


FORGED = ("by-hand", '"id"', "default", '"api"')


def admission(monkeypatch: pytest.MonkeyPatch, judge: Judge) -> None:
    monkeypatch.setattr(cluster, "template", job_of_the_template)
    monkeypatch.setattr(cluster, "refusal", judge.refusal)
    cluster.admission()


def test_a_policy_that_refuses_every_forgery_is_proved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admission(monkeypatch, Judge(*FORGED))

    assert capsys.readouterr().out.count("ok  ") == 1 + len(FORGED)


@pytest.mark.parametrize("missed", FORGED)
def test_a_policy_that_lets_one_forgery_in_fails(monkeypatch: pytest.MonkeyPatch, missed: str) -> None:
    with pytest.raises(Failed, match="lets the watcher create a Job with another"):
        admission(monkeypatch, Judge(*(word for word in FORGED if word != missed)))


def test_a_forgery_that_is_refused_for_another_reason_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="kubectl said 'connection refused'"):
        admission(monkeypatch, Judge(*FORGED, says="connection refused"))


def test_a_policy_that_refuses_the_templates_own_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="may not create the CronJob's own Job"):
        admission(monkeypatch, Judge("retrain-v1"))


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
