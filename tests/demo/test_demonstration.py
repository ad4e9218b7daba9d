"""`make demo-compose`: drift inside the stack ends in a new production version that answers."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.stack


def test_drift_leads_to_a_new_serving_version() -> None:
    done = subprocess.run(["make", "demo-compose"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "version 2 answers: swapped without a restart" in done.stdout
    assert re.search(r"retrain-v1-\S+ promoted: version 2", done.stdout)
    assert re.search(r"difference \+0\.\d+, 95 % interval \[\+0\.", done.stdout)
    assert (ROOT / "data/demo/compose/demo.html").read_text().startswith("<!doctype html>")
