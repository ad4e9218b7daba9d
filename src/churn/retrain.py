"""The whole loop's second half in one step: what the log has learned since → data/raw → the pipeline → the gate."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from churn import ingest, paths
from churn.errors import RetrainError
from churn.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> str:
    """Ingest, then `dvc repro`; returns the gate's decision in one line. A refusal by the gate is a result, not an error.

    Where an earlier retraining failed after its rows had come in, it is finished, without new ones.

    Raises:
        RetrainError: there are no new labelled rows, or the pipeline failed.
        ChurnError: what `churn ingest` refuses.
    """
    new = ingest.run(settings)
    if not new and not _is_unfinished():
        raise RetrainError(
            "retrain: no new labelled rows; nothing was trained: wait until outcomes are reported and final, or run `dvc repro`"
        )
    if code := _dvc("repro"):
        raise RetrainError(f"retrain: `dvc repro` ended with exit code {code}; its messages are above")
    decision = json.loads((paths.EVALUATE_REPORTS / "decision.json").read_text())
    return f"{new} new rows; {'promoted' if decision['promoted'] else 'not promoted'}: {decision['reason']}"


def _is_unfinished() -> bool:
    """True if DVC would run something: 1 says so, 0 that all is up to date, anything else that it cannot tell."""
    return _dvc("status", "--quiet") == 1


def _dvc(*words: str) -> int:
    return subprocess.run([Path(sys.executable).with_name("dvc"), *words], check=False).returncode
