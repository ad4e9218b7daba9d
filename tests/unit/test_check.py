"""`churn check` names each mistake of contract.py and features.py: its line, its column."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import churn.contract as shipped
from churn.adopt import definitions, tables
from churn.adopt.definitions import CONTRACT, FEATURES, Mistake

PHONE = 'Column(name="has_phone", kind=Flag(), source="PhoneService", description="Has a telephone line")'
TENURE = "kind=Integer(0, 720)"
GENDER = 'kind=Category(("Female", "Male"))'
ENTITY = 'name="customer_id"'


def phone(
    name: str = "has_phone", source: str = "PhoneService", description: str = "Has a telephone line", more: str = ""
) -> str:
    return f"Column(name={name!r}, kind=Flag(), source={source!r}, description={description!r}{more})"


def derived(body: str, decorator: str = "@feature(Real(ge=0))", name: str = "wrong", doc: str = '"""Wrong"""') -> str:
    return f"{decorator}\ndef {name}(c: Columns) -> Array:\n    {doc}\n    {body}\n\n\nFEATURES: "


IN_THE_CONTRACT = {
    "Python keyword as a name": (PHONE, phone("class"), 'name="class"', "class"),
    "space in a name": (PHONE, phone("has phone"), "'has phone'", "has phone"),
    "= in a name": (PHONE, phone("phone=yes"), "'phone=yes'", "phone=yes"),
    "name that begins with a digit": (PHONE, phone("2nd_line"), "'2nd_line'", "2nd_line"),
    "name that begins with _": (PHONE, phone("_phone"), "'_phone'", "_phone"),
    "name of the server's own": (PHONE, phone("model_fields"), "'model_fields'", "model_fields"),
    "name of the log's own": (PHONE, phone("latency_ms"), "'latency_ms'", "latency_ms"),
    "two columns of one name": (PHONE, phone("has_partner"), "source='PhoneService'", "has_partner"),
    "two columns of one source": (PHONE, phone(source="Partner"), "name='has_phone'", "has_phone"),
    "name that is another's source": (PHONE, phone("Partner"), "name='Partner'", "Partner"),
    "no description": (PHONE, phone(description=" "), "name='has_phone'", "has_phone"),
    "category twice": (GENDER, 'kind=Category(("Female", "Female"))', '"Female", "Female"', "gender"),
    "empty category": (GENDER, 'kind=Category(("Female", " "))', '"Female", " "', "gender"),
    "category that is no text": (GENDER, 'kind=Category(("Female", 1))', '"Female", 1', "gender"),
    "no categories": (GENDER, "kind=Category(())", "Category(())", "gender"),
    "categories without their own brackets": (GENDER, 'kind=Category("Female")', 'Category("Female")', "gender"),
    "reversed bounds": (TENURE, "kind=Integer(720, 0)", "Integer(720, 0)", "tenure_months"),
    "bound that is no number": (TENURE, 'kind=Integer("0", 720)', 'Integer("0", 720)', "tenure_months"),
    "fraction as the bound of an integer": (TENURE, "kind=Integer(0.5, 720)", "Integer(0.5, 720)", "tenure_months"),
    "flag of one text": ('kind=Flag("1", "0")', 'kind=Flag("1", "1")', 'Flag("1", "1")', "is_senior"),
    "kind without brackets": (TENURE, "kind=Integer", "kind=Integer,", "tenure_months"),
    "kind that a feature cannot have": (TENURE, "kind=Text()", None, "tenure_months"),
    "kind that does not exist": (TENURE, "kind=Number()", "kind=Number()", "tenure_months"),
    "field that does not exist": (PHONE, phone(more=", unit='none'"), "unit='none'", "has_phone"),
    "null_as that is not finite": ("null_as=0.0", 'null_as=float("nan")', "null_as=float", "total_charges"),
    "null_as of the label": (
        "role=Role.LABEL",
        "role=Role.LABEL, null_as=0",
        "role=Role.LABEL, null_as=0",
        "churned",
    ),
    "default without a time zone": ("default=SNAPSHOT", "default=datetime(2026, 1, 1)", "default=datetime(", "event_timestamp"),
    "mostly above 1": (PHONE, phone(more=", mostly=99"), "mostly=99", "has_phone"),
    "no entity": ("role=Role.ENTITY", "role=Role.FEATURE", "COLUMNS: tuple", "COLUMNS"),
    "two labels": (PHONE, phone(more=", role=Role.LABEL"), "role=Role.LABEL,\n", "churned"),
    "missing comma": (PHONE + ",", PHONE, None, ""),
    "rule on an unknown column": ('c["has_phone"] == False', 'c["hasphone"] == False', 'c["hasphone"]', "no_phone_no_lines"),
    "rule that raises": (
        'c["has_phone"] == False',
        'c["has_phone"].lower() == False',
        '["has_phone"].lower',
        "no_phone_no_lines",
    ),
    "rule of one value": (
        'return (c["has_phone"] == False)',
        'return True or (c["has_phone"] == False)',
        "def _no_phone_no_lines",
        "no_phone_no_lines",
    ),
    "rule without a docstring": (
        '    """multiple_lines is \'No phone service\' exactly where has_phone is No"""\n',
        "",
        "def _no_phone_no_lines",
        "no_phone_no_lines",
    ),
    "mostly of a rule above 1": (
        "(_no_phone_no_lines, 1.0)",
        "(_no_phone_no_lines, 95)",
        "def _no_phone_no",
        "no_phone_no_lines",
    ),
    "slice of an unknown column": ('Slice("term")', 'Slice("terms")', 'Slice("terms")', "terms"),
    "slice of the label": ('Slice("term")', 'Slice("churned")', 'Slice("churned")', "churned"),
    "slice twice": ('Slice("internet_service")', 'Slice("term")', None, "term"),
    "edges that do not increase": ("edges=(7, 25, 49)", "edges=(7, 49, 25)", "edges=(7, 49, 25)", "tenure_months"),
    "edges on a category": ('Slice("term")', 'Slice("term", edges=(1, 2))', 'Slice("term", edges', "term"),
    "protected column that is unknown": ('("gender", "is_senior")', '("gender", "senior")', '"senior")', "senior"),
    "protected without a comma": (
        '("gender", "is_senior")',
        '("gender")',
        'PROTECTED: tuple[str, ...] = ("gender")',
        "PROTECTED",
    ),
    "time to live that is no timedelta": ("timedelta(days=3650)", "3650", "FEATURE_TTL = 3650", "FEATURE_TTL"),
    "horizon of 0": ("timedelta(days=30)", "timedelta(0)", "LABEL_HORIZON = ", "LABEL_HORIZON"),
    "table that is not there": ("PROTECTED: tuple", "GUARDED: tuple", None, "PROTECTED"),
    "syntax error": (TENURE, "kind=Integer(0, 720", None, ""),
    "import of what does not exist": ("from functools import reduce", "from functools import fold", "import fold", ""),
}

