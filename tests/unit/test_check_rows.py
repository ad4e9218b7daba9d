"""`churn check` names what the rows have instead of what the contract says: the column's line, the count, the first values."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.adopt import definitions, rows
from churn.adopt.definitions import CONTRACT, Definitions, Mistake
from churn.adopt.leaks import leak
from churn.params import load_params

ROOT = Path(__file__).parents[2]
Edit = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return pd.read_csv(ROOT / "data/raw/customers.csv", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def found() -> Definitions:
    return definitions.load()


def mistakes(frame: pd.DataFrame, folder: Path, found: Definitions, trusted: tuple[str, ...] = ()) -> list[Mistake]:
    frame.to_csv(folder / "rows.csv", index=False)
    params = load_params(ROOT / "params.yaml")
    gate = params.evaluate.gate.model_copy(update={"trusted_columns": trusted})
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"gate": gate})})
    return rows.mistakes(str(folder / "rows.csv"), "", found, params)


def first(column: str, value: Any, count: int = 3) -> Edit:
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame.index[:count], column] = value
        return frame

    return edit


def timestamps(*values: str) -> Edit:
    return lambda frame: frame.assign(event_timestamp=np.resize(np.array(values), len(frame)))


SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()

WRONG: dict[str, tuple[Edit, str, str]] = {
    "column missing": (lambda frame: frame.drop(columns="Membership"), "member_months", "got none"),
    "column of another name": (lambda frame: frame.rename(columns={"Membership": "membership"}), "member_months", "did you mean"),
    "word in a number": (first("Membership", "N/A"), "member_months", "3 of 7043 rows"),
    "number out of its range": (first("Membership", "999"), "member_months", "999"),
    "text that is no category": (first("Commitment", "Weekly"), "commitment", "'Weekly'"),
    "spelling that is no flag's": (first("Duo", "yes"), "is_duo", "'yes'"),
    "null where none is allowed": (first("MonthlyFee", ""), "monthly_fee", "got none in 3"),
    "rule broken": (first("Locker", "No", 7043), "no_locker_no_second", "contradiction"),
    "rule of most rows broken": (first("TotalFees", "1", 7043), "billed_as_charged", "contradiction"),
    "id twice": (first("MemberNo", "same"), "customer_id", "got 2 more (first: 'same')"),
    "blank around an id": (first("MemberNo", " a "), "customer_id", "3 of 7043 rows"),
    "label of other words": (first("Cancelled", "Maybe"), "churned", "'Maybe'"),
    "label of one value": (first("Cancelled", "No", 7043), "churned", "got No alone"),
    "too few churned customers to learn from": (
        lambda frame: pd.concat([frame[frame.Cancelled == "No"], frame[frame.Cancelled == "Yes"].head(4)]),
        "churned",
        "churned customers among the training rows",
    ),
    "too few churned customers for the gate": (
        lambda frame: pd.concat([frame[frame.Cancelled == "No"], frame[frame.Cancelled == "Yes"].head(40)]),
        "churned",
        "churned customers among the test rows",
    ),
    "time zone in some rows only": (
        timestamps("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"),
        "event_timestamp",
        "a time zone in every row or in none",
    ),
    "label not known yet": (timestamps(SOON), "event_timestamp", "LABEL_HORIZON"),
    "column that gives the label away": (
        lambda frame: frame.assign(MonthlyFee=np.where(frame.Cancelled == "Yes", "90", "20"), TotalFees=""),
        "monthly_fee",
        "ROC-AUC 1.000",
    ),
}


@pytest.mark.parametrize(("edit", "subject", "text"), WRONG.values(), ids=WRONG)
def test_a_mistake_of_the_rows_has_its_column_and_line(
    edit: Edit, subject: str, text: str, shipped: pd.DataFrame, found: Definitions, tmp_path: Path
) -> None:
    named = [each for each in mistakes(edit(shipped.copy()), tmp_path, found) if each.subject == subject]

    assert any(text in each.text for each in named), named
    line = CONTRACT.read_text().splitlines()[named[0].line - 1]
    assert named[0].file == CONTRACT
    assert line.startswith(("    ", "def "))


def test_the_shipped_rows_have_no_mistake(shipped: pd.DataFrame, found: Definitions, tmp_path: Path) -> None:
    assert mistakes(shipped, tmp_path, found) == []


def test_all_mistakes_of_the_rows_are_found_in_one_run(shipped: pd.DataFrame, found: Definitions, tmp_path: Path) -> None:
    wrong = first("Commitment", "Weekly")(first("Membership", "N/A")(shipped.drop(columns="language")))

    subjects = {each.subject for each in mistakes(wrong, tmp_path, found)}

    assert {"language", "member_months", "commitment"} <= subjects


def test_a_location_without_rows_is_one_mistake(found: Definitions, tmp_path: Path) -> None:
    (mistake,) = rows.mistakes(str(tmp_path / "none.csv"), "", found, load_params(ROOT / "params.yaml"))

    assert "no such file" in str(mistake)


def test_a_database_that_cannot_be_read_is_named_without_its_password(found: Definitions) -> None:
    (mistake,) = rows.mistakes("postgresql://me:s3cret@127.0.0.1:1/none", "t", found, load_params(ROOT / "params.yaml"))

    assert str(mistake).startswith("CHURN_SOURCE: ")
    assert "s3cret" not in str(mistake)


def test_a_derived_feature_without_a_value_on_real_rows_is_named(shipped: pd.DataFrame, tmp_path: Path) -> None:
    features = tmp_path / "features.py"
    shipped_code = definitions.FEATURES.read_text()
    features.write_text(shipped_code.replace('months = np.where(billed, c["member_months"], 1)', 'months = c["member_months"]'))
    wrong = features.read_text().replace('np.where(billed, c["total_fees"] / months, c["monthly_fee"])', "1 / months")
    features.write_text(wrong)

    named = mistakes(shipped, tmp_path, definitions.load(features=features))

    text = next(each.text for each in named if each.subject == "average_monthly_fee")
    assert "got infinity in 11 of 7043 rows" in text


def test_a_trusted_column_may_give_the_label_away(shipped: pd.DataFrame, tmp_path: Path) -> None:
    telling = shipped.assign(Duo=shipped.Cancelled)

    before = mistakes(telling, tmp_path, definitions.load())
    after = mistakes(telling, tmp_path, definitions.load(), trusted=("is_duo",))

    assert "is_duo" in {each.subject for each in before}
    assert "is_duo" not in {each.subject for each in after}


@pytest.mark.parametrize(
    ("values", "churned", "is_leak"),
    [
        (np.arange(1000.0), np.arange(1000) >= 900, True),
        (-np.arange(1000.0), np.arange(1000) >= 900, True),
        (np.where(np.arange(1000) >= 900, np.nan, 1.0), np.arange(1000) >= 900, True),
        (np.where(np.arange(1000) < 60, 9.0, np.arange(1000) % 7), (np.arange(1000) < 60) | (np.arange(1000) % 5 == 0), True),
        (np.arange(1000) % 7, np.arange(1000) % 5 == 0, False),
        (np.array(["left" if each >= 900 else "here" for each in range(1000)], dtype=object), np.arange(1000) >= 900, True),
        (np.arange(1000.0), np.zeros(1000, dtype=bool), False),
    ],
    ids=["rises", "falls", "blank", "extremes", "harmless", "texts", "one class"],
)
def test_a_leak_is_a_column_that_separates_the_classes_alone(values: Any, churned: Any, *, is_leak: bool) -> None:
    assert bool(leak(pd.Series(values), pd.Series(churned))) == is_leak


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ('c["commitment"]', "expected real ≥ 0, got values of type"),
        ('c["member_months"] * 1j', "expected real ≥ 0, got values of type complex128"),
        ('np.asarray(c["member_months"]).astype("datetime64[D]")', "expected real ≥ 0, got values of type datetime64"),
        ('c["member_months"] * 1e300', "got larger ones in 7032 of 7043 rows"),
    ],
)
def test_a_derived_feature_that_no_input_can_hold_is_named(result: str, text: str, shipped: pd.DataFrame, tmp_path: Path) -> None:
    assert text in of_is_new(f"return {result}", "Real(ge=0)", shipped, tmp_path)


def test_a_whole_number_with_fractions_is_named(shipped: pd.DataFrame, tmp_path: Path) -> None:
    assert "expected whole numbers, got fractions in" in of_is_new(
        'return c["member_months"] / 2', "Integer()", shipped, tmp_path
    )


def of_is_new(statement: str, kind: str, shipped: pd.DataFrame, folder: Path) -> str:
    """What is said of the last shipped feature with that statement and kind."""
    features = folder / "features.py"
    body = definitions.FEATURES.read_text().replace('return np.asarray(c["member_months"] <= 6)', statement)
    features.write_text(body.replace("@feature(Flag())\ndef is_beginner", f"@feature({kind})\ndef is_beginner"))
    named = mistakes(shipped, folder, definitions.load(features=features))
    return " ".join(each.text for each in named if each.subject == "is_beginner")
