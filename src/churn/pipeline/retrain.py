"""The pipeline with what is around it: new rows → data/raw → `dvc repro` → the gate → DVC's remote."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from churn import paths
from churn.adapters import bundle
from churn.adapters.locks import workspace_lock
from churn.errors import RetrainError
from churn.pipeline import ingest
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)

DECISION = paths.EVALUATE_REPORTS / "decision.json"
"""What the gate decided when it last ran; only a run of it writes the file."""
REMOTE = "churn"
"""Under which DVC knows CHURN_DVC_REMOTE; in .dvc/config.local, which git does not see."""


def run(settings: Settings) -> str:
    """Ingest, then `dvc repro`; returns the gate's outcome, whose reason `evaluate` has logged.

    A refusal by the gate is a result, not an error; so is a day without new labelled rows, on which nothing is trained. Where an
    earlier retraining failed after its rows had come in, it is finished, without new ones.

    Raises:
        RetrainError: the pipeline or the push failed.
        ChurnError: what `churn ingest` refuses.
    """
    with workspace_lock():
        new = ingest.append_new(settings)
        if not new and not _is_unfinished():
            return "no new labelled rows, nothing was trained: wait until outcomes are reported and final, or run `dvc repro`"
        return f"{new} new rows; {_reproduce(settings)}"


def reproduce(settings: Settings) -> str:
    """Ingest what the environment names, then `dvc repro`, new rows or not; returns the gate's outcome.

    `evaluate` has logged the reason. Where nothing changed, the gate decides nothing: the line names the version that was trained
    last, and where it stands.

    Raises:
        RetrainError: the pipeline or the push failed.
        ChurnError: what `churn ingest` refuses; the registry is out of reach.
    """
    with workspace_lock():
        ingest.named(settings)
        return _reproduce(settings)


def _reproduce(settings: Settings) -> str:
    before = _written()
    if code := _dvc("repro"):
        raise RetrainError(f"`dvc repro` ended with exit code {code}; its messages are above")
    _push(settings.dvc_remote)
    if _written() == before:
        return _unchanged(settings)
    decision = json.loads(DECISION.read_text())
    return "promoted" if decision["promoted"] else f"not promoted: {decision['outcome']}"


def _written() -> tuple[int, int] | None:
    """Which file the gate's decision is in and when it was written; None where there is none."""
    try:
        found = DECISION.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _unchanged(settings: Settings) -> str:
    """Which version the workspace's files belong to, and whether it is in production, in one line."""
    from churn.adapters.mlflow.registry import Registry

    registry = Registry(settings)
    version = registry.of_digest(bundle.digest(paths.CANDIDATE))
    if paths.PRODUCTION in version.aliases:
        standing = "is in production"
    elif version.tags.get("gate", "passed") != "passed":
        standing = f"was not promoted: {version.tags.get('decision', '')}"
    else:
        champion = registry.of_alias(paths.PRODUCTION)
        standing = f"is not in production: {f'version {champion.number} is' if champion else 'no version is'}"
    return f"nothing changed since version {version.number}, which {standing}"


def _push(remote: str) -> None:
    if not remote:
        return
    known = _dvc("remote", "add", "--quiet", "--local", "--default", "--force", REMOTE, remote) == 0
    if not known or _dvc("push", "--quiet", "--remote", REMOTE):
        raise RetrainError(
            f"CHURN_DVC_REMOTE = {without_password(remote)}: `dvc push` failed, its messages are above; the version stands; "
            "correct the address or the credentials, and run `churn repro`: it pushes again"
        )
    log.info("pushed to %s", without_password(remote))


def _is_unfinished() -> bool:
    """True if DVC would run something: 1 says so, 0 that all is up to date, anything else that it cannot tell."""
    return _dvc("status", "--quiet") == 1


def _dvc(*words: str) -> int:
    """DVC's exit code. Its output is printed, except the advice to push: `_push` pushes if there is a remote."""
    command = [str(Path(sys.executable).with_name("dvc")), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout
        for line in process.stdout:
            if "`dvc push`" not in line:
                print(line, end="", flush=True)
    return process.returncode
