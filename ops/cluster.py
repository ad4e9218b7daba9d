"""Proves the system in the cluster of KUBECONFIG from outside: `python -m ops.cluster smoke|admission|drift`.

It needs kubectl. `admission` sends Jobs as the watcher's account, without creating one; then it deletes policy, binding and
CronJob, creates them again, and repeats. `drift` scales the watcher's time, plays months in which prices rise, and waits until
a Job that the watcher started has ended well.
"""

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from ops.outside import Failed, ask, example, print_done, run_command, status_of
from ops.rollout import kubectl, wait

NAMESPACE = "churn"
API = ("service/api", 8000)
PASSWORDS = "passwords"
"""The Secret that holds the keys of the API."""
CRONJOB = "churn-retrain"
SCALED = ("deployment/api", "deployment/watcher")
"""Read the ConfigMap with the scaled time again when they are restarted; Jobs read it anyway."""
CONFIG = re.compile(r"churn-[a-z0-9]{10}")
"""The ConfigMap that server, watcher and pipeline share: its name ends in a hash of its content."""
CUSTOMER = "7590-VHVEG"
MONTH_S = 30.0
"""Longer than the demonstration's: three pods and a Job share the machine with the cluster itself."""
MONTHS = 10
RETRAIN_S = 900
JOB = re.compile(r"retrain-v\d+-\d{8}t\d{6}z")
WATCHER = f"system:serviceaccount:{NAMESPACE}:watcher"
POLICY = "churn-watcher-jobs"
DELETED = (("validatingadmissionpolicybinding", POLICY), ("validatingadmissionpolicy", POLICY), ("cronjob", CRONJOB))
UNBOUND_S = 3.0
"""The API server reads its policies again once a second."""
EFFECTIVE_S = 30.0
FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another name": lambda job: job["metadata"].update(name="by-hand"),
    "another command": lambda job: pod(job)["containers"][0].update(command=["id"]),
    "another account": lambda job: pod(job).update(serviceAccountName="default"),
    "another label": lambda job: job["spec"]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "api"}),
    "another image": lambda job: pod(job)["containers"][0].update(image="example.com/evil:1"),
    "another volume": lambda job: pod(job)["volumes"].append({"name": "mine", "secret": {"secretName": "api"}}),
    "another variable": lambda job: pod(job)["containers"][0].update(env=[{"name": "CHURN_SOURCE", "value": "elsewhere"}]),
    "a finalizer": lambda job: job["metadata"].update(finalizers=["example.com/never"]),
}
"""What a Job of the watcher's account must not have → the change that adds it; test_manifests_admission.py has more."""


def main() -> int:
    """Prove it, or let it drift."""
    return run_command("cluster", {"smoke": smoke, "admission": admission, "drift": drift}, __doc__)


def smoke() -> None:
    """Prove that the API serves a version, inline and by id, and that the watcher can be read, a line each."""
    known = {"X-API-Key": api_key("API_KEY")}
    with forwarded(*API) as api:
        refused = status_of(f"{api}/model", {})
        if refused != 401:
            raise Failed(f"{api}/model answers {refused} without a key, not 401")
        print_done(f"version {ask(f'{api}/model', known)['model_version']} serves; without the key it is refused")
        by_id = ask(f"{api}/predict/by-id", known, {"customer_ids": [CUSTOMER]})["predictions"][0]
        print_done(f"by id: {by_id['customer_id']} leaves with probability {by_id['churn_probability']:.4f}")
        customer = example(ask(f"{api}/openapi.json", known))
        inline = ask(f"{api}/predict", known, {"customers": [customer]})["predictions"][0]
        print_done(f"inline: probability {inline['churn_probability']:.4f}, {inline['risk']} risk")
    with forwarded("service/watcher", 8001) as watcher:
        if status_of(f"{watcher}/metrics", {}) != 200:
            raise Failed(f"{watcher}/metrics: the watcher does not answer")
    print_done("the watcher is running")


def drift() -> None:
    """Play months until the watcher has started a Job, and wait for its end."""
    from demo.__main__ import CUSTOMERS, DRIFT_MONTH, SEED, scaled
    from demo.company import Company
    from demo.reality import Scenario
    from demo.world import World

    scale(scaled(MONTH_S))
    before = jobs()
    with forwarded(*API) as api:
        world = World(CUSTOMERS, SEED, Scenario.PRICE_RISE, DRIFT_MONTH)
        company = Company(api, world, key=api_key("API_KEY"), outcomes_key=api_key("OUTCOMES_KEY"))
        for _ in range(MONTHS):
            month = company.play()
            print(f"month {month.number}: {len(month.left)} customers scored by version {', '.join(month.versions)}", flush=True)
            time.sleep(MONTH_S)
            company.tell(month)
            if started := jobs().keys() - before.keys():
                return ended(min(started))
    raise Failed(f"{MONTHS} months of risen prices, and the watcher has started no Job; read its log: make kind-logs")


def scale(variables: dict[str, str]) -> None:
    """Set the variables for server, watcher and retrainings, and wait until the servers have them.

    In their ConfigMap: the admission policy refuses Jobs with variables of their own.
    """
    sources = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    (name,) = [source["configMapRef"]["name"] for source in sources if CONFIG.fullmatch(source["configMapRef"]["name"])]
    kubectl("patch", "configmap", name, f"--namespace={NAMESPACE}", f"--patch={json.dumps({'data': variables})}")
    kubectl("rollout", "restart", *SCALED, f"--namespace={NAMESPACE}")
    wait()


