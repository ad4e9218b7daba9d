"""A release in a cluster: `python3 -m ops.rollout deploy OVERLAY|wait|rollback`. It needs kubectl, nothing else.

`deploy` applies k8s/overlays/OVERLAY to the cluster of KUBECONFIG; with IMAGES (references by digest, spaces between them), those
images instead of the overlay's tags. What it will change is kept in .cache/release/SERVER/, and `rollback` puts it back.
Nothing is read or written but what the overlay names, and the Job of its training: another environment of the cluster is
another's.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ops.images import RELEASE, references, write
from ops.outside import Failed

WAIT_S = 900
OF_THE_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
STAYS = {"Job", "Namespace", "PersistentVolumeClaim", "Secret"}
"""What a rollback leaves alone: a Job and a claim never change, a namespace and a secret are not the release's."""
SERVERS = {"Deployment", "StatefulSet", "InferenceService"}
KSERVE_IS_READY = '{.status.conditions[?(@.type=="Ready")].status}=True'
"""Not `condition=Ready`: kubectl would wait for a generation that KServe counts by its Deployment."""
TRAINING = "train"
"""The suspended CronJob that starts the training of a release, and the Job that is started from it."""
Found = dict[str, Any]
"""An object of the cluster."""


def main() -> int:
    """Run the command; what fails is one line and exit code 1."""
    try:
        match sys.argv[1:]:
            case ["deploy", overlay]:
                deploy(Path("k8s/overlays") / overlay)
            case ["wait"]:
                wait()
            case ["rollback"]:
                rollback()
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Failed as error:
        print(f"rollout: {error}", file=sys.stderr)
        return 1
    return 0


def deploy(overlay: Path) -> None:
    """Keep what the overlay will change, apply it, and start the training of the release."""
    if not overlay.is_dir():
        raise Failed(f"{overlay}: no such folder; OVERLAY is one of k8s/overlays")
    manifests = kubectl("kustomize", str(overlay), shown=False)
    images = list(pinned(manifests)) if os.environ.get("IMAGES") else []
    here = folder()
    here.mkdir(parents=True, exist_ok=True)
    # Of the release before this one, whatever happens from here on.
    before(here).unlink(missing_ok=True)
    kustomization = {"resources": [os.path.relpath(overlay, here)], "images": images}
    # JSON is YAML, and needs no package.
    write(here / "kustomization.yaml", json.dumps(kustomization, indent=2) + "\n")
    kept = [each for each in live(here) if each["kind"] not in STAYS]
    write(before(here), listed(kept))
    # A Job's template never changes: with another image it is another Job.
    delete_jobs(manifests)
    kubectl("apply", "--kustomize", str(here))
    for name, namespace in set(trainings(manifests)) - set(named(manifests, "Job")):
        kubectl("create", "job", name, f"--from=cronjob/{name}", f"--namespace={namespace}")


def wait() -> None:
    """Wait until every server of the last `deploy` to this cluster is as it was applied, or fail."""
    if not (servers := [each for each in live(folder()) if each["kind"] in SERVERS]):
        raise Failed("nothing of what was deployed is in this cluster; deploy it again: make deploy OVERLAY=…")
    wait_for(servers)


def rollback() -> None:
    """Put back what the last `deploy` to this cluster has changed, and wait for it.

    Jobs of the release that still run are stopped, and a number that an autoscaler has set is left. What the release has added
    stays, and nobody waits for it.
    """
    here = folder()
    if not before(here).exists():
        raise Failed(f"{before(here)}: nothing was deployed from here")
    delete_jobs(kubectl("kustomize", str(here), shown=False))
    kept: list[Found] = json.loads(before(here).read_text())["items"]
    if not any(each["kind"] in SERVERS for each in kept):
        raise Failed("nothing ran before the last deploy: there is nothing to put back; its Jobs are stopped")
    now = live(here)
    leave_numbers(kept, now)
    # What is the same is not sent: whoever deploys need not be allowed to write all of it.
    if changed := [each for each in kept if each not in now]:
        # Their ConfigMaps are there still: each has its content's hash in its name, and `apply` removes none. That of the
        # dashboards has no hash, and is among what has changed.
        kubectl("replace", "--filename=-", given=listed(changed))
    wait_for([each for each in kept if each["kind"] in SERVERS])


def wait_for(servers: list[Found]) -> None:
    """Wait for each one's rollout, ROLLOUT_S (or WAIT_S) seconds at most."""
    seconds = os.environ.get("ROLLOUT_S") or str(WAIT_S)
    for each in servers:
        name, bounds = each["metadata"]["name"], (f"--namespace={each['metadata']['namespace']}", f"--timeout={seconds}s")
        if each["kind"] == "InferenceService":
            wait_for_kserve(name, each["spec"]["predictor"]["containers"][0]["image"], bounds)
        else:
            kubectl("rollout", "status", f"{each['kind'].lower()}/{name}", *bounds)


