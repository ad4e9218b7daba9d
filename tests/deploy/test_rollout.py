"""A release in a cluster: applied by digest, waited for, rolled back."""

import json

import pytest

from delivering import MANIFESTS, ROLLOUT, SERVE, Bench


def test_the_overlay_is_applied_with_the_images_by_digest(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE)

    assert done.returncode == 0, done.stderr
    assert f"apply --kustomize {ROLLOUT}" in bench.calls("kubectl")
    kustomization = json.loads((bench.folder / ROLLOUT / "kustomization.yaml").read_text())
    assert (bench.folder / ROLLOUT / kustomization["resources"][0]).resolve() == bench.folder / "k8s/overlays/prod"
    name, digest = SERVE.split("@")
    assert kustomization["images"] == [{"name": "registry.example.com:5000/churn/churn-serve", "newName": name, "digest": digest}]


def test_an_image_unknown_to_the_overlay_is_refused_before_the_apply(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "prod", IMAGES=SERVE.replace("churn-serve", "churn-server"))

    assert done.returncode == 1
    assert "no image called churn-server" in done.stderr
    assert [call.split()[0] for call in bench.calls("kubectl")] == ["kustomize"]


DELETED = [f"delete job {name} --namespace=churn --ignore-not-found" for name in ("seed", "train")]


def test_jobs_are_deleted_before_the_apply(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    assert bench.calls("kubectl")[-4:-1] == [*DELETED, f"apply --kustomize {ROLLOUT}"]


@pytest.mark.reported
def test_the_training_job_of_a_release_is_created_from_its_cronjob(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    assert bench.calls("kubectl")[-1] == "create job train --from=cronjob/train --namespace=churn"


def test_no_training_job_is_created_if_the_overlay_has_one(bench: Bench) -> None:
    with_job = MANIFESTS + "---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: train\n  namespace: churn\n"
    bench.answer("kubectl", {"kustomize k8s/overlays/prod": (with_job, 0)})

    bench.run("rollout", "deploy", "prod")

    assert not [call for call in bench.calls("kubectl") if call.startswith("create")]


def running(revision: int) -> dict[str, tuple[str, int]]:
    """What kubectl answers for a Deployment of that revision."""
    return {"get deployment api": (str(revision), 0)}


@pytest.mark.reported
def test_only_objects_of_the_overlay_are_read(bench: Bench) -> None:
    bench.answer("kubectl", running(4))

    bench.run("rollout", "deploy", "prod")
    bench.run("rollout", "wait")

    (read,) = {call for call in bench.calls("kubectl") if call.startswith("get")}
    assert read.startswith("get deployment api --namespace=churn --ignore-not-found")


def test_a_rollback_deletes_the_release_jobs_and_restores_the_revision(bench: Bench) -> None:
    bench.answer("kubectl", running(4))
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", running(5))

    done = bench.run("rollout", "rollback")

    assert done.returncode == 0, done.stderr
    *stopped, undone, waited = bench.calls("kubectl")[-4:]
    assert stopped == DELETED
    assert undone == "rollout undo deployment/api --to-revision=4 --namespace=churn"
    assert waited == "rollout status deployment/api --namespace=churn --timeout=900s"


def test_the_revision_is_read_before_the_apply(bench: Bench) -> None:
    bench.answer("kubectl", running(4))

    bench.run("rollout", "deploy", "prod")

    assert [call.split()[0] for call in bench.calls("kubectl")] == [
        *("kustomize", "config", "get", "delete", "delete", "apply", "create")
    ]


def test_a_rollback_after_a_failed_preparation_is_refused(bench: Bench) -> None:
    bench.answer("kubectl", running(4))
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", {"get deployment": ("", 1)})
    assert bench.run("rollout", "deploy", "prod").returncode == 1

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr


def test_a_rollback_in_another_cluster_is_refused(bench: Bench) -> None:
    bench.answer("kubectl", running(4))
    bench.run("rollout", "deploy", "prod")
    bench.answer("kubectl", {"config view": ("https://127.0.0.1:40001", 0)})

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr
    assert not [call for call in bench.calls("kubectl") if call.startswith("rollout undo")]


def test_a_deploy_without_a_cluster_is_refused(bench: Bench) -> None:
    bench.answer("kubectl", {"config view": ("", 0)})

    done = bench.run("rollout", "deploy", "prod")

    assert done.returncode == 1
    assert "KUBECONFIG names no cluster" in done.stderr


BY_KSERVE = MANIFESTS.replace("apps/v1", "serving.kserve.io/v1beta1").replace("kind: Deployment", "kind: InferenceService")


def by_kserve(bench: Bench, **answers: tuple[str, int]) -> None:
    overlays = {f"kustomize {place}": (BY_KSERVE, 0) for place in ("k8s/overlays/prod", ROLLOUT)}
    bench.answer("kubectl", {**overlays, "get inferenceservice/api": (SERVE, 0), **answers})


def test_a_kserve_service_is_up_when_its_deployment_runs_the_new_image(bench: Bench) -> None:
    by_kserve(bench)
    bench.run("rollout", "deploy", "prod")

    bench.run("rollout", "wait")

    of_kserve = "deployment --selector=serving.kserve.io/inferenceservice=api --namespace=churn --timeout=900s"
    assert bench.calls("kubectl")[-3:] == [
        'wait --for=jsonpath={.status.conditions[?(@.type=="Ready")].status}=True inferenceservice/api '
        "--namespace=churn --timeout=900s",
        f"wait --for=jsonpath={{.spec.template.spec.containers[0].image}}={SERVE} {of_kserve}",
        f"rollout status {of_kserve}",
    ]


def test_a_failed_kserve_rollout_fails_despite_ready_old_pods(bench: Bench) -> None:
    by_kserve(bench, **{"rollout status": ("", 1)})
    bench.run("rollout", "deploy", "prod")

    assert bench.run("rollout", "wait").returncode == 1


def test_a_rollback_of_the_first_release_is_refused(bench: Bench) -> None:
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "rollback")

    assert done.returncode == 1
    assert "nothing to put back" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["wait", "rollback"])
def test_wait_and_rollback_without_a_deploy_are_refused(bench: Bench, word: str) -> None:
    done = bench.run("rollout", word)

    assert done.returncode == 1
    assert "nothing was deployed from here" in done.stderr


def test_a_rollout_that_does_not_become_ready_fails(bench: Bench) -> None:
    with_store = MANIFESTS + "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: postgres\n  namespace: churn\n"
    bench.answer("kubectl", {f"kustomize {ROLLOUT}": (with_store, 0), "statefulset/postgres": ("", 1)})
    bench.run("rollout", "deploy", "prod")

    done = bench.run("rollout", "wait")

    assert done.returncode == 1
    waited = [call.split()[2] for call in bench.calls("kubectl") if call.startswith("rollout")]
    assert waited == ["deployment/api", "statefulset/postgres"]


def test_a_missing_overlay_is_refused(bench: Bench) -> None:
    done = bench.run("rollout", "deploy", "staging")

    assert done.returncode == 1
    assert "k8s/overlays/staging" in done.stderr
