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
SERVE = f"ghcr.io/someone/churn-serve@sha256:{'a' * 64}"
FAKE = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(__file__)
with here.with_suffix(".calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
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
            answers = {"kustomize k8s/overlays/prod": (MANIFESTS, 0), "get deployments,cronjobs": items()} | answers
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
    assert bench.calls("kubectl")[-1] == "apply --kustomize .cache/release"
    kustomization = json.loads((bench.folder / ".cache/release/kustomization.yaml").read_text())
    assert (bench.folder / ".cache/release" / kustomization["resources"][0]).resolve() == bench.folder / "k8s/overlays/prod"
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


def test_what_ran_is_kept_before_anything_is_applied_and_without_what_the_server_wrote(bench: Bench) -> None:
    running = workload("Deployment", "api", uid="1", resourceVersion="7", labels={"a": "b"}) | {"status": {"replicas": 3}}
    bench.answer("kubectl", {"get deployments,cronjobs": items(running)})

    bench.run("rollout", "deploy", "prod")

    assert [call.split()[0] for call in bench.calls("kubectl")] == ["kustomize", "get", "delete", "apply"]
    (kept,) = json.loads((bench.folder / ".cache/release/before.json").read_text())["items"]
    assert kept == workload("Deployment", "api", labels={"a": "b"})


def test_a_rollback_puts_back_what_ran_and_waits_for_it(bench: Bench) -> None:
    bench.answer(
        "kubectl",
        {
            "get deployments,cronjobs": items(workload("Deployment", "api"), workload("CronJob", "churn-retrain")),
            "get deployments,statefulsets": items(workload("Deployment", "api")),
        },
    )
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "rollback")

    assert done.returncode == 0, done.stderr
    replaced, _, waited = bench.calls("kubectl")[4:]
    assert replaced == "replace --filename .cache/release/before.json"
    assert waited.startswith("rollout status deployment/api --namespace=churn")


def test_a_rollback_of_the_first_release_says_that_there_is_nothing_to_put_back(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing to put back" in done.stderr
    assert bench.run("rollout", "rollback").stderr.count("\n") == 1


def test_a_rollout_that_does_not_come_up_fails(bench: Bench) -> None:
    found = items(workload("Deployment", "api"), workload("StatefulSet", "postgres"))
    bench.answer("kubectl", {"get deployments,statefulsets": found, "statefulset/postgres": ("", 1)})

    done = bench.run("rollout", "wait")

    assert done.returncode == 1
    assert [call.split()[2] for call in bench.calls("kubectl")[1:]] == ["deployment/api", "statefulset/postgres"]


def test_an_empty_cluster_is_no_rollout(bench: Bench) -> None:
    bench.answer("kubectl", {"get deployments,statefulsets": items()})

    assert bench.run("rollout", "wait").returncode == 1


def test_an_overlay_that_is_not_there_is_refused(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "staging")

    assert done.returncode == 1
    assert "k8s/overlays/staging" in done.stderr


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


def make(bench: Bench, verb: str, **variables: str) -> str:
    environment = {"PATH": f"{bench.programs}{os.pathsep}{os.environ['PATH']}", **variables}
    command = ["make", "--silent", "--no-print-directory", verb]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_evidence_is_shown_as_it_was_sent_and_run_by_nobody(bench: Bench) -> None:
    sent = {"reason": "$(touch made) `touch made` ${HOME}", "rows": 500}

    told = make(bench, "evidence", EVIDENCE=json.dumps(sent))

    assert json.loads(told.removeprefix("```json\n").removesuffix("```\n")) == sent
    assert not (ROOT / "made").exists()


def test_a_variable_that_is_set_to_nothing_is_not_set(bench: Bench) -> None:
    bench.answer("gh", {})
    (bench.programs / "gh").write_text("#!/bin/sh\nenv\n")

    told = make(bench, "has-run", CHURN_EVENTS="", AWS_REGION="", CHURN_SOURCE="rows.csv")

    names = {line.partition("=")[0] for line in told.splitlines()}
    assert "CHURN_SOURCE" in names
    assert not names & {"CHURN_EVENTS", "AWS_REGION"}
