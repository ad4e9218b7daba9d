"""`churn check` names each mistake of contract.py and features.py: its line, its column."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import churn.contract as shipped
from churn.adopt import definitions, tables
from churn.adopt.definitions import CONTRACT, FEATURES, Mistake

LOCKER = 'Column(name="has_locker", kind=Flag(), source="Locker", description="Has a locker")'
TENURE = "kind=Integer(0, 720)"
LANGUAGE = 'kind=Category(("Danish", "Dutch"))'
ENTITY = 'name="customer_id"'


def locker(name: str = "has_locker", source: str = "Locker", description: str = "Has a locker", more: str = "") -> str:
    return f"Column(name={name!r}, kind=Flag(), source={source!r}, description={description!r}{more})"


def derived(body: str, decorator: str = "@feature(Real(ge=0))", name: str = "wrong", doc: str = '"""Wrong"""') -> str:
    return f"{decorator}\ndef {name}(c: Columns) -> Array:\n    {doc}\n    {body}\n\n\nFEATURES: "


IN_THE_CONTRACT = {
    "Python keyword as a name": (LOCKER, locker("class"), 'name="class"', "class"),
    "space in a name": (LOCKER, locker("has locker"), "'has locker'", "has locker"),
    "= in a name": (LOCKER, locker("locker=yes"), "'locker=yes'", "locker=yes"),
    "name that begins with a digit": (LOCKER, locker("2nd_line"), "'2nd_line'", "2nd_line"),
    "name that begins with _": (LOCKER, locker("_locker"), "'_locker'", "_locker"),
    "name of the server's own": (LOCKER, locker("model_fields"), "'model_fields'", "model_fields"),
    "name of the log's own": (LOCKER, locker("latency_ms"), "'latency_ms'", "latency_ms"),
    "two columns of one name": (LOCKER, locker("is_duo"), "source='Locker'", "is_duo"),
    "two columns of one source": (LOCKER, locker(source="Duo"), "name='has_locker'", "has_locker"),
    "name that is another's source": (LOCKER, locker("Duo"), "name='Duo'", "Duo"),
    "no description": (LOCKER, locker(description=" "), "name='has_locker'", "has_locker"),
    "category twice": (LANGUAGE, 'kind=Category(("Danish", "Danish"))', '"Danish", "Danish"', "language"),
    "empty category": (LANGUAGE, 'kind=Category(("Danish", " "))', '"Danish", " "', "language"),
    "category that is no text": (LANGUAGE, 'kind=Category(("Danish", 1))', '"Danish", 1', "language"),
    "no categories": (LANGUAGE, "kind=Category(())", "Category(())", "language"),
    "categories without their own brackets": (LANGUAGE, 'kind=Category("Danish")', 'Category("Danish")', "language"),
    "reversed bounds": (TENURE, "kind=Integer(720, 0)", "Integer(720, 0)", "member_months"),
    "bound that is no number": (TENURE, 'kind=Integer("0", 720)', 'Integer("0", 720)', "member_months"),
    "fraction as the bound of an integer": (TENURE, "kind=Integer(0.5, 720)", "Integer(0.5, 720)", "member_months"),
    "flag of one text": ('kind=Flag("1", "0")', 'kind=Flag("1", "1")', 'Flag("1", "1")', "is_student"),
    "kind without brackets": (TENURE, "kind=Integer", "kind=Integer,", "member_months"),
    "kind that a feature cannot have": (TENURE, "kind=Text()", None, "member_months"),
    "kind that does not exist": (TENURE, "kind=Number()", "kind=Number()", "member_months"),
    "field that does not exist": (LOCKER, locker(more=", unit='none'"), "unit='none'", "has_locker"),
    "null_as that is not finite": ("null_as=0.0", 'null_as=float("nan")', "null_as=float", "total_fees"),
    "null_as that no input holds": ("null_as=0.0", "null_as=10**400", "null_as=10**400", "total_fees"),
    "bound that no float holds": (TENURE, "kind=Integer(0, 10**400)", "10**400", "member_months"),
    "categories that are no texts": (TENURE, "kind=Category(None)", "Category(None)", "member_months"),
    "name that is no text": (LOCKER, "Column(name=5, kind=Flag(), description='x')", "name=5", "5"),
    "null_as of the label": (
        "role=Role.LABEL",
        "role=Role.LABEL, null_as=0",
        "role=Role.LABEL, null_as=0",
        "churned",
    ),
    "default without a time zone": ("default=SNAPSHOT", "default=datetime(2026, 1, 1)", "default=datetime(", "event_timestamp"),
    "mostly above 1": (LOCKER, locker(more=", mostly=99"), "mostly=99", "has_locker"),
    "no entity": ("role=Role.ENTITY", "role=Role.FEATURE", "COLUMNS: tuple", "COLUMNS"),
    "two labels": (LOCKER, locker(more=", role=Role.LABEL"), "role=Role.LABEL,\n", "churned"),
    "missing comma": (LOCKER + ",", LOCKER, None, ""),
    "rule on an unknown column": ('c["has_locker"] == False', 'c["haslocker"] == False', 'c["haslocker"]', "no_locker_no_second"),
    "rule that raises": (
        'c["has_locker"] == False',
        'c["has_locker"].lower() == False',
        '["has_locker"].lower',
        "no_locker_no_second",
    ),
    "rule of one value": (
        'return (c["has_locker"] == False)',
        'return True or (c["has_locker"] == False)',
        "def _no_locker_no_second",
        "no_locker_no_second",
    ),
    "rule without a docstring": (
        '    """second_locker is \'No locker\' exactly where has_locker is No"""\n',
        "",
        "def _no_locker_no_second",
        "no_locker_no_second",
    ),
    "mostly of a rule above 1": (
        "(_no_locker_no_second, 1.0)",
        "(_no_locker_no_second, 95)",
        "def _no_locker_no",
        "no_locker_no_second",
    ),
    "slice of an unknown column": ('Slice("commitment")', 'Slice("terms")', 'Slice("terms")', "terms"),
    "slice of the label": ('Slice("commitment")', 'Slice("churned")', 'Slice("churned")', "churned"),
    "slice twice": ('Slice("pool_access")', 'Slice("commitment")', None, "commitment"),
    "edges that do not increase": ("edges=(7, 25, 49)", "edges=(7, 49, 25)", "edges=(7, 49, 25)", "member_months"),
    "edges on a category": (
        'Slice("commitment")',
        'Slice("commitment", edges=(1, 2))',
        'Slice("commitment", edges',
        "commitment",
    ),
    "protected column that is unknown": ('("language", "is_student")', '("language", "student")', '"student")', "student"),
    "protected without a comma": (
        '("language", "is_student")',
        '("language")',
        'PROTECTED: tuple[str, ...] = ("language")',
        "PROTECTED",
    ),
    "time to live that is no timedelta": ("timedelta(days=3650)", "3650", "FEATURE_TTL = 3650", "FEATURE_TTL"),
    "horizon of 2,000 years": ("timedelta(days=30)", "timedelta(days=800000)", "LABEL_HORIZON = ", "LABEL_HORIZON"),
    "slice of several columns": ('Slice("commitment")', 'Slice(["commitment"])', 'Slice(["commitment"])', "['commitment']"),
    "rule of lists": (
        'return (c["has_locker"] == False)',
        "return [[1], [2, 3]] or (1)",
        "def _no_locker_no_second",
        "no_locker_no_second",
    ),
    "rule on a mean": (
        'return (c["has_locker"] == False)',
        'return (c["member_months"] < c["member_months"].mean()) | (c["has_locker"] == False)',
        "def _no_locker_no_second",
        "no_locker_no_second",
    ),
    "columns added later": (
        "EXTRAS = (",
        "COLUMNS += (Column(name='a b', kind=Flag(), description='x'),)\nADD_ONS = (",
        "COLUMNS +=",
        "a b",
    ),
    "file that ends Python": ("EXTRAS = (", "raise SystemExit(3)\nADD_ONS = (", "raise SystemExit(3)", ""),
    "horizon of 0": ("timedelta(days=30)", "timedelta(0)", "LABEL_HORIZON = ", "LABEL_HORIZON"),
    "table that is not there": ("PROTECTED: tuple", "GUARDED: tuple", None, "PROTECTED"),
    "syntax error": (TENURE, "kind=Integer(0, 720", None, ""),
    "import of what does not exist": ("from functools import reduce", "from functools import fold", "import fold", ""),
}

