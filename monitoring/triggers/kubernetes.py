"""A retraining as a Job of Kubernetes, made from a CronJob as `kubectl create job --from` does.

The pod's role needs four verbs: get on cronjobs; create, get and list on jobs.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from churn.errors import MonitorError
from monitoring.triggers.command import Status
from monitoring.web import Answer, ask

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its namespace, and the certificate of the API server's authority."""
EVIDENCE_BYTES = 4096
"""All annotations of an object together may have 256 KiB."""


def in_pod(cronjob: str, namespace: str, *, account: Path = SERVICE_ACCOUNT) -> "Kubernetes":
    """The API server that this pod belongs to; an empty namespace is the pod's own.

    Raises:
        MonitorError: this is no pod, or it has no service account.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise MonitorError(
            "environment: CHURN_TRIGGER = 'kubernetes' and KUBERNETES_SERVICE_HOST is not set; run the watcher in a pod, "
            "or choose another trigger"
        )
    return Kubernetes(
        f"https://{f'[{host}]' if ':' in host else host}:{port}", cronjob, namespace or _read(account / "namespace"), account
    )


@dataclass(frozen=True)
class Kubernetes:
    """Makes Jobs of the CronJob in the namespace; `account` is a folder with `token` and `ca.crt`."""

    url: str
    cronjob: str
    namespace: str
    account: Path

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Create the Job, unless another one of the CronJob is at work, as its `concurrencyPolicy: Forbid` has it.

        That its name is taken is the lock: of any number of attempts one succeeds.
        """
        found = self._ask("GET", f"cronjobs/{self.cronjob}")
        if found.status != 200:
            raise MonitorError(
                f"{found}; check CHURN_TRIGGER_CRONJOB, CHURN_TRIGGER_NAMESPACE and the role of the service account"
            )
        cronjob = found.json()
        at_work = self._at_work(cronjob["metadata"]["uid"])
        if at_work and name not in at_work:
            raise MonitorError(f"the Job {at_work[0]} of the CronJob {self.cronjob} is at work; the next check tries again")
        made = self._ask("POST", "jobs", job(cronjob, name, evidence))
        if made.status == 409 and made.json().get("reason") == "AlreadyExists":  # a quota's conflict is a 409 too
            log.info("Job %s was made before", name)
        elif made.status in (200, 201, 202):
            log.info("Job %s is made from the CronJob %s in %s", name, self.cronjob, self.namespace)
        else:
            raise MonitorError(f"{made}; check the role of the service account and the CronJob's template")

    def status(self, name: str) -> Status:
        """How the Job stands; `unknown` also after it was deleted, as the CronJob's history limits do."""
        found = self._ask("GET", f"jobs/{name}")
        if found.status == 404:
            return "unknown"
        if found.status != 200:
            raise MonitorError(f"{found}; check the role of the service account")
        return _standing(found.json())

    def _at_work(self, owner: str) -> list[str]:
        """The names of the Jobs that belong to the CronJob with that uid and have not ended."""
        found = self._ask("GET", "jobs")
        if found.status != 200:
            raise MonitorError(f"{found}; check the role of the service account")
        return [
            each["metadata"]["name"]
            for each in found.json()["items"]
            if owner in [one["uid"] for one in each["metadata"].get("ownerReferences", [])] and _standing(each) == "running"
        ]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return ask(
            method,
            f"{self.url}/apis/batch/v1/namespaces/{self.namespace}/{path}",
            body,
            token=_read(self.account / "token"),  # each time: it is renewed every hour
            authority=str(self.account / "ca.crt"),
        )


def _standing(job: dict[str, Any]) -> Status:
    met = {each["type"] for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"}
    if "Failed" in met:
        return "failed"
    return "succeeded" if "Complete" in met else "running"


def job(cronjob: dict[str, Any], name: str, evidence: dict[str, Any]) -> dict[str, Any]:
    """The Job of that name from the CronJob's template, with the evidence as an annotation.

    Source: kubernetes/kubectl, pkg/cmd/create/create_job.go. The owner does not block deletion, which would need another verb.
    """
    template = cronjob["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
    owner |= {key: cronjob["metadata"][key] for key in ("name", "uid")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": metadata.get("labels") or {},
            "annotations": {
                **(metadata.get("annotations") or {}),
                "cronjob.kubernetes.io/instantiate": "manual",
                "churn/evidence": _short(evidence),
            },
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def _short(evidence: dict[str, Any]) -> str:
    """The evidence as JSON of at most `EVIDENCE_BYTES`: without the values that do not fit any more."""
    kept: dict[str, Any] = {}
    for key, value in evidence.items():
        if len(json.dumps({**kept, key: value}, allow_nan=False)) <= EVIDENCE_BYTES:
            kept[key] = value
    return json.dumps(kept)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror}; give the pod a service account that is mounted") from error