def ended(name: str) -> None:
    """Wait for the Job's end.

    Raises:
        Failed: it failed, or took longer than RETRAIN_S.
    """
    print(f"the watcher started {name}", flush=True)
    end = time.monotonic() + RETRAIN_S
    while not (conditions := jobs()[name] & {"Complete", "Failed"}):
        if time.monotonic() > end:
            raise Failed(f"job/{name} has not ended within {RETRAIN_S} s")
        time.sleep(5)
    # Of `job/…`, kubectl would show one attempt, whichever.
    kubectl("logs", f"--selector=job-name={name}", f"--namespace={NAMESPACE}", "--prefix", "--tail=20")
    if "Failed" in conditions:
        raise Failed(f"job/{name} failed; its log is above")
    print(f"ok  {name} has ended well", flush=True)


def admission() -> None:
    """Prove what the watcher's account may create, before and after everything was deleted and created again.

    Raises:
        Failed: a retraining is refused, or a Job that is none is accepted.
    """
    prove()
    recreate()
    prove()


def prove() -> None:
    """Prove that the watcher's account may create the CronJob's own Job and none that differs; nothing is created."""
    job = template()
    if said := refusal(job):
        raise Failed(f"the watcher may not create the CronJob's own Job: {said}")
    print_done("the watcher may create the CronJob's own Job")
    for what, forge in FORGERIES.items():
        if POLICY not in (said := refusal(forged(job, forge))):
            raise Failed(f"the policy {POLICY} lets the watcher create a Job with {what}; kubectl said {said!r}")
        print_done(f"with {what} it is refused")


def recreate() -> None:
    """Delete the policy, its binding and the CronJob, create them as they were, and wait until the policy is in effect.

    Raises:
        Failed: it is not within EFFECTIVE_S.
    """
    kept = [
        json.loads(kubectl("get", kind, name, f"--namespace={NAMESPACE}", "--output=json", shown=False)) for kind, name in DELETED
    ]
    for each in kept:
        each.pop("status", None)
        for name in ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"):
            each["metadata"].pop(name, None)
    for kind, name in DELETED:
        kubectl("delete", kind, name, f"--namespace={NAMESPACE}")
    time.sleep(UNBOUND_S)
    kubectl("create", "--filename=-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": kept}))
    job, end = forged(template(), FORGERIES["another name"]), time.monotonic() + EFFECTIVE_S
    while POLICY not in refusal(job):
        if time.monotonic() > end:
            raise Failed(f"the policy {POLICY} is not in effect within {EFFECTIVE_S:g} s after it was created again")
        time.sleep(1)
    print_done("policy, binding and CronJob are deleted and created again")


def forged(job: dict[str, Any], forge: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """A changed copy of the Job."""
    copied = deepcopy(job)
    forge(copied)
    return copied


def cronjob() -> dict[str, Any]:
    """The CronJob of retrainings, as it is in the cluster."""
    found: dict[str, Any] = json.loads(
        kubectl("get", "cronjob", CRONJOB, f"--namespace={NAMESPACE}", "--output=json", shown=False)
    )
    return found


def template() -> dict[str, Any]:
    """The Job that the watcher would create."""
    source = cronjob()
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
    owner |= {name: source["metadata"][name] for name in ("name", "uid")}
    about = {"name": "retrain-v1-20260101t000000z", "namespace": NAMESPACE, "ownerReferences": [owner]}
    spec = source["spec"]["jobTemplate"]["spec"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def pod(job: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Job."""
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def refusal(job: dict[str, Any]) -> str:
    """Why the watcher's account may not create the Job; empty if it may. It is not created."""
    command = ["kubectl", "create", "--dry-run=server", f"--as={WATCHER}", "--filename=-"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def jobs() -> dict[str, set[str]]:
    """Name → the conditions that are true, of every Job that a watcher has started."""
    found = json.loads(kubectl("get", "jobs", f"--namespace={NAMESPACE}", "--output=json", shown=False))["items"]
    return {each["metadata"]["name"]: conditions(each) for each in found if JOB.fullmatch(each["metadata"]["name"])}


def conditions(job: dict[str, Any]) -> set[str]:
    """The types of a Job's conditions that are true."""
    return {each["type"] for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"}


def api_key(name: str) -> str:
    """The key of the API of that name: API_KEY, OUTCOMES_KEY or ADMIN_KEY."""
    words = ("get", "secret", PASSWORDS, f"--namespace={NAMESPACE}", f"--output=jsonpath={{.data.{name}}}")
    return base64.b64decode(kubectl(*words, shown=False)).decode().strip()


@contextmanager
def forwarded(target: str, port: int) -> Iterator[str]:
    """The URL of a port of the cluster on this machine, while the block runs.

    Raises:
        Failed: kubectl could not forward it.
    """
    command = ["kubectl", "port-forward", target, f":{port}", f"--namespace={NAMESPACE}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            if not (found := re.search(r"127\.0\.0\.1:\d+", first)):
                raise Failed(f"`{' '.join(command)}` said {first.strip()!r}; its messages are above")
            yield f"http://{found[0]}"
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