IN_THE_FEATURES = {
    "feature that raises": (derived('return c["member_months"].lower()'), ".lower()", "wrong"),
    "feature of an unknown column": (derived('return c["Membership"] + 1'), 'c["Membership"]', "wrong"),
    "feature of one value": (derived('return c["member_months"].mean()'), "def wrong", "wrong"),
    "feature of fewer rows": (derived('return c["member_months"][1:]'), "def wrong", "wrong"),
    "feature of lists": (derived("return [[1], [2, 3]]"), "def wrong", "wrong"),
    "feature of a mean": (derived('return c["member_months"] / c["member_months"].mean()'), "def wrong", "wrong"),
    "feature of a rank": (derived('return np.argsort(np.argsort(c["member_months"]))'), "def wrong", "wrong"),
    "feature of a sum of all rows before": (derived('return np.cumsum(c["member_months"])'), "def wrong", "wrong"),
    "feature of chance": (derived('return np.random.rand(len(c["commitment"]))'), "def wrong", "wrong"),
    "feature that changes a column": (
        derived('charges = c["total_fees"]\n    charges[np.isnan(charges)] = 0\n    return charges'),
        "charges[np.isnan(charges)] = 0",
        "wrong",
    ),
    "feature that adds a column": (derived('c["x"] = c["member_months"]\n    return c["x"]'), 'c["x"] = c', "wrong"),
    "feature with a column's name": (
        derived("return c['member_months']", name="member_months"),
        "def member_months",
        "member_months",
    ),
    "feature with the log's name": (derived("return c['member_months']", name="churn"), "def churn", "churn"),
    "feature twice": (derived("return c['member_months']", name="is_beginner"), "def is_beginner", "is_beginner"),
    "feature without a docstring": (derived("return c['member_months']", doc="pass"), "def wrong", "wrong"),
    "feature without a kind": (derived("return c['member_months']", decorator="@feature"), "@feature\n", "wrong"),
    "feature of reversed bounds": (derived("return c['member_months']", decorator="@feature(Real(1, 0))"), "def wrong", "wrong"),
    "syntax error": (derived("return c["), None, ""),
}


