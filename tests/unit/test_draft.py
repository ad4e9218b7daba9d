"""Which roles, names and kinds `churn init` proposes for columns."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from churn.adopt.columns import RawColumn, named, snake_case
from churn.adopt.draft import LeftOut, draft, text
from churn.adopt.roles import Wanted, choose
from churn.errors import ConfigError

N = 400
LABEL = ["Yes", "No", "No", "No"] * (N // 4)


def columns(*, repairable: bool = True, **values: Any) -> list[RawColumn]:
    return [RawColumn(name, pa.array(each), repairable=repairable) for name, each in values.items()]


def proposed(values: Any, *, name: str = "x", repairable: bool = True) -> str:
    """The kind that is proposed for a column beside an entity and a label, or the reason to leave it out."""
    table = columns(repairable=repairable, customer_id=[f"c{each}" for each in range(N)], churned=LABEL, **{name: values})
    (found,) = draft(table, choose(table, Wanted(), None), now=datetime(2026, 11, 1, tzinfo=UTC)).features
    return f"left out: {found.reason}" if isinstance(found, LeftOut) else found.kind


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("TotalCharges", "total_charges"),
        ("Überziehung (€)", "ueberziehung_eur"),
        ("customerID", "customer_id"),
        ("2nd line", "column_2nd_line"),
        ("a-b.c", "a_b_c"),
        ("日本", "column"),
    ],
)
def test_a_raw_name_becomes_snake_case(raw: str, name: str) -> None:
    assert snake_case(raw) == name


def test_names_are_unique_and_free() -> None:
    raws = ["Plan", "plan", "class", "time", "Churn", "model_fields"]

    names = named(raws)

    assert names["plan"] == "plan"
    assert len(set(names.values())) == len(raws)
    assert not {"class", "time", "churn", "model_fields"} & set(names.values())
    assert names["Churn"] == "churned"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([str(each % 13) for each in range(N)], "Integer(0, 50)"),
        ([f"{each % 13 / 4}" for each in range(N)], "Real(0, 10)"),
        ([each % 13 - 6.5 for each in range(N)], "Real(-20, 20)"),
        ([2000 + each % 20 for each in range(N)], "Integer(1900, 2100)"),
        (["TRUE", "FALSE", "TRUE", "TRUE", "FALSE"] * (N // 5), 'Flag("TRUE", "FALSE")'),
        ([True, False, True, True, False] * (N // 5), "Flag()"),
        ([1, 0, 1, 1, 0] * (N // 5), 'Flag("1", "0")'),
        (["red", "it's", "blue", 'a "b"', "red"] * (N // 5), """Category(('a "b"', "blue", "it's", "red"))"""),
        ([f"{each % 7:03d}" for each in range(N)], "Category"),
        ([f"city {each % 45}" for each in range(N)], "Grouped(commonest=20)"),
        (["same"] * N, "left out: constant"),
        ([None] * N, "left out: empty"),
        ([[1]] * N, "left out: values of the type"),
        (LABEL, "left out: the same values as churned"),
        ([each == "Yes" for each in LABEL], "left out: gives the label away"),
        ([f"{each % 13} EUR" for each in range(N)], "left out: numbers with other signs"),
        ([f"A long sentence that a person wrote about order {each} last week" for each in range(N)], "left out: free text"),
    ],
)
def test_a_column_gets_the_kind_of_its_values(values: Any, kind: str) -> None:
    assert proposed(values).startswith(kind)


def test_numbers_with_words_for_null_are_repaired_only_where_a_file_can_be_rewritten() -> None:
    values = ["N/A" if each % 9 == 0 else str(each % 13) for each in range(N)]

    assert proposed(values).startswith("Integer")
    assert proposed(values, repairable=False).startswith("left out: numbers that are not written as such")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(label="plan"), "--label plan: expected two values, got 3"),
        (Wanted(label="nope"), "--label nope: expected a column of the table, got none"),
        (Wanted(label="gone", positive="maybe"), "--positive maybe: expected a value of gone"),
        (Wanted(label="gone", entity="holes"), "--entity holes: expected identifiers in every row"),
        (Wanted(label="gone", timestamp="plan"), "--timestamp plan: expected dates in every row"),
        (Wanted(label="gone", entity="plan", timestamp="none"), "--entity plan: expected one row per customer"),
        (Wanted(), "--label (the column that says whether the customer churned; likely: gone)"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_with_the_reason(wanted: Wanted, message: str) -> None:
    table = columns(
        customer_id=[str(each) for each in range(N)],
        plan=["a", "b", "c", "c"] * (N // 4),
        holes=[None, "x", "y", "z"] * (N // 4),
        gone=LABEL,
    )

    with pytest.raises(ConfigError) as refused:
        choose(table, wanted, None)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["plain", "it's", 'say "hi"', "both ' and \"", "back\\slash", "tab\t", "ü"])
def test_a_text_is_written_as_python_reads_it(value: str) -> None:
    assert eval(text(value)) == value
