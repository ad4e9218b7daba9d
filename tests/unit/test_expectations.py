import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn.adapters.expectations import Report, accept, check, suite, write_report
from churn.contract import COLUMNS, RULES, Violation
from churn.errors import ContractError
from factory import raw_table, rows

N = 100


def checked(frame: pd.DataFrame) -> Report:
    return check(raw_table(frame))


def only_violation(frame: pd.DataFrame) -> Violation:
    [violation] = checked(frame).violations
    return violation


def with_value(name: str, value: Any, *, at: int = 1) -> pd.DataFrame:
    """A hundred valid rows of which one has that value."""
    frame = rows(N).astype({name: object})
    frame.loc[at, name] = value
    return frame


def billed_wrongly(share: float) -> pd.DataFrame:
    """Rows of which that share has a total that does not follow from Membership and charge."""
    wrong = np.arange(N) < share * N
    return rows(N, member_months=10, monthly_fee=100.0, total_fees=np.where(wrong, 5000.0, 1000.0))


@pytest.mark.parametrize("spelled", [raw_table, lambda frame: pa.Table.from_pandas(frame, preserve_index=False)])
def test_rows_that_keep_the_contract_pass(spelled: Any) -> None:
    frame = pd.concat([rows(N), rows(2, seed=1, member_months=0, customer_id=["new-1", "new-2"])], ignore_index=True)

    report = check(spelled(frame))

    assert report.violations == ()
    assert not report.bad.any()
    assert all(record["success"] for record in report.records)


def test_accepted_rows_are_typed_and_none_is_quarantined(tmp_path: Path) -> None:
    report = checked(rows(N))

    frame = accept(report, source="rows.csv", quarantine=tmp_path)

    pd.testing.assert_frame_equal(frame, rows(N), check_dtype=False, check_categorical=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "rule", "shown"),
    [
        ("monthly_fee", -29.85, "real ≥ 0 and ≤ 1000", "-29.85"),
        ("monthly_fee", "free", "a value readable as real ≥ 0 and ≤ 1000", "free"),
        ("member_months", "5.5", "a value readable as integer ≥ 0 and ≤ 720", "5.5"),
        ("commitment", "Three seasons", "one of Monthly, Season, Two seasons", "Three seasons"),
        ("commitment", None, "a value", ""),
        ("is_student", "Yes", "a value readable as 1 or 0", "Yes"),
        ("churned", None, "a value", ""),
        ("event_timestamp", "soon", "a value readable as UTC timestamp", "soon"),
    ],
)
def test_a_bad_value_is_reported_with_column_rule_row_and_value(name: str, value: Any, rule: str, shown: str) -> None:
    frame = with_value(name, value)

    found = {each.subject: each for each in checked(frame).violations}

    assert found[name] == Violation(name, rule, 1, (("customer_id-00001", shown),), "another value" if shown else "none")


def test_a_customer_without_an_id_is_found() -> None:
    violation = only_violation(with_value("customer_id", None))

    assert (violation.subject, violation.rule, violation.count) == ("customer_id", "a value", 1)


def test_all_bad_rows_are_counted_and_the_first_are_named() -> None:
    frame = rows(N, member_months=10, monthly_fee=[-1.0] * 30 + [50.0] * (N - 30), total_fees=500.0)

    found = {each.subject: each for each in checked(frame).violations}

    assert found["monthly_fee"].count == 30
    assert found["monthly_fee"].first[:2] == (("customer_id-00000", "-1.0"), ("customer_id-00001", "-1.0"))


@pytest.mark.parametrize(
    ("overrides", "subject"),
    [
        ({"member_months": 5, "total_fees": np.nan}, "blank_means_not_billed_yet"),
        ({"pool_access": "No", "coaching": "Yes"}, "no_pool_no_extras"),
        ({"has_locker": False, "second_locker": "No"}, "no_locker_no_second"),
    ],
)
def test_a_row_that_breaks_a_rule_between_columns_is_found(overrides: dict[str, Any], subject: str) -> None:
    frame = pd.concat([rows(N), rows(1, seed=1, customer_id="odd", **overrides)], ignore_index=True)

    violation = only_violation(frame)

    description = next(rule.description for rule in RULES if rule.name == subject)
    assert violation == Violation(subject, f"that {description}", 1, (("odd", ""),), "a contradiction")


def test_a_rule_for_most_rows_accepts_4_percent_violations() -> None:
    assert checked(billed_wrongly(0.04)).violations == ()


def test_a_rule_for_most_rows_refuses_6_percent_violations() -> None:
    violation = only_violation(billed_wrongly(0.06))

    assert (violation.subject, violation.count) == ("billed_as_charged", 6)


def test_duplicate_rows_are_found() -> None:
    frame = pd.concat([rows(N), rows(N).iloc[[5]]], ignore_index=True)

    violation = only_violation(frame)

    assert (violation.subject, violation.rule, violation.count) == (
        "customer_id",
        "one row per customer_id and event_timestamp",
        2,
    )
    assert {customer for customer, _ in violation.first} == {"customer_id-00005"}