def line_of(text: str, marker: str) -> int:
    """The number of the last line on which the marker begins."""
    return text[: text.rindex(marker)].count("\n") + 1


def edited(path: Path, old: str, new: str, folder: Path) -> Path:
    text = path.read_text()
    assert old in text
    target = folder / path.name
    target.write_text(text.replace(old, new, 1))
    return target


def mistakes(contract: Path = CONTRACT, features: Path = FEATURES) -> list[Mistake]:
    return tables.mistakes(definitions.load(contract, features))


def test_the_shipped_contract_and_features_have_no_mistake() -> None:
    assert mistakes() == []


@pytest.mark.parametrize(("old", "new", "marker", "subject"), IN_THE_CONTRACT.values(), ids=IN_THE_CONTRACT)
def test_a_mistake_of_the_contract_has_its_line_and_column(
    old: str, new: str, marker: str | None, subject: str, tmp_path: Path
) -> None:
    contract = edited(CONTRACT, old, new, tmp_path)

    found = [each for each in mistakes(contract) if each.file == contract and each.subject == subject]

    assert found
    if marker:
        marker = marker if marker in contract.read_text() else marker.replace('"', "'")
        assert line_of(contract.read_text(), marker) in {each.line for each in found}
    assert all(re.fullmatch("expected .+, got .+; .+", each.text) for each in found)


