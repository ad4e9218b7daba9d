"""A release in a cluster: applied by digest, waited for, put back; one overlay, one cluster, and no autoscaler overruled."""

import json
import subprocess
from typing import Any

import pytest

from delivering import MANIFESTS, ROLLOUT, SERVE, Bench, items, workload


def test_the_overlay_is_applied_with_the_images_by_digest(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE)

    assert done.returncode == 0, done.stderr
    assert f"apply --kustomize {ROLLOUT}" in bench.calls("kubectl")
    kustomization = json.loads((bench.folder / ROLLOUT / "kustomization.yaml").read_text())
    assert (bench.folder / ROLLOUT / kustomization["resources"][0]).resolve() == bench.folder / "k8s/overlays/prod"
    name, digest = SERVE.split("@")
    assert kustomization["images"] == [{"name": "registry.example.com:5000/churn/churn-serve", "newName": name, "digest": digest}]


def test_an_image_that_the_overlay_does_not_have_is_refused_before_anything_is_applied(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE.replace("churn-serve", "churn-server"))

    assert done.returncode == 1
    assert "no image called churn-server" in done.stderr
    assert [call.split()[0] for call in bench.calls("kubectl")] == ["kustomize"]


DELETED = [f"delete job {name} --namespace=churn --ignore-not-found" for name in ("seed", "train")]


def test_jobs_are_deleted_before_the_apply_since_their_image_cannot_change(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    assert bench.calls("kubectl")[-4:-1] == [*DELETED, f"apply --kustomize {ROLLOUT}"]


@pytest.mark.reported
def test_the_training_of_the_release_is_started_from_its_cronjob(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    assert bench.calls("kubectl")[-1] == "create job train --from=cronjob/train --namespace=churn"


def test_a_training_that_the_overlay_starts_itself_is_not_started_twice(bench: Bench) -> None:
    with_job = MANIFESTS + "---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: train\n  namespace: churn\n"
    bench.answer("kubectl", {"get --kustomize": ("", 0), "kustomize k8s/overlays/prod": (with_job, 0)})

    bench.run("rollout", "deploy", "prod")

    assert not [call for call in bench.calls("kubectl") if call.startswith("create")]


def test_what_will_change_is_kept_before_anything_is_applied_and_without_what_the_server_wrote(bench: Bench) -> None:
    running = workload("Deployment", "api", uid="1", resourceVersion="7", labels={"a": "b"}) | {"status": {"replicas": 3}}
    bench.answer("kubectl", {"get --kustomize": items(running, workload("NetworkPolicy", "api"))})

    bench.run("rollout", "deploy", "prod")

    assert [call.split()[0] for call in bench.calls("kubectl")] == [
        *("kustomize", "config", "get", "delete", "delete", "apply", "create")
    ]
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
    *stopped, _, replaced, waited = bench.calls("kubectl")[-5:]
    assert stopped == DELETED
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


def test_a_service_of_kserve_is_up_when_its_deployment_has_rolled_the_releases_image_out(bench: Bench) -> None:
    service = workload("InferenceService", "churn") | {"spec": {"predictor": {"containers": [{"image": SERVE}]}}}
    bench.answer("kubectl", {"get --kustomize": items(service)})
    bench.run("rollout", "deploy", "prod")

    bench.run("rollout", "wait")

    of_kserve = "deployment --selector=serving.kserve.io/inferenceservice=churn --namespace=churn --timeout=900s"
    assert bench.calls("kubectl")[-3:] == [
        'wait --for=jsonpath={.status.conditions[?(@.type=="Ready")].status}=True inferenceservice/churn '
        "--namespace=churn --timeout=900s",
        f"wait --for=jsonpath={{.spec.template.spec.containers[0].image}}={SERVE} {of_kserve}",
        f"rollout status {of_kserve}",
    ]


def test_a_service_of_kserve_that_does_not_roll_out_fails_though_its_old_pods_are_ready(bench: Bench) -> None:
    service = workload("InferenceService", "churn") | {"spec": {"predictor": {"containers": [{"image": SERVE}]}}}
    bench.answer("kubectl", {"get --kustomize": items(service), "rollout status": ("", 1)})
    bench.run("rollout", "deploy", "prod")

    assert bench.run("rollout", "wait").returncode == 1


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