def test_the_same_customer_at_another_time_is_not_a_duplicate() -> None:
    later = rows(N).iloc[[5]].assign(event_timestamp=pd.Timestamp("2026-02-01", tz="UTC"))

    assert checked(pd.concat([rows(N), later], ignore_index=True)).violations == ()


def test_an_increment_with_one_class_is_accepted() -> None:
    assert checked(rows(N, churned=False)).violations == ()


def test_a_training_table_with_one_class_is_refused_without_bad_rows() -> None:
    report = check(raw_table(rows(N, churned=False)), both_classes=True)

    [violation] = report.violations
    assert (violation.subject, violation.rule) == ("churned", "both classes")
    assert not report.bad.any()


def test_rows_without_labels_are_validated_on_other_columns() -> None:
    assert checked(rows(N).drop(columns="churned")).violations == ()


def test_a_table_of_unreadable_rows_is_refused() -> None:
    report = checked(rows(4).astype({"member_months": object}).assign(member_months="x"))

    [violation] = report.violations
    assert violation.count == 4
    assert report.bad.all()


def test_several_violations_are_all_found_at_once() -> None:
    frame = with_value("commitment", "Three seasons", at=1).astype({"monthly_fee": object})
    frame.loc[2, "monthly_fee"] = "free"

    report = checked(frame)

    assert [violation.subject for violation in report.violations] == ["monthly_fee", "commitment"]
    assert np.flatnonzero(report.bad).tolist() == [1, 2]


def test_a_refusal_names_source_column_rule_count_first_rows_and_what_to_do(tmp_path: Path) -> None:
    report = checked(with_value("commitment", "Three seasons"))

    with pytest.raises(ContractError) as refused:
        accept(report, source="customers.csv", quarantine=tmp_path)

    assert str(refused.value) == (
        "customers.csv: commitment: expected one of Monthly, Season, Two seasons, got another value in 1 row "
        f"(first: customer_id-00001: Three seasons); correct the rows, of which {tmp_path}/rows.csv is a copy, or widen the rule "
        "in contract.py"
    )


def test_the_quarantine_has_exactly_the_bad_rows_unchanged(tmp_path: Path) -> None:
    frame = with_value("commitment", "Three seasons", at=1).astype({"monthly_fee": object})
    frame.loc[7, "monthly_fee"] = " free "
    table = raw_table(frame)

    with pytest.raises(ContractError):
        accept(check(table), source="rows.csv", quarantine=tmp_path)

    kept = pd.read_csv(tmp_path / "rows.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(kept, table.to_pandas().iloc[[1, 7]].reset_index(drop=True))


def test_bad_rows_of_other_types_are_quarantined(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(
        with_value("commitment", "Three seasons").astype({"commitment": "category"}), preserve_index=False
    )

    with pytest.raises(ContractError, match="Three seasons"):
        accept(check(table), source="rows.parquet", quarantine=tmp_path)

    assert pd.read_csv(tmp_path / "rows.csv").customer_id.tolist() == ["customer_id-00001"]


def test_the_suite_covers_every_column_and_rule_of_the_contract() -> None:
    covered = {getattr(expectation, "column", "") for expectation in suite(both_classes=True)}

    assert {column.name for column in COLUMNS} <= covered
    assert {rule.name for rule in RULES} <= covered


def test_the_report_lists_every_expectation_and_its_result(tmp_path: Path) -> None:
    report = checked(with_value("commitment", "Three seasons"))

    write_report(report, tmp_path)

    page = (tmp_path / "index.html").read_text()
    assert page.count("<tr><td>") == len(report.records) >= len(suite())
    assert all(f"<tr><td>{record['column']}</td>" in page for record in report.records)
    assert "1 violated" in page
    assert "customer_id-00001: Three seasons" in page


def test_the_report_is_self_contained(tmp_path: Path) -> None:
    write_report(checked(rows(N)), tmp_path)

    page = (tmp_path / "index.html").read_text()

    assert re.findall(r"https?://|(?:src|href)\s*=|url\(|@import", page) == []
    assert "//" not in page


def test_row_values_are_escaped_in_the_report(tmp_path: Path) -> None:
    write_report(checked(with_value("commitment", "<script>alert(1)</script>")), tmp_path)

    assert "<script>" not in (tmp_path / "index.html").read_text()


def test_the_json_report_has_a_record_per_expectation(tmp_path: Path) -> None:
    report = checked(with_value("commitment", "Three seasons"))

    write_report(report, tmp_path)

    records = json.loads((tmp_path / "results.json").read_text())
    assert records == list(report.records)
    assert [record for record in records if not record["success"]] == [
        {"column": "commitment", "rule": "one of Monthly, Season, Two seasons", "rows": N, "unexpected": 1, "success": False}
    ]
