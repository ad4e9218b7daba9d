"""A release in a cluster: `python3 -m ops.rollout deploy OVERLAY|wait|rollback`. It needs kubectl, nothing else.

`deploy` applies k8s/overlays/OVERLAY to the cluster of KUBECONFIG; with IMAGES (references by digest, spaces between them), those
images instead of the overlay's tags. The revisions of its Deployments are kept in .cache/release/SERVER/, and `rollback` returns
to them. Nothing is read or written but what the overlay names, and the Job of its training: another environment of the cluster
is another's.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ops.images import RELEASE, references, write
from ops.outside import Failed

WAIT_S = 900
REVISION = r"{.metadata.annotations.deployment\.kubernetes\.io/revision}"
KSERVE_IMAGE = "{.spec.predictor.containers[0].image}"
KSERVE_IS_READY = '{.status.conditions[?(@.type=="Ready")].status}=True'
"""Not `condition=Ready`: kubectl would wait for a generation that KServe counts by its Deployment."""
TRAINING = "train"
"""The suspended CronJob that starts the training of a release, and the Job that is started from it."""


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
    """Note the revisions that run, apply the overlay, and start the training of the release."""
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
    write(before(here), json.dumps(list(revisions(manifests))) + "\n")
    # A Job's template never changes: with another image it is another Job.
    delete_jobs(manifests)
    kubectl("apply", "--kustomize", str(here))
    for name, namespace in set(trainings(manifests)) - set(named(manifests, "Job")):
        kubectl("create", "job", name, f"--from=cronjob/{name}", f"--namespace={namespace}")


def wait() -> None:
    """Wait until every server of the last `deploy` to this cluster is as it was applied, or fail."""
    if not ((here := folder()) / "kustomization.yaml").exists():
        raise Failed(f"{here}: nothing was deployed from here; apply an overlay: make deploy OVERLAY=…")
    manifests = kubectl("kustomize", str(here), shown=False)
    for kind in ("Deployment", "StatefulSet"):
        for name, namespace in named(manifests, kind):
            kubectl("rollout", "status", f"{kind.lower()}/{name}", *bounds(namespace))
    for name, namespace in named(manifests, "InferenceService"):
        wait_for_kserve(name, namespace)


def rollback() -> None:
    """Put each Deployment back to what it ran before the last `deploy` to this cluster, and wait for it.

    Jobs of the release that still run are stopped. All else, as CronJobs and network policies, goes back by deploying the earlier
    commit.
    """
    here = folder()
    if not before(here).exists():
        raise Failed(f"{before(here)}: nothing was deployed from here")
    delete_jobs(kubectl("kustomize", str(here), shown=False))
    if not (kept := json.loads(before(here).read_text())):
        raise Failed("nothing ran before the last deploy: there is nothing to put back; its Jobs are stopped")
    for name, namespace, revision in kept:
        kubectl("rollout", "undo", f"deployment/{name}", f"--to-revision={revision}", f"--namespace={namespace}")
    for name, namespace, _ in kept:
        kubectl("rollout", "status", f"deployment/{name}", *bounds(namespace))


def bounds(namespace: str) -> tuple[str, str]:
    """Where to wait, and for how long: ROLLOUT_S (or WAIT_S) seconds at most."""
    return f"--namespace={namespace}", f"--timeout={os.environ.get('ROLLOUT_S') or WAIT_S}s"


def wait_for_kserve(name: str, namespace: str) -> None:
    """Wait until the Deployment that KServe has made of its service has rolled the image out.

    The service itself stays ready while pods of the last release are.
    """
    service, within = f"inferenceservice/{name}", bounds(namespace)
    image = kubectl("get", service, f"--namespace={namespace}", f"--output=jsonpath={KSERVE_IMAGE}", shown=False)
    theirs = ("deployment", f"--selector=serving.kserve.io/inferenceservice={name}")
    kubectl("wait", "--for=jsonpath=" + KSERVE_IS_READY, service, *within)
    kubectl("wait", f"--for=jsonpath={{.spec.template.spec.containers[0].image}}={image}", *theirs, *within)
    kubectl("rollout", "status", *theirs, *within)


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
    """The file with (name, namespace, revision) of each Deployment that the last release may have changed."""
    return here / "before.json"


def revisions(manifests: str) -> Iterator[tuple[str, str, str]]:
    """(name, namespace, revision) of each Deployment in what kustomize has written that the cluster has.

    `rollout undo` by itself goes one revision back, also where the release changed nothing.
    """
    for name, namespace in named(manifests, "Deployment"):
        words = (f"--namespace={namespace}", "--ignore-not-found", f"--output=jsonpath={REVISION}")
        if revision := kubectl("get", "deployment", name, *words, shown=False):
            yield name, namespace, revision


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
        Failed: it ended with an error, which it printed.
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
