"""A release in a cluster: `python3 -m delivery.rollout deploy OVERLAY|wait|rollback`. It needs kubectl, nothing else.

`deploy` applies k8s/overlays/OVERLAY to the cluster of KUBECONFIG; with IMAGES (references by digest, spaces between them), those
images instead of the overlay's tags. What it will change is kept in .cache/release/before.json, which `rollback` puts back.
Nothing is read or written but what the overlay names: another environment of the cluster is another's.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compose.stack import Failed
from delivery.images import RELEASE, references

KUSTOMIZATION = RELEASE / "kustomization.yaml"
BEFORE = RELEASE / "before.json"
WAIT_S = 900
OF_THE_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
STAYS = {"Job", "Namespace", "PersistentVolumeClaim", "Secret"}
"""What a rollback leaves alone: a Job and a claim never change, a namespace and a secret are not the release's."""
SERVERS = {"Deployment", "StatefulSet"}


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
    """Keep what the overlay will change, then apply it."""
    if not overlay.is_dir():
        raise Failed(f"{overlay}: no such folder; OVERLAY is one of k8s/overlays")
    RELEASE.mkdir(parents=True, exist_ok=True)
    manifests = kubectl("kustomize", str(overlay), shown=False)
    images = list(pinned(manifests)) if os.environ.get("IMAGES") else []
    kustomization = {"resources": [os.path.relpath(overlay, RELEASE)], "images": images}
    # JSON is YAML, and needs no package.
    KUSTOMIZATION.write_text(json.dumps(kustomization, indent=2) + "\n")
    kept = [each for each in live() if each["kind"] not in STAYS]
    BEFORE.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": kept}, indent=2) + "\n")
    # A Job's template never changes: with another image it is another Job.
    delete_jobs(manifests)
    kubectl("apply", "--kustomize", str(RELEASE))


def wait() -> None:
    """Wait until every Deployment and StatefulSet of the last `deploy` is as it was applied, or fail."""
    if not (servers := [each for each in live() if each["kind"] in SERVERS]):
        raise Failed("nothing of what was deployed is in this cluster; is KUBECONFIG that of `make deploy`?")
    wait_for(servers)


def rollback() -> None:
    """Put back what the last `deploy` from here has changed, and wait for it.

    What it has added stays, and waits for nobody. Its Jobs are stopped: a failed release promotes no version.
    """
    if not BEFORE.exists():
        raise Failed(f"{BEFORE}: nothing was deployed from here")
    delete_jobs(kubectl("kustomize", str(RELEASE), shown=False))
    if not (kept := json.loads(BEFORE.read_text())["items"]):
        raise Failed("nothing ran before the last deploy: there is nothing to put back; its Jobs are stopped")
    # Their ConfigMaps are there still: each has its content's hash in its name, and `apply` removes none.
    kubectl("replace", "--filename", str(BEFORE))
    wait_for([each for each in kept if each["kind"] in SERVERS])


def wait_for(servers: list[dict[str, Any]]) -> None:
    """Wait for each one's rollout, ROLLOUT_S (or WAIT_S) seconds at most."""
    seconds = os.environ.get("ROLLOUT_S") or str(WAIT_S)
    for each in servers:
        name = f"{each['kind'].lower()}/{each['metadata']['name']}"
        kubectl("rollout", "status", name, f"--namespace={each['metadata']['namespace']}", f"--timeout={seconds}s")


def live() -> list[dict[str, Any]]:
    """What the last `deploy` names, as the cluster has it and as it could be sent again: without what the server wrote into it.

    Raises:
        Failed: nothing was deployed from here.
    """
    if not KUSTOMIZATION.exists():
        raise Failed(f"{KUSTOMIZATION}: nothing was deployed from here; apply an overlay: make deploy OVERLAY=…")
    text = kubectl("get", "--kustomize", str(RELEASE), "--ignore-not-found", "--output=json", shown=False)
    # Of one object there is no list, of none no answer.
    found = json.loads(text) if text.strip() else {"items": []}
    items: list[dict[str, Any]] = found.get("items", [found])
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
    """Delete each Job in what kustomize has written, where there is one."""
    for name, namespace in jobs(manifests):
        kubectl("delete", "job", name, f"--namespace={namespace}", "--ignore-not-found")


def jobs(manifests: str) -> Iterator[tuple[str, str]]:
    """(name, namespace) of each Job in what kustomize has written."""
    for manifest in manifests.split("\n---\n"):
        if re.search(r"^kind: Job$", manifest, re.MULTILINE):
            name, namespace = (re.search(rf"^  {key}: (\S+)$", manifest, re.MULTILINE) for key in ("name", "namespace"))
            assert name
            yield name[1], namespace[1] if namespace else "default"


def kubectl(*words: str, shown: bool = True) -> str:
    """What kubectl prints.

    Raises:
        Failed: it ended with an error, which it told.
    """
    try:
        done = subprocess.run(["kubectl", *words], stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError:
        raise Failed("kubectl is not on the path; install it") from None
    if shown:
        print(done.stdout, end="", flush=True)
    if done.returncode:
        raise Failed(f"`kubectl {' '.join(words)}` ended with exit code {done.returncode}; its messages are above")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
