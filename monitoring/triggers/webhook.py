"""A retraining that another system runs: a workflow of GitHub, a DAG of Airflow, or whatever takes a POST."""

import logging
from dataclasses import dataclass, field
from typing import Any, get_args

from churn.errors import MonitorError
from churn.settings import TriggerForm
from monitoring.triggers.command import Status
from monitoring.web import ask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhook:
    """Posts the name and the evidence.

    A request may come twice, as where an answer was lost. Airflow refuses the second by its `dag_run_id`; a plain receiver finds
    the name in `Idempotency-Key`; a workflow of GitHub names its concurrency group by `client_payload.name`.
    """

    url: str = field(repr=False)
    form: TriggerForm = "plain"
    token: str = field(default="", repr=False)

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Post it."""
        answer = ask("POST", self.url, self._body(name, evidence), token=self.token, headers={"Idempotency-Key": name})
        if self.form == "airflow" and answer.status == 409:
            log.info("%s was started before, says Airflow", name)
            return
        if 300 <= answer.status < 400:
            raise MonitorError(f"{answer}; redirects are not followed: set CHURN_TRIGGER_URL to the last address")
        if not 200 <= answer.status < 300:
            raise MonitorError(f"{answer}; check CHURN_TRIGGER_URL, CHURN_TRIGGER_FORM and CHURN_TRIGGER_TOKEN")
        log.info("%s is started: %s answered %d", name, answer.url, answer.status)

    def status(self, name: str) -> Status:
        """What the runner (`python -m ops.runner`) answers to a GET of `<url>/<name>`; others have no status."""
        if self.form != "runner":
            return "unknown"
        answer = ask("GET", f"{self.url.rstrip('/')}/{name}", token=self.token)
        status = answer.json().get("status") if answer.status == 200 else "unknown"
        return next((each for each in get_args(Status) if each == status), "unknown")

    def _body(self, name: str, evidence: dict[str, Any]) -> dict[str, Any]:
        """Source: docs.github.com, "Create a repository dispatch event"; airflow.apache.org, "Trigger Dag Run"."""
        payload = {"name": name, "evidence": evidence}
        match self.form:
            case "plain" | "runner":
                return payload
            case "github":
                return {"event_type": "churn-retrain", "client_payload": payload}
            case "airflow":
                # Airflow 3 wants a date, which may be null; Airflow 2 may not get null.
                date = {} if "/api/v1/" in self.url else {"logical_date": None}
                return {"dag_run_id": name, "conf": payload, **date}
