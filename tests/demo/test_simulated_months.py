"""Simulated months go through the same commands as a user's rows."""

import pandas as pd
import pytest

from project import Project

REAL = 7043

pytestmark = pytest.mark.slow


def test_simulated_months_can_be_scored_and_ingested(reproduced: Project) -> None:
    reproduced.run("python", "-m", "demo.simulate", "months", "--customers", "300", "--months", "2", "--scenario", "none")

    scored = reproduced.run("churn", "score", "months", "scored.parquet")
    ingested = reproduced.run("churn", "ingest", environment={"CHURN_SOURCE": "months"})
    again = reproduced.run("churn", "ingest", environment={"CHURN_SOURCE": "months"})
    status = reproduced.run("dvc", "status")
    reproduced.run("churn", "prepare")
    rows = sum(len(pd.read_parquet(reproduced.folder / f"data/prepared/{side}.parquet")) for side in ("train", "test"))

    assert "600 rows scored" in scored
    assert "600 new rows" in ingested
    assert "0 new rows" in again
    assert "data/raw" in status
    assert rows == REAL + 600
    for part in (reproduced.folder / "data/raw").glob("ingested-*.parquet"):
        part.unlink()
    reproduced.run("dvc", "checkout", "--force")
    assert "up to date" in reproduced.run("dvc", "status")