IN_THE_FEATURES = {
    "feature that raises": (derived('return c["tenure_months"].lower()'), ".lower()", "wrong"),
    "feature of an unknown column": (derived('return c["tenure"] + 1'), 'c["tenure"]', "wrong"),
    "feature of one value": (derived('return c["tenure_months"].mean()'), "def wrong", "wrong"),
    "feature of fewer rows": (derived('return c["tenure_months"][1:]'), "def wrong", "wrong"),
    "feature with a column's name": (
        derived("return c['tenure_months']", name="tenure_months"),
        "def tenure_months",
        "tenure_months",
    ),
    "feature with the log's name": (derived("return c['tenure_months']", name="churn"), "def churn", "churn"),
    "feature twice": (derived("return c['tenure_months']", name="is_new"), "def is_new", "is_new"),
    "feature without a docstring": (derived("return c['tenure_months']", doc="pass"), "def wrong", "wrong"),
    "feature without a kind": (derived("return c['tenure_months']", decorator="@feature"), "@feature\n", "wrong"),
    "feature of reversed bounds": (derived("return c['tenure_months']", decorator="@feature(Real(1, 0))"), "def wrong", "wrong"),
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


def test_a_date_may_be_cut_into_bands(tmp_path: Path) -> None:
    contract = edited(CONTRACT, TENURE, "kind=Date()", tmp_path)

    assert 'Slice("tenure_months", edges=(7, 25, 49))' in contract.read_text()
    assert "tenure_months" not in {each.subject for each in mistakes(contract)}


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
    contract = edited(contract, GENDER, 'kind=Category(("Female", "Female"))', tmp_path)
    contract = edited(contract, 'Slice("term")', 'Slice("terms")', tmp_path)
    contract = edited(contract, PHONE, phone("has phone"), tmp_path)
    features = edited(FEATURES, "FEATURES: ", derived('return c["tenure"] + 1'), tmp_path)

    found = {each.subject for each in mistakes(contract, features)}

    assert {"tenure_months", "gender", "terms", "has phone", "wrong"} <= found


def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = edited(CONTRACT, TENURE, "kind=Integer(720, 0)", tmp_path)
    monkeypatch.chdir(tmp_path)

    (mistake,) = mistakes(contract)

    line = line_of(contract.read_text(), "Integer(720, 0)")
    assert str(mistake) == (f"contract.py:{line}: tenure_months: expected the lower bound first, got 720 above 0; exchange them")


def test_a_check_leaves_the_imported_modules_as_they_were(tmp_path: Path) -> None:
    import sys

    import churn.contract

    mistakes(edited(CONTRACT, TENURE, "kind=Integer(720, 0)", tmp_path))

    assert sys.modules["churn.contract"] is churn.contract
    assert str(churn.contract.BY_NAME["tenure_months"].kind) == "integer ≥ 0 and ≤ 720"
