"""Great Expectations: rows are typed by the contract, then validated by a suite derived from it."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from churn.adapters.files import atomic_path
from churn.adapters.rows import READABLE, typed, violation
from churn.contract import (
    BY_NAME,
    COLUMNS,
    ENTITY,
    LABEL,
    RULES,
    TIMESTAMP,
    Category,
    Column,
    Date,
    Integer,
    Real,
    Violation,
)
from churn.domain.encoding import computable
from churn.errors import ContractError

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.types.base import DataContextConfig
    from great_expectations.expectations.expectation import Expectation

log = logging.getLogger(__name__)

FILLED = "a value"
UNIQUE = f"one row per {ENTITY} and {TIMESTAMP}"
BOTH_CLASSES = "both classes"
TWO_CLASSES = "(a label has two classes: of several, or of a number, make a yes/no column in the source)"
GOT = {FILLED: "none", UNIQUE: "repeats"}
"""What the rows that break a rule have instead, where it is not another value."""


@dataclass(frozen=True)
class Report:
    """What a check found: the rows as they came and as typed, the violations, and one record per expectation.

    `bad` holds a boolean per row of `frame`: True where the row breaks a violated rule.
    """

    table: pa.Table
    frame: pd.DataFrame
    violations: tuple[Violation, ...]
    bad: "pd.Series[bool]"
    records: tuple[dict[str, Any], ...]


def check(table: pa.Table, *, both_classes: bool = False) -> Report:
    """The table's rows typed by the contract, and every rule that they break.

    `table` holds contract columns as text or as their own types, as `sources.read` returns them. A row with a value that
    cannot be read as its kind breaks that rule alone. With `both_classes`, churned customers and others must both occur: what
    is learned from needs both, an increment of it does not.

    Raises:
        ContractError: a column's type stands for no values of its kind.
    """
    frame, unreadable = typed(table)
    misfits = pd.Series(False, index=frame.index)
    violations, records = [], []
    for name, mask in unreadable.items():
        misfits |= mask
        rule = READABLE.format(BY_NAME[name].kind) + (f" {TWO_CLASSES}" if name == LABEL else "")
        values = table[name].filter(pa.array(mask)).cast(pa.string()).to_pandas().set_axis(frame.index[mask])
        violations.append(_violation(name, rule, frame, values))
        records.append({"column": name, "rule": rule, "rows": len(frame), "unexpected": len(values), "success": False})
    bad = misfits.copy()
    for result in _validate(frame[~misfits], both_classes=both_classes) if not misfits.all() else []:
        found, rows = _read(result, frame)
        records.append(_record(result, len(frame)))
        if found:
            violations.append(found)
            bad.loc[rows] = True
    return Report(table, frame, tuple(violations), bad, tuple(records))


def accept(report: Report, *, source: str, quarantine: Path) -> pd.DataFrame:
    """The report's rows, if they keep the contract; else the bad ones go, as they came, to `rows.csv` in the folder `quarantine`.

    Raises:
        ContractError: rows break the contract: each column, rule, count and first ids.
    """
    if not report.violations:
        return report.frame
    reasons = "; ".join(map(str, report.violations))
    rows = "the rows"
    if report.bad.any():
        path = quarantine / "rows.csv"
        with atomic_path(path) as temporary:
            pyarrow.csv.write_csv(report.table.filter(pa.array(report.bad)), temporary)
        rows = f"the rows, of which {path} is a copy"
    raise ContractError(f"{source}: {reasons}; correct {rows}, or widen the rule in contract.py")


def write_report(report: Report, folder: Path) -> None:
    """Write the report for people (`index.html`, which needs no network) and for programs (`results.json`)."""
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader("churn.adapters"), autoescape=True).get_template("validation.html")
    page = template.render(records=report.records, violations=report.violations, rows=len(report.frame))
    for name, text in (("index.html", page), ("results.json", json.dumps(report.records, indent=2))):
        with atomic_path(folder / name) as path:
            path.write_text(text)


def suite(*, both_classes: bool = False) -> "list[Expectation]":
    """The contract as expectations, in the contract's order, then what must hold between columns and rows."""
    import great_expectations.expectations as gxe

    between_columns = [gxe.ExpectColumnValuesToBeInSet(column=rule.name, value_set=[True], mostly=rule.mostly) for rule in RULES]
    classes = [gxe.ExpectColumnUniqueValueCountToBeBetween(column=LABEL, min_value=2)] if both_classes else []
    return [
        *(expectation for column in COLUMNS for expectation in _of_column(column)),
        *between_columns,
        gxe.ExpectCompoundColumnsToBeUnique(column_list=[ENTITY, TIMESTAMP]),
        *classes,
    ]


