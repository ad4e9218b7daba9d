from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from churn.adapters import onnx, sources
from churn.contract import BY_NAME
from churn.domain.encoding import derive, encode, encoded_names
from churn.errors import ConfigError, ContractError, SourceError
from churn.pipeline.score import Model, score
from factory import raw_table, rows

THRESHOLD = 0.3
CUSTOMERS = pd.concat(
    [rows(300, seed=2), rows(5, seed=3, member_months=0, customer_id=[f"new-{index}" for index in range(5)])], ignore_index=True
)


@pytest.fixture(scope="module")
def estimator() -> Any:
    frame = rows(300)
    likely = np.where(frame.member_months < 360, 0.8, 0.1)
    churned = np.random.default_rng(0).random(len(frame)) < likely
    return GradientBoostingClassifier(n_estimators=20, random_state=0).fit(encode(derive(frame)), churned)


@pytest.fixture(scope="module")
def model(estimator: Any) -> Model:
    content = onnx.export(estimator, encode(derive(rows(300))), metadata={})
    return Model("3", onnx.session(content), encoded_names(), THRESHOLD)


def write(table: pa.Table, path: Path) -> Path:
    if path.suffix.lower() == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def native(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def plain(frame: pd.DataFrame) -> pa.Table:
    """Categories as plain texts, not dictionary-encoded."""
    return native(frame.astype({name: object for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)}))


def under_source_names(frame: pd.DataFrame) -> pa.Table:
    return raw_table(frame).rename_columns([BY_NAME[str(name)].source for name in frame])


def refusal(frame: pd.DataFrame, model: Model, folder: Path) -> str:
    out = folder / "scores.csv"
    with pytest.raises(ContractError) as refused:
        score(write(raw_table(frame), folder / "rows.csv"), out, model)
    assert [path.name for path in folder.iterdir()] == ["rows.csv"]
    return str(refused.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        (raw_table, "rows.csv"),
        (raw_table, "ROWS.CSV"),
        (under_source_names, "rows.csv"),
        (native, "rows.parquet"),
        (plain, "rows.parquet"),
        (raw_table, "rows.parquet"),
        (under_source_names, "rows.parquet"),
    ],
)
def test_every_customer_gets_the_probability_of_the_model(
    spelled: Any, name: str, suffix: str, estimator: Any, model: Model, tmp_path: Path
) -> None:
    source, out = write(spelled(CUSTOMERS), tmp_path / name), tmp_path / f"scores{suffix}"

    done = score(source, out, model)

    found = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    expected = estimator.predict_proba(encode(derive(CUSTOMERS)))[:, 1]
    assert done == len(CUSTOMERS)
    np.testing.assert_allclose(found.churn_probability, expected, atol=1e-6)
    assert found.customer_id.tolist() == CUSTOMERS.customer_id.tolist()


def test_scores_have_the_decision_at_the_threshold_and_the_version(model: Model, tmp_path: Path) -> None:
    source, out = write(native(CUSTOMERS), tmp_path / "rows.parquet"), tmp_path / "scores.parquet"

    score(source, out, model)

    found = pd.read_parquet(out)
    assert list(found) == ["customer_id", "churn_probability", "churn", "model_version"]
    assert (found.churn == (found.churn_probability >= THRESHOLD)).all()
    assert found.churn.nunique() == 2
    assert set(found.model_version) == {"3"}


def test_a_customer_at_the_threshold_is_flagged(model: Model) -> None:
    batch = raw_table(rows(1)).to_batches()[0]
    probability = model.score(batch)["churn_probability"][0].as_py()

    at = Model("3", model.session, model.inputs, probability)

    assert at.score(batch)["churn"].to_pylist() == [True]


def test_a_model_gets_its_fitted_inputs_in_order(model: Model) -> None:
    frame = rows(20)
    X = encode(derive(frame), ("member_months", "is_beginner"))
    small = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, np.arange(20) % 2 == 0)
    session = onnx.session(onnx.export(small, X, metadata={}))

    scored = Model("4", session, ("member_months", "is_beginner"), THRESHOLD).score(raw_table(frame).to_batches()[0])

    np.testing.assert_allclose(scored["churn_probability"], small.predict_proba(X)[:, 1], atol=1e-6)


def test_parts_of_a_folder_are_scored_in_name_order(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    write(native(CUSTOMERS.iloc[100:]), folder / "part-2.parquet")
    write(raw_table(CUSTOMERS.iloc[:100]), folder / "part-1.csv")

    score(folder, tmp_path / "scores.parquet", model)

    assert pd.read_parquet(tmp_path / "scores.parquet").customer_id.tolist() == CUSTOMERS.customer_id.tolist()


def test_order_is_kept_over_many_batches(model: Model, tmp_path: Path) -> None:
    frame = rows(1000)
    source, out = tmp_path / "parts", tmp_path / "scores.parquet"
    source.mkdir()
    for start in range(0, 1000, 50):
        write(native(frame.iloc[start : start + 50]), source / f"part-{start:04d}.parquet")
    counts: list[int] = []

    score(source, out, model, on_rows=counts.append)

    assert pd.read_parquet(out).customer_id.tolist() == frame.customer_id.tolist()
    assert counts == [50] * 20


def test_unknown_columns_are_left_out(model: Model, tmp_path: Path) -> None:
    source = write(native(CUSTOMERS.assign(shoe_size=42)), tmp_path / "rows.parquet")

    assert score(source, tmp_path / "scores.csv", model) == len(CUSTOMERS)


def test_rows_without_label_and_timestamp_are_scored(model: Model, tmp_path: Path) -> None:
    source = write(raw_table(CUSTOMERS.drop(columns=["churned", "event_timestamp"])), tmp_path / "rows.csv")

    assert score(source, tmp_path / "scores.csv", model) == len(CUSTOMERS)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("monthly_fee", -1.0, "real ≥ 0 and ≤ 1000"),
        ("monthly_fee", "free", "a value readable as real ≥ 0 and ≤ 1000"),
        ("member_months", "", "integer ≥ 0 and ≤ 720"),
        ("commitment", "Three seasons", "one of Monthly, Season, Two seasons"),
        ("is_duo", "perhaps", "a value readable as Yes or No"),
    ],
)
def test_rows_that_break_the_contract_are_refused_with_column_count_and_first_ids(
    name: str, value: Any, rule: str, model: Model, tmp_path: Path
) -> None:
    frame = CUSTOMERS.astype({name: object})
    frame.loc[[7, 9, 11, 13], name] = value

    message = refusal(frame, model, tmp_path)

    first = "customer_id-00007; customer_id-00009; customer_id-00011"
    found = f"{name}: expected {rule}, got no such value in 4 of 305 rows (first: {first})"
    assert message == f"{found}; correct the rows and run again"


