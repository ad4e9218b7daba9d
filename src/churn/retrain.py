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

    Raises:
        RetrainError: there are no new labelled rows, or the pipeline failed.
        ChurnError: what `churn ingest` refuses.
    """
    new = ingest.run(settings)
    if not new:
        raise RetrainError(
            "retrain: no new labelled rows; nothing was trained: wait until outcomes are reported and final, or run `dvc repro`"
        )
    dvc = Path(sys.executable).with_name("dvc")
    if code := subprocess.run([dvc, "repro"], check=False).returncode:
        raise RetrainError(f"retrain: `dvc repro` ended with exit code {code}; its messages are above")
    decision = json.loads((paths.EVALUATE_REPORTS / "decision.json").read_text())
    return f"{new} new rows; {'promoted' if decision['promoted'] else 'not promoted'}: {decision['reason']}"
