"""Bad input: one clear line, exit code 1, and nothing downstream changed."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from churn.cli import main

ROOT = Path(__file__).parents[2]
OUTPUTS = ("data/prepared", "data/features", "models", "metrics", "reports")

Churn = Callable[..., str]
Rows = pd.DataFrame


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with params.yaml, an empty data/raw, and a marker in every output folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    for name in OUTPUTS:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "before").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Churn:
    """Run `churn …`, which must exit 1, say one line on standard error and leave every output folder as it was."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["churn", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        message = capsys.readouterr().err
        lines = [line for line in message.splitlines() if line.startswith("churn: ")]
        assert stopped.value.code == 1
        assert len(lines) == 1
        assert "Traceback" not in message
        for name in OUTPUTS:
            assert [path.name for path in (workspace / name).iterdir()] == ["before"]
        return lines[0]

    return run


@pytest.fixture
def rows() -> Rows:
    """The first two hundred real customers, as text."""
    return pd.read_csv(ROOT / "data/raw/customers.csv", dtype=str, keep_default_na=False, nrows=200)


def store(rows: Rows) -> None:
    rows.to_csv("data/raw/customers.csv", index=False)


def test_a_missing_raw_file(refused: Churn) -> None:
    assert "data/raw: the folder has no .csv or .parquet file" in refused("prepare")


def test_an_empty_file(refused: Churn) -> None:
    Path("data/raw/customers.csv").touch()

    message = refused("prepare")

    assert "data/raw/customers.csv: expected a header with the columns MemberNo, language, " in message
    assert "got an empty file" in message


def test_wrong_columns(refused: Churn, rows: Rows) -> None:
    store(rows.rename(columns={"MonthlyFee": "Monthly Fee"}))

    assert "missing columns: MonthlyFee (found: Monthly Fee?)" in refused("prepare")


def test_a_new_category(refused: Churn, rows: Rows) -> None:
    rows.loc[3, "PaidBy"] = "Bitcoin"
    store(rows)

    assert "paid_by: expected one of Online invoice, Paper invoice, " in (message := refused("prepare"))
    assert "got another value in 1 row (first: 1015-HQPPX: Bitcoin)" in message
    assert "or widen the rule in contract.py" in message


def test_a_negative_fee(refused: Churn, rows: Rows) -> None:
    rows.loc[0, "MonthlyFee"] = "-29.85"
    store(rows)

    message = refused("prepare")

    assert "monthly_fee: expected real ≥ 0 and ≤ 1000, got another value in 1 row" in message
    assert "(first: 8504-XZKFR: -29.85)" in message
    quarantined = pd.read_csv("data/quarantine/rows.csv", dtype=str)
    assert list(quarantined.monthly_fee) == ["-29.85"]


def test_rows_of_one_class(refused: Churn, rows: Rows) -> None:
    store(rows.assign(Cancelled="No"))

    assert "churned: expected both classes, got one alone in 200 rows" in refused("prepare")


def test_duplicate_customers_with_different_labels(refused: Churn, rows: Rows) -> None:
    store(pd.concat([rows, rows.head(1).assign(Cancelled="Yes")]))

    assert (
        "customer_id: expected one row per customer_id and event_timestamp, got repeats in 2 rows (first: 8504-XZKFR"
        in refused("prepare")
    )


def test_text_where_a_number_belongs(refused: Churn, rows: Rows) -> None:
    rows.loc[1, "Membership"] = "three"
    store(rows)

    assert (
        "member_months: expected a value readable as integer ≥ 0 and ≤ 720, got another value in 1 row (first: 3662-CGDGC: three)"
        in (refused("prepare"))
    )


def test_a_truncated_parquet_file(refused: Churn, rows: Rows) -> None:
    rows.to_parquet("data/raw/part.parquet")
    whole = Path("data/raw/part.parquet").read_bytes()
    Path("data/raw/part.parquet").write_bytes(whole[: len(whole) // 2])

    assert "part.parquet: " in (message := refused("prepare"))
    assert "expected a whole Parquet file" in message


def test_an_unreachable_database(refused: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SOURCE", "postgresql://reader:secret@127.0.0.1:1/crm")

    message = refused("ingest")

    assert "127.0.0.1:1" in message
    assert "secret" not in message


def test_a_bucket_that_does_not_exist(refused: Churn, monkeypatch: pytest.MonkeyPatch, s3: object) -> None:
    monkeypatch.setenv("CHURN_SOURCE", "s3://no-such-bucket/customers.parquet")

    assert "s3://no-such-bucket/customers.parquet: there is no such bucket, file or folder" in refused("ingest")


def test_ingest_without_a_source(refused: Churn) -> None:
    assert "CHURN_SOURCE is not set" in refused("ingest")


def test_an_unknown_key_in_params(refused: Churn, rows: Rows) -> None:
    store(rows)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("learning_rate:", "learning_rat:"))

    assert "params.yaml: train.gradient_boosting.learning_rat: unknown key; did you mean learning_rate?" in refused("prepare")


def test_an_unknown_environment_variable(refused: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SORCE", "data.csv")

    assert "CHURN_SORCE is not a setting of churn; did you mean CHURN_SOURCE?" in refused("ingest")


def test_an_unreachable_registry(refused: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")

    assert "model registry http://127.0.0.1:1: " in (message := refused("models"))
    assert "check that it runs and MLFLOW_TRACKING_URI" in message


def test_a_missing_version(refused: Churn) -> None:
    assert "no version '7'" in (message := refused("promote", "7"))
    assert "none yet: run `make repro`" in message


def test_a_score_without_a_production_model(refused: Churn, rows: Rows) -> None:
    store(rows)

    assert "there is no production version" in (message := refused("score", "data/raw/customers.csv", "out.csv"))
    assert "run `make repro`" in message
    assert not Path("out.csv").exists()