def test_a_rule_between_columns_is_refused_too(model: Model, tmp_path: Path) -> None:
    frame = CUSTOMERS.assign(total_fees=CUSTOMERS.total_fees.fillna(20.0))

    assert refusal(frame, model, tmp_path).startswith("blank_means_not_billed_yet: expected that total_fees is blank")


def test_a_customer_without_an_id_is_refused(model: Model, tmp_path: Path) -> None:
    frame = CUSTOMERS.copy()
    frame.loc[3, "customer_id"] = None

    message = refusal(frame, model, tmp_path)

    assert message.startswith("customer_id: expected text")
    assert "in 1 of 305 rows" in message


def test_every_broken_rule_of_a_long_table_is_named_with_its_rows(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("churn.pipeline.score.BATCH_ROWS", 100)
    frame = CUSTOMERS.astype({"commitment": object, "monthly_fee": object})
    frame.loc[[3, 204], "commitment"] = "Three seasons"
    frame.loc[[250, 251, 252, 304], "monthly_fee"] = "free"
    (tmp_path / "in").mkdir()
    source = write(raw_table(frame), tmp_path / "in/rows.parquet")

    with pytest.raises(ContractError) as refused:
        score(source, tmp_path / "scores.csv", model)

    of_term, of_charges, _ = str(refused.value).split("); ")
    assert of_term.startswith("commitment: ")
    assert of_term.endswith("in 2 of 305 rows (first: customer_id-00003; customer_id-00204")
    assert of_charges.startswith("monthly_fee: ")
    assert of_charges.endswith("in 4 of 305 rows (first: customer_id-00250; customer_id-00251; customer_id-00252")


def test_a_row_with_an_unreadable_value_is_reported_once(model: Model, tmp_path: Path) -> None:
    frame = CUSTOMERS.astype({"member_months": object})
    frame.loc[303, "member_months"] = "new"

    message = refusal(frame, model, tmp_path)

    assert message.startswith("member_months: expected a value readable as integer")
    assert "blank_means_not_billed_yet" not in message


def test_a_refusal_keeps_earlier_scores(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("of before")
    source = write(raw_table(CUSTOMERS.assign(monthly_fee=-1.0)), tmp_path / "rows.csv")

    with pytest.raises(ContractError):
        score(source, out, model)

    assert out.read_text() == "of before"


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_table_without_rows_is_refused(name: str, model: Model, tmp_path: Path) -> None:
    source = write(raw_table(CUSTOMERS.iloc[:0]).cast(raw_table(CUSTOMERS).schema), tmp_path / name)

    with pytest.raises(SourceError, match="has columns and no rows"):
        score(source, tmp_path / "scores.csv", model)

    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_missing_column_is_refused_with_its_source_name(name: str, model: Model, tmp_path: Path) -> None:
    source = write(raw_table(CUSTOMERS.drop(columns="commitment")), tmp_path / name)

    with pytest.raises(SourceError, match="missing columns: Commitment"):
        score(source, tmp_path / "scores.csv", model)


def test_a_missing_source_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file or folder"):
        score(tmp_path / "rows.csv", tmp_path / "scores.csv", model)


def test_the_number_of_rows_is_known_in_advance_for_parquet_only(tmp_path: Path) -> None:
    parquet, csv = write(native(CUSTOMERS), tmp_path / "rows.parquet"), write(raw_table(CUSTOMERS), tmp_path / "rows.csv")

    assert sources.count(parquet) == len(CUSTOMERS)
    assert sources.count(csv) is None


def test_an_unsupported_output_format_is_refused(model: Model, tmp_path: Path) -> None:
    source = write(native(CUSTOMERS), tmp_path / "rows.parquet")

    with pytest.raises(ConfigError, match=r"scores\.txt: is neither \.csv nor \.parquet"):
        score(source, tmp_path / "scores.txt", model)


@pytest.mark.reported
@pytest.mark.parametrize("out", ["rows/part.parquet", "rows/scored.csv", "rows/../rows/part.parquet"])
def test_scoring_into_the_source_is_refused_and_keeps_its_rows(out: str, tmp_path: Path, model: Model) -> None:
    (tmp_path / "rows").mkdir()
    part = tmp_path / "rows" / "part.parquet"
    part.write_bytes(content := b"the source")

    for source in (part, tmp_path / "rows"):
        if source == part and "scored" in out:
            continue
        with pytest.raises(ConfigError, match="name another place"):
            score(source, tmp_path / out, model)

    assert part.read_bytes() == content
    assert [path.name for path in part.parent.iterdir()] == ["part.parquet"]
