"""The contract agrees with itself and with the rows."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from churn import paths
from churn.adapters import expectations, origins
from churn.contract import COLUMNS, RULES, Category, Column, Integer, Real
from churn.pipeline.prepare import without_repeats

ROOT = Path(__file__).parents[2]
NUMBERS = [column for column in COLUMNS if isinstance(column.kind, Integer | Real)]
CATEGORIES = [column for column in COLUMNS if isinstance(column.kind, Category)]


def name(column: Column) -> str:
    return column.name


def test_no_two_columns_have_one_name_or_one_source() -> None:
    assert len({column.name for column in COLUMNS}) == len({column.source for column in COLUMNS}) == len(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS, ids=name)
def test_every_column_has_a_description(column: Column) -> None:
    assert column.description


@pytest.mark.parametrize("column", NUMBERS, ids=name)
def test_the_lower_bound_of_a_number_is_below_the_upper(column: Column) -> None:
    assert isinstance(column.kind, Integer | Real)
    assert column.kind.ge is None or column.kind.le is None or column.kind.ge < column.kind.le


@pytest.mark.parametrize("column", CATEGORIES, ids=name)
def test_the_values_of_a_category_are_at_least_two_and_differ(column: Column) -> None:
    assert isinstance(column.kind, Category)
    assert 2 <= len(column.kind.values) == len(set(column.kind.values))


def test_rules_have_names_of_their_own_and_say_what_must_hold() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.description for rule in RULES)


@pytest.mark.skipif(not (ROOT / "src/churn/adopt").exists(), reason="`churn check` was deleted")
def test_churn_check_finds_no_mistake() -> None:
    program = Path(sys.executable).with_name("churn")
    done = subprocess.run([program, "check"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_raw_rows_keep_the_contract(raw: pa.Table) -> None:
    report = without_repeats(expectations.check(raw, both_classes=True), origins.ingested(ROOT / paths.RAW))

    assert [str(violation) for violation in report.violations] == []
