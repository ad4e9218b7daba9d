"""How the watcher starts a retraining: a Kubernetes Job, a command, a webhook, or not at all."""

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from churn.domain.reasons import reason
from churn.errors import MonitorError
from churn.settings import Monitoring
from monitoring.triggers.command import Status

log = logging.getLogger(__name__)


class Trigger(Protocol):
    """Starts retrainings by name, as `retrain-v3-20261123t030000z`: a name that Kubernetes takes."""

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Start the retraining of that name, or leave it alone if it was started before, here or by another process.

        Raises:
            ChurnError: it was not started, or that is not known; starting it again is safe.
            ValueError: the evidence is not JSON.
        """

    def status(self, name: str) -> Status:
        """The status of the retraining of that name; `unknown` if it was never started, or the trigger cannot read it.

        Raises:
            ChurnError: the status cannot be read.
        """


def open_trigger(settings: Monitoring) -> Trigger:
    """The trigger that the settings name. Nothing is connected to yet.

    Raises:
        MonitorError: a setting of it is refused, or this is not a pod of Kubernetes.
    """
    # A watcher needs what its own kind imports.
    match settings.trigger:
        case "none":
            return NoTrigger()
        case "command":
            from monitoring.triggers.command import Command

            return Command(_words(settings.trigger_command), runs_folder(settings))
        case "webhook":
            from monitoring.triggers.webhook import Webhook

            return Webhook(settings.trigger_url, settings.trigger_form, settings.trigger_token.strip())
        case "kubernetes":
            from monitoring.triggers.kubernetes import in_pod

            return in_pod(settings.trigger_cronjob, settings.trigger_namespace)


def runs_folder(settings: Monitoring) -> Path:
    """Where commands leave what they print and how they ended: always a folder of this machine."""
    local = settings.reports.parent if settings.monitor.startswith("s3://") else Path(settings.monitor)
    return local / "runs"


@dataclass(frozen=True)
class NoTrigger:
    """Retrainings are left to a person, who reads the log or the alert."""

    def start(self, name: str, evidence: dict[str, Any]) -> None:
        """Log it."""
        log.warning("%s is due, and CHURN_TRIGGER = 'none'; start it by hand: `churn retrain`", name)

    def status(self, name: str) -> Status:
        """Unknown."""
        return "unknown"


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise MonitorError(f"environment: CHURN_TRIGGER_COMMAND = {command!r}: {reason(error)}; correct it") from error
    if not words:
        raise MonitorError("environment: CHURN_TRIGGER = 'command' and CHURN_TRIGGER_COMMAND is empty; name the command")
    return words