def wait_for_kserve(name: str, image: str, bounds: tuple[str, ...]) -> None:
    """Wait until the Deployment that KServe has made of its service has rolled the image out.

    The service itself stays ready while pods of the last release are.
    """
    theirs = ("deployment", f"--selector=serving.kserve.io/inferenceservice={name}")
    kubectl("wait", "--for=jsonpath=" + KSERVE_IS_READY, f"inferenceservice/{name}", *bounds)
    kubectl("wait", f"--for=jsonpath={{.spec.template.spec.containers[0].image}}={image}", *theirs, *bounds)
    kubectl("rollout", "status", *theirs, *bounds)


def leave_numbers(kept: list[Found], now: list[Found]) -> None:
    """Give what an autoscaler scales its number of now: with that of then, pods would go while they are needed."""
    scaled = {scales(each) for each in now if each["kind"] == "HorizontalPodAutoscaler"}
    numbers = {identity(each): each["spec"]["replicas"] for each in now if identity(each) in scaled}
    for each in kept:
        if identity(each) in numbers:
            each["spec"]["replicas"] = numbers[identity(each)]


def identity(found: Found) -> tuple[str, str, str]:
    """(kind, namespace, name); no namespace for what is the cluster's."""
    return found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]


def scales(autoscaler: Found) -> tuple[str, str, str]:
    """The identity of what it scales."""
    target = autoscaler["spec"]["scaleTargetRef"]
    return target["kind"], autoscaler["metadata"]["namespace"], target["name"]


def folder() -> Path:
    """Where the releases to this cluster are kept, by its address: what ran in one is never put into another.

    Raises:
        Failed: there is no cluster.
    """
    server = kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}", shown=False)
    if not server:
        raise Failed("KUBECONFIG names no cluster; set it to the file of the one that is meant")
    return RELEASE / re.sub(r"\W+", "-", server.partition("//")[2]).strip("-")


def before(here: Path) -> Path:
    """The file of what the last release has changed."""
    return here / "before.json"


def listed(items: list[Found]) -> str:
    """Objects as a file that kubectl reads."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def live(here: Path) -> list[Found]:
    """What the last `deploy` names, as the cluster has it and as it could be sent again: without what the server wrote into it.

    Raises:
        Failed: nothing was deployed from here.
    """
    if not (here / "kustomization.yaml").exists():
        raise Failed(f"{here}: nothing was deployed from here; apply an overlay: make deploy OVERLAY=…")
    text = kubectl("get", "--kustomize", str(here), "--ignore-not-found", "--output=json", shown=False)
    # Of one object there is no list, of none no answer.
    found = json.loads(text) if text.strip() else {"items": []}
    items: list[Found] = found.get("items", [found])
    for each in items:
        each.pop("status", None)
        for name in OF_THE_SERVER:
            each["metadata"].pop(name, None)
    return items


def pinned(manifests: str) -> Iterator[dict[str, str]]:
    """IMAGES as kustomize wants them: the name that the manifests have, where the image is, and its digest.

    Raises:
        Failed: the manifests have no image of that name, whatever registry they name.
    """
    known = {image.split("@")[0] for image in re.findall(r"^ +(?:- )?image: (\S+)$", manifests, re.MULTILINE)}
    names = {re.sub(r":[^:/]+$", "", image) for image in known}
    for reference in references():
        place, digest = reference.split("@")
        called = place.rpartition("/")[2]
        if not (found := sorted(name for name in names if name.rpartition("/")[2] == called)):
            raise Failed(f"{reference}: the overlay has no image called {called}; it has {', '.join(sorted(names))}")
        yield from ({"name": name, "newName": place, "digest": digest} for name in found)


def delete_jobs(manifests: str) -> None:
    """Delete each Job in what kustomize has written, and the training of the release, where there is one."""
    for name, namespace in sorted({*named(manifests, "Job"), *trainings(manifests)}):
        kubectl("delete", "job", name, f"--namespace={namespace}", "--ignore-not-found")


def trainings(manifests: str) -> list[tuple[str, str]]:
    """(name, namespace) of the Job that trains with a release, if what kustomize has written has its CronJob."""
    return [(name, namespace) for name, namespace in named(manifests, "CronJob") if name == TRAINING]


def named(manifests: str, kind: str) -> Iterator[tuple[str, str]]:
    """(name, namespace) of each object of the kind in what kustomize has written."""
    for manifest in manifests.split("\n---\n"):
        if re.search(rf"^kind: {kind}$", manifest, re.MULTILINE):
            name, namespace = (re.search(rf"^  {key}: (\S+)$", manifest, re.MULTILINE) for key in ("name", "namespace"))
            assert name
            yield name[1], namespace[1] if namespace else "default"


def kubectl(*words: str, shown: bool = True, given: str | None = None) -> str:
    """What kubectl prints; `given` is its standard input.

    Raises:
        Failed: it ended with an error, which it told.
    """
    try:
        done = subprocess.run(["kubectl", *words], input=given, stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError:
        raise Failed("kubectl is not on the path; install it") from None
    if shown:
        print(done.stdout, end="", flush=True)
    if done.returncode:
        raise Failed(f"`kubectl {' '.join(words)}` ended with exit code {done.returncode}; its messages are above")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
