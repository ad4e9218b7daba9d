"""What CI and CD do beside the pipeline; programs in place of docker, cosign, kubectl and gh write down how they were called."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from compose.stack import Failed
from delivery import cluster
from delivery.report import POINTS, chart

ROOT = Path(__file__).parents[2]
MANIFESTS = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: api
  namespace: churn
spec:
  template:
    spec:
      containers:
      - image: registry.example.com:5000/churn/churn-serve:0.1.0
        name: api
---
apiVersion: batch/v1
kind: Job
metadata:
  name: train
  namespace: churn
"""
SERVER = "https://cluster.example:6443"
ROLLOUT = ".cache/release/cluster-example-6443"
SERVE = f"ghcr.io/someone/churn-serve@sha256:{'a' * 64}"
FAKE = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(__file__)
with here.with_suffix(".calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "--filename=-" in sys.argv:
    here.with_suffix(".given").write_text(sys.stdin.read())
if "--metadata-file" in sys.argv:
    digest = "sha256:" + ("%x" % (len(here.with_suffix(".calls").read_text().splitlines()) % 16)) * 64
    pathlib.Path(sys.argv[sys.argv.index("--metadata-file") + 1]).write_text(json.dumps({{"containerimage.digest": digest}}))
answers = json.loads(here.with_suffix(".answers").read_text())
found = next((answers[words] for words in answers if words in " ".join(sys.argv[1:])), ["", 0])
sys.stdout.write(found[0])
sys.exit(found[1])
"""


class Bench:
    """A project's folder with an overlay in it, and fake programs on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        for name in ("cosign", "docker", "gh"):
            self.answer(name, {})
        self.answer("kubectl", {})
        (folder / "k8s" / "overlays" / "prod").mkdir(parents=True)

    def answer(self, program: str, answers: dict[str, tuple[str, int]]) -> None:
        """What the program prints, and its exit code, where its words have those in them."""
        if program == "kubectl":
            # What a test says comes first: `get --kustomize …` has the words of `kustomize …` in it.
            answers = {"config view": (SERVER, 0), "get --kustomize": ("", 0)} | answers
            answers |= {f"kustomize {place}": (MANIFESTS, 0) for place in ("k8s/overlays/prod", ROLLOUT)}
        path = self.programs / program
        path.write_text(FAKE.format(python=sys.executable))
        path.chmod(0o755)
        path.with_suffix(".answers").write_text(json.dumps(answers))

    def calls(self, program: str) -> list[str]:
        path = (self.programs / program).with_suffix(".calls")
        return [" ".join(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, module: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(
            [sys.executable, "-m", f"delivery.{module}", *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def workload(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "churn", **metadata}, "spec": {}}


def items(*found: dict[str, Any]) -> tuple[str, int]:
    return json.dumps({"items": found}), 0


def test_every_image_is_pushed_with_its_provenance_and_its_bill_of_materials(bench: Bench) -> None:
    done = bench.run("images", "publish", REPOSITORY="ghcr.io/Someone", VERSION="v1.2.3", CHURN_GIT_SHA="abc")

    assert done.returncode == 0, done.stderr
    builds = [call for call in bench.calls("docker") if "buildx build" in call]
    assert len(builds) == 3
    for build in builds:
        assert {"--push", "--provenance=mode=max", "--sbom=true", "VERSION=1.2.3", "GIT_SHA=abc"} <= set(build.split())
    assert {build.split("--tag ")[1].split()[0] for build in builds} == {
        f"ghcr.io/someone/churn-{name}:v1.2.3" for name in ("serve", "train", "monitor")
    }


def test_what_was_published_is_told_by_digest_and_as_checksums(bench: Bench) -> None:
    bench.run("images", "publish", REPOSITORY="ghcr.io/someone", VERSION="v1.2.3")

    told = bench.run("images", "published").stdout

    references = told.removeprefix("images=").split()
    checksums = dict(line.split() for line in (bench.folder / ".cache/release/checksums").read_text().splitlines())
    assert told.count("\n") == 1
    assert len(references) == 3
    assert {f"{name}@sha256:{digest}" for digest, name in checksums.items()} == set(references)


def test_a_build_that_fails_is_not_published(bench: Bench) -> None:
    bench.answer("docker", {"Dockerfile.train": ("", 1)})

    done = bench.run("images", "publish", REPOSITORY="ghcr.io/someone", VERSION="v1")

    assert done.returncode == 1
    assert "Dockerfile.train" in done.stderr
    assert bench.run("images", "published").returncode == 1


def test_images_are_signed_by_digest(bench: Bench) -> None:
    bench.run("images", "sign", IMAGES=SERVE)

    assert bench.calls("cosign") == [f"sign --yes {SERVE}"]


def test_a_signature_counts_only_if_it_is_of_the_one_who_is_named(bench: Bench) -> None:
    signer = "https://github.com/someone/churn/.github/workflows/cd.yml@refs/tags/v1"

    done = bench.run("images", "verify", IMAGES=SERVE, SIGNER=signer)

    assert done.returncode == 0, done.stderr
    (call,) = bench.calls("cosign")
    assert f"--certificate-identity={signer} --certificate-oidc-issuer=https://token.actions.githubusercontent.com" in call
    assert bench.run("images", "verify", IMAGES=SERVE).returncode == 1


def test_an_image_that_is_not_signed_stops_the_release(bench: Bench) -> None:
    bench.answer("cosign", {"verify": ("", 1)})

    assert bench.run("images", "verify", IMAGES=SERVE, SIGNER="somebody").returncode == 1


@pytest.mark.parametrize(("module", "word"), [("images", ["sign"]), ("rollout", ["deploy", "prod"])])
def test_an_image_by_tag_is_neither_signed_nor_deployed(bench: Bench, module: str, word: list[str]) -> None:
    done = bench.run(module, *word, IMAGES="ghcr.io/someone/churn-serve:v1")

    assert done.returncode == 1
    assert "not by digest" in done.stderr
    assert not [call for call in bench.calls("kubectl") if call.startswith("apply")]


def test_the_overlay_is_applied_with_the_images_by_digest(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE)

    assert done.returncode == 0, done.stderr
    assert bench.calls("kubectl")[-1] == f"apply --kustomize {ROLLOUT}"
    kustomization = json.loads((bench.folder / ROLLOUT / "kustomization.yaml").read_text())
    assert (bench.folder / ROLLOUT / kustomization["resources"][0]).resolve() == bench.folder / "k8s/overlays/prod"
    name, digest = SERVE.split("@")
    assert kustomization["images"] == [{"name": "registry.example.com:5000/churn/churn-serve", "newName": name, "digest": digest}]


def test_an_image_that_the_overlay_does_not_have_is_refused_before_anything_is_applied(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE.replace("churn-serve", "churn-server"))

    assert done.returncode == 1
    assert "no image called churn-server" in done.stderr
    assert [call.split()[0] for call in bench.calls("kubectl")] == ["kustomize"]


def test_the_overlays_jobs_are_made_anew_since_their_image_cannot_change(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    assert [call for call in bench.calls("kubectl") if call.startswith("delete")] == [
        "delete job train --namespace=churn --ignore-not-found"
    ]


def test_what_will_change_is_kept_before_anything_is_applied_and_without_what_the_server_wrote(bench: Bench) -> None:
    running = workload("Deployment", "api", uid="1", resourceVersion="7", labels={"a": "b"}) | {"status": {"replicas": 3}}
    bench.answer("kubectl", {"get --kustomize": items(running, workload("NetworkPolicy", "api"))})

    bench.run("rollout", "deploy", "prod")

    assert [call.split()[0] for call in bench.calls("kubectl")] == ["kustomize", "config", "get", "delete", "apply"]
    deployment, policy = json.loads((bench.folder / ROLLOUT / "before.json").read_text())["items"]
    assert deployment == workload("Deployment", "api", labels={"a": "b"})
    assert policy["kind"] == "NetworkPolicy"


def test_a_secret_is_not_kept_nor_what_cannot_be_changed(bench: Bench) -> None:
    kinds = ("Secret", "Job", "PersistentVolumeClaim", "Namespace", "CronJob")
    bench.answer("kubectl", {"get --kustomize": items(*(workload(kind, "one") for kind in kinds))})

    bench.run("rollout", "deploy", "prod")

    kept = json.loads((bench.folder / ROLLOUT / "before.json").read_text())["items"]
    assert [each["kind"] for each in kept] == ["CronJob"]


def test_nothing_but_what_the_overlay_names_is_read(bench: Bench) -> None:
    bench.answer("kubectl", {"get --kustomize": items(workload("Deployment", "api"))})

    bench.run("rollout", "deploy", "prod")
    bench.run("rollout", "wait")

    read = {call for call in bench.calls("kubectl") if call.startswith("get")}
    assert read == {f"get --kustomize {ROLLOUT} --ignore-not-found --output=json"}


def deployment(image: str, replicas: int = 2) -> dict[str, Any]:
    return workload("Deployment", "api") | {"spec": {"replicas": replicas, "image": image}}


def released(bench: Bench, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> "subprocess.CompletedProcess[str]":
    """A release over what ran before, and its rollback."""
    bench.answer("kubectl", {"get --kustomize": items(*before)})
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", {"get --kustomize": items(*after)})
    return bench.run("rollout", "rollback")


def put_back(bench: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((bench.programs / "kubectl.given").read_text())["items"]
    return found


def test_a_rollback_stops_the_releases_jobs_puts_back_what_ran_and_waits_for_it(bench: Bench) -> None:
    job = workload("CronJob", "churn-retrain")

    done = released(bench, [deployment("old"), job], [deployment("new"), job])

    assert done.returncode == 0, done.stderr
    stopped, _, replaced, waited = bench.calls("kubectl")[-4:]
    assert stopped == "delete job train --namespace=churn --ignore-not-found"
    assert replaced == "replace --filename=-"
    assert put_back(bench) == [deployment("old")], "what is the same is not sent"
    assert waited.startswith("rollout status deployment/api --namespace=churn")


def test_a_rollback_leaves_the_number_that_an_autoscaler_has_set(bench: Bench) -> None:
    scaler = workload("HorizontalPodAutoscaler", "api") | {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "api"}}}

    released(bench, [deployment("old", 2), scaler], [deployment("new", 9), scaler])

    assert put_back(bench) == [deployment("old", 9)]


def test_a_rollback_puts_back_the_number_that_nobody_scales(bench: Bench) -> None:
    released(bench, [deployment("old", 2)], [deployment("new", 9)])

    assert put_back(bench) == [deployment("old", 2)]


def test_a_release_that_failed_before_anything_was_applied_leaves_nothing_to_put_back(bench: Bench) -> None:
    bench.answer("kubectl", {"get --kustomize": items(deployment("first"))})
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", {"get --kustomize": ("", 1)})
    assert bench.run("rollout", "deploy", "prod").returncode == 1

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr


def test_what_ran_in_one_cluster_is_not_put_into_another(bench: Bench) -> None:
    bench.answer("kubectl", {"get --kustomize": items(deployment("production"))})
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", {"config view": ("https://127.0.0.1:40001", 0)})

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr
    assert not (bench.programs / "kubectl.given").exists()


def test_without_a_cluster_nothing_is_deployed(bench: Bench) -> None:
    bench.answer("kubectl", {"config view": ("", 0)})

    done = bench.run("rollout", "deploy", "prod")

    assert done.returncode == 1
    assert "KUBECONFIG names no cluster" in done.stderr


def test_a_service_of_kserve_is_waited_for_by_its_own_word(bench: Bench) -> None:
    bench.answer("kubectl", {"get --kustomize": items(workload("InferenceService", "churn"))})
    bench.run("rollout", "deploy", "prod")

    bench.run("rollout", "wait")

    assert bench.calls("kubectl")[-1].startswith("wait --for=condition=Ready inferenceservice/churn --namespace=churn")


def test_a_rollback_of_the_first_release_says_that_there_is_nothing_to_put_back(bench: Bench) -> None:
    # An administrator may have made the rights before.
    bench.answer("kubectl", {"get --kustomize": items(workload("Role", "watcher"))})
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing to put back" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["wait", "rollback"])
def test_where_nothing_was_deployed_there_is_nothing_to_wait_for_or_to_put_back(bench: Bench, word: str) -> None:
    done = bench.run("rollout", word)

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr


def test_a_rollout_that_does_not_come_up_fails(bench: Bench) -> None:
    found = items(workload("Deployment", "api"), workload("StatefulSet", "postgres"), workload("Service", "api"))
    bench.answer("kubectl", {"get --kustomize": found, "statefulset/postgres": ("", 1)})
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "wait")

    assert done.returncode == 1
    waited = [call.split()[2] for call in bench.calls("kubectl") if call.startswith("rollout")]
    assert waited == ["deployment/api", "statefulset/postgres"]


def test_a_cluster_without_what_was_deployed_is_no_rollout(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "wait")

    assert done.returncode == 1
    assert "nothing of what was deployed is in this cluster" in done.stderr


def test_an_overlay_that_is_not_there_is_refused(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "staging")

    assert done.returncode == 1
    assert "k8s/overlays/staging" in done.stderr


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


def test_a_chart_draws_the_commits_line_where_it_differs() -> None:
    now, before = "x,y\n0,0\n1,1\n", "x,y\n0,0\n0.5,1\n1,1\n"

    both, same = (chart("ROC", "x", "y", now, other) for other in (before, now))

    assert both.count("    line [") == 2
    assert same.count("    line [") == 1
    assert same.count(",") == POINTS
    assert both.startswith("```mermaid\nxychart-beta\n")


def make(bench: Bench, verb: str, folder: Path = ROOT, **variables: str) -> str:
    environment = {"PATH": f"{bench.programs}{os.pathsep}{os.environ['PATH']}", **variables}
    command = ["make", "--silent", "--no-print-directory", verb]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_evidence_is_shown_as_it_was_sent_and_run_by_nobody(bench: Bench) -> None:
    sent = {"reason": "$(touch made) `touch made` ${HOME}", "rows": 500}

    told = make(bench, "evidence", EVIDENCE=json.dumps(sent))

    assert json.loads(told.removeprefix("```json\n").removesuffix("```\n")) == sent
    assert not (ROOT / "made").exists()


def test_a_report_from_elsewhere_is_what_the_reviewer_reads(bench: Bench) -> None:
    make(bench, "comment", PULL_REQUEST="7", REPORT="/elsewhere/report.md")

    assert bench.calls("gh") == ["pr comment 7 --body-file /elsewhere/report.md --edit-last --create-if-none"]


def test_what_is_proposed_from_elsewhere_is_what_the_makefile_names(bench: Bench, tmp_path: Path) -> None:
    origin, checkout, upgraded = (tmp_path / name for name in ("origin", "checkout", "upgraded"))
    names = ("uv.lock", "dvc.lock", "README.md", "metrics/train.json", "plots/roc.csv", "docs/benchmarks.md")
    for folder in (checkout, upgraded):
        for name in (*names, "reports/report.md"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(folder.name)
    (checkout / "Makefile").write_text((ROOT / "Makefile").read_text())
    (upgraded / "Makefile").write_text("propose:\n\ttouch stolen\n")
    git = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@localhost"]
    (checkout / ".gitignore").write_text("reports/\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *words], cwd=checkout, check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", checkout, origin], check=True)
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=checkout, check=True)

    make(bench, "propose", UPGRADED=str(upgraded), folder=checkout)

    shown = ["git", "diff", "--name-only", "HEAD", "freshness"]
    changed = subprocess.run(shown, cwd=origin, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(changed) == sorted(names)
    assert "--body-file reports/report.md" in bench.calls("gh")[-1]
    assert (checkout / "reports/report.md").read_text() == "upgraded"


def test_a_variable_that_is_set_to_nothing_is_not_set(bench: Bench) -> None:
    bench.answer("gh", {})
    (bench.programs / "gh").write_text("#!/bin/sh\nenv\n")

    told = make(bench, "has-run", CHURN_EVENTS="", AWS_REGION="", CHURN_SOURCE="rows.csv")

    names = {line.partition("=")[0] for line in told.splitlines()}
    assert "CHURN_SOURCE" in names
    assert not names & {"CHURN_EVENTS", "AWS_REGION"}