@pytest.mark.parametrize(("new", "marker", "subject"), IN_THE_FEATURES.values(), ids=IN_THE_FEATURES)
def test_a_mistake_of_the_features_has_its_line_and_name(new: str, marker: str | None, subject: str, tmp_path: Path) -> None:
    features = edited(FEATURES, "FEATURES: ", new, tmp_path)

    found = [each for each in mistakes(features=features) if each.subject == subject]

    assert found
    assert {each.file for each in found} == {features}
    assert all(re.fullmatch("expected .+, got .+; .+", each.text) for each in found)
    if marker:
        assert line_of(features.read_text(), marker) in {each.line for each in found}


def test_a_contract_that_cannot_be_read_makes_no_mistakes_of_the_features(tmp_path: Path) -> None:
    assert {each.file.name for each in mistakes(edited(CONTRACT, TENURE, "kind=Integer(0, 720", tmp_path))} == {"contract.py"}


def test_an_entry_that_is_no_column_makes_no_names_of_the_features_unknown(tmp_path: Path) -> None:
    found = mistakes(edited(CONTRACT, LOCKER, '"has_locker"', tmp_path))

    assert not [each for each in found if "NameError" in each.text]


def test_a_feature_below_the_list_of_inputs_is_named(tmp_path: Path) -> None:
    features = tmp_path / "features.py"
    late = "\n@feature(Real())\ndef late(c: Columns) -> Array:\n    'Late'\n    return c['member_months']\n"
    features.write_text(FEATURES.read_text() + late)

    (mistake,) = mistakes(features=features)

    assert (mistake.subject, mistake.line) == ("late", line_of(features.read_text(), "def late"))


def test_features_without_the_list_of_inputs_are_one_mistake(tmp_path: Path) -> None:
    (mistake,) = mistakes(features=edited(FEATURES, "FEATURES: ", "INPUTS: ", tmp_path))

    assert mistake.subject == "FEATURES"


def test_a_date_may_be_cut_into_bands(tmp_path: Path) -> None:
    contract = edited(CONTRACT, TENURE, "kind=Date()", tmp_path)

    assert 'Slice("member_months", edges=(7, 25, 49))' in contract.read_text()
    assert "member_months" not in {each.subject for each in mistakes(contract)}


def test_the_rule_of_the_page_is_true_where_a_row_keeps_it() -> None:
    (page,) = re.findall(r"```python\n(def _free.+?)```", Path("docs/contract.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {**vars(shipped)}
    exec(page, names)
    plans, prices = np.array(["Free", "Free", "Basic", "Basic"]), np.array([0, 5, 0, 5])

    (rule,) = names["RULES"]

    assert rule.description == "price_cents is 0 exactly where plan is Free"
    assert list(rule.holds({"plan": plans, "price_cents": prices})) == [True, False, False, True]


def test_all_mistakes_are_found_in_one_run(tmp_path: Path) -> None:
    contract = edited(CONTRACT, TENURE, "kind=Integer(720, 0)", tmp_path)
    contract = edited(contract, LANGUAGE, 'kind=Category(("Danish", "Danish"))', tmp_path)
    contract = edited(contract, 'Slice("commitment")', 'Slice("terms")', tmp_path)
    contract = edited(contract, LOCKER, locker("has locker"), tmp_path)
    features = edited(FEATURES, "FEATURES: ", derived('return c["Membership"] + 1'), tmp_path)

    found = {each.subject for each in mistakes(contract, features)}

    assert {"member_months", "language", "terms", "has locker", "wrong"} <= found


def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = edited(CONTRACT, TENURE, "kind=Integer(720, 0)", tmp_path)
    monkeypatch.chdir(tmp_path)

    (mistake,) = mistakes(contract)

    line = line_of(contract.read_text(), "Integer(720, 0)")
    assert str(mistake) == (f"contract.py:{line}: member_months: expected the lower bound first, got 720 above 0; exchange them")


def test_a_check_leaves_the_imported_modules_as_they_were(tmp_path: Path) -> None:
    import sys

    import churn.contract

    mistakes(edited(CONTRACT, TENURE, "kind=Integer(720, 0)", tmp_path))

    assert sys.modules["churn.contract"] is churn.contract
    assert str(churn.contract.BY_NAME["member_months"].kind) == "integer ≥ 0 and ≤ 720"