def _of_column(column: Column) -> "list[Expectation]":
    import great_expectations.expectations as gxe

    found: list[Expectation] = []
    if not column.nullable:
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
    match column.kind:
        case Date():
            found.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=0, mostly=column.mostly))
        case Integer(ge, le) | Real(ge, le) if ge is not None or le is not None:
            found.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=ge, max_value=le, mostly=column.mostly))
        case Category(values):
            found.append(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(values), mostly=column.mostly))
    return found


def _validate(frame: pd.DataFrame, *, both_classes: bool) -> "list[ExpectationValidationResult]":
    """The suite's results on typed rows; each rule of the contract becomes a boolean column first."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral", project_config=_quiet_config())
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    columns = frame.assign(**computable(frame))
    with_rules = columns.assign(**{rule.name: np.asarray(rule.holds(columns)) for rule in RULES})
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": with_rules})
    expectations = [each for each in suite(both_classes=both_classes) if getattr(each, "column", "") in ("", *with_rules.columns)]
    outcome = batch.validate(
        gx.ExpectationSuite(name="contract", expectations=expectations), result_format={"result_format": "COMPLETE"}
    )
    return list(outcome.results)


def _quiet_config() -> "DataContextConfig":
    """No progress bars, and no site of Great Expectations' own: its pages need the network."""
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    return DataContextConfig(store_backend_defaults=stores, progress_bars=ProgressBarsConfig(globally=False))


def _read(result: "ExpectationValidationResult", frame: pd.DataFrame) -> tuple[Violation | None, list[Any]]:
    """The violation that a result speaks of, if any, and the index of the rows that cause it."""
    if result.success:
        return None, []
    if result.exception_info.get("raised_exception", True):
        raise ContractError(f"{_subject(result)}: Great Expectations could not evaluate it: {result.exception_info}")
    rows = result.result.get("unexpected_index_list", [])
    subject = _subject(result)
    if subject == LABEL and "observed_value" in result.result:
        return Violation(LABEL, BOTH_CLASSES, len(frame), got="one alone"), []
    # Of a rule between columns no value is wrong by itself.
    values = frame.loc[rows, subject] if subject in frame else pd.Series(None, index=rows, dtype=object)
    return _violation(subject, _rule(result), frame, values), rows


def _violation(subject: str, rule: str, frame: pd.DataFrame, values: "pd.Series[Any]") -> Violation:
    return violation(subject, rule, len(values), _first(frame, values.head(20)), got=GOT.get(rule, Violation.got))


def _first(frame: pd.DataFrame, values: "pd.Series[Any]") -> tuple[tuple[str, str], ...]:
    return tuple((_entity(frame[ENTITY].get(index)), _shown(value)) for index, value in values.items())


def _entity(value: Any) -> str:
    return f"no {ENTITY}" if pd.isna(value) else str(value)


def _shown(value: Any) -> str:
    """The value as text, in quotation marks where blanks or line breaks would not be seen; empty for a null."""
    text = "" if pd.isna(value) else str(value).removesuffix(" 00:00:00+00:00")
    return repr(text) if text != text.strip() or not text.isprintable() else text


def _subject(result: "ExpectationValidationResult") -> str:
    kwargs = result.expectation_config.kwargs if result.expectation_config else {}
    return str(kwargs.get("column", ENTITY))


def _rule(result: "ExpectationValidationResult") -> str:
    kind = result.expectation_config.type if result.expectation_config else ""
    subject = _subject(result)
    if kind == "expect_compound_columns_to_be_unique":
        return UNIQUE
    if kind == "expect_column_unique_value_count_to_be_between":
        return BOTH_CLASSES
    if kind == "expect_column_values_to_not_be_null":
        return FILLED
    return next((rule.description for rule in RULES if rule.name == subject), None) or str(BY_NAME[subject].kind)


def _record(result: "ExpectationValidationResult", rows: int) -> dict[str, Any]:
    return {
        "column": _subject(result),
        "rule": _rule(result),
        "rows": int(result.result.get("element_count", rows)),
        "unexpected": int(result.result.get("unexpected_count", 0 if result.success else rows)),
        "success": bool(result.success),
    }
