"""The bodies that MLflow's scoring protocol takes, as rows of the contract's columns.

Source: mlflow.org/docs/latest/ml/deployment/deploy-model-locally; mlflow.pyfunc.scoring_server (MLflow 3.17).
"""

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from churn.contract import BY_NAME, ENTITY, RAW_FEATURES, Column, Flag, Integer, Real
from serving.problems import Invalid, TooLarge, Unsupported
from serving.schemas import Customer
from serving.service import in_words

NULLS = frozenset({"", "nan", "-nan", "null", "none", "na", "n/a", "<na>"})
"""How a CSV file spells a missing number, in small letters. Source: pandas.read_csv."""

COLUMNS = (BY_NAME[ENTITY], *RAW_FEATURES)
NEEDED = tuple(each.name for each in RAW_FEATURES if not each.nullable)
NUMBERS = frozenset(each.name for each in RAW_FEATURES if isinstance(each.kind, Integer | Real))


class Split(BaseModel):
    """A table as `DataFrame.to_dict(orient="split")` gives it."""

    model_config = ConfigDict(extra="forbid")

    columns: Annotated[list[str | int], Field(fail_fast=True)]
    data: Annotated[list[list[Any]], Field(fail_fast=True)]
    index: list[Any] | None = None


# One wrong row is reason enough: a body of a megabyte has room for millions of errors.
Records = Annotated[list[dict[str, Any]], Field(fail_fast=True)]
FORMS: dict[str, TypeAdapter[Any]] = {
    "dataframe_split": TypeAdapter(Split),
    "dataframe_records": TypeAdapter(Records),
    "instances": TypeAdapter(Records | dict[str, Any]),
    "inputs": TypeAdapter(Records | dict[str, Any]),
}


def rows_of(body: bytes, content_type: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The request's rows, and whether they are text that is to be read as the contract's kinds."""
    kind, _, parameters = content_type.lower().partition(";")
    if parameters.replace(" ", "").strip('"') not in ("", "charset=utf-8", 'charset="utf-8'):
        raise Unsupported("Content-Type has parameters other than charset=utf-8; send UTF-8")
    match kind.strip():
        case "text/csv":
            return [_plain(each) for each in _from_csv(body, limit)], True
        case "" | "application/json":
            return [_plain(each) for each in _from_json(body, limit)], False
        case _:
            raise Unsupported("Content-Type is neither application/json nor text/csv; send one of them")


def _from_json(body: bytes, limit: int) -> list[dict[str, Any]]:
    try:
        parsed = from_json(body)
    except ValueError as error:
        raise Invalid(f"body: not JSON: {error}; correct it") from error
    given = FORMS.keys() & parsed.keys() if isinstance(parsed, dict) else set()
    if len(given) != 1:
        raise Invalid(f"body: not a JSON object with exactly one of {', '.join(FORMS)}; give one of them")
    if not isinstance(parsed.get("params"), dict | None):
        raise Invalid("params: not a JSON object; correct it, or leave it out: the model has none")
    form = given.pop()
    try:
        content = FORMS[form].validate_python(parsed[form])
    except ValidationError as error:
        raise Invalid(f"{form}: {in_words(error)}") from error
    match content:
        case Split():
            return _paired(content.columns, _within(content.data, limit))
        case dict():
            return _transposed(content, limit)
        case _:
            return _within(content, limit)


def _within(rows: list[Any], limit: int) -> list[Any]:
    if len(rows) > limit:
        raise TooLarge(f"{len(rows)} rows at once; at most {limit} are taken: send fewer")
    return rows


def _paired(columns: list[str | int], rows: Iterable[list[Any]]) -> list[Any]:
    if len(set(columns)) < len(columns):
        raise Invalid("columns: one name is given twice; name each column once")
    if missing := [name for name in NEEDED if name not in columns]:
        raise Invalid(f"columns: {missing[0]} is missing; add it")
    try:
        return [dict(zip(columns, row, strict=True)) for row in rows]
    except ValueError as error:
        raise Invalid(f"data: a row has not as many values as there are columns ({len(columns)}); correct it") from error


def _transposed(columns: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The rows of column → values, or the one row of column → value."""
    lengths = {len(values) if isinstance(values, list) else None for values in columns.values()}
    if len(lengths) > 1:
        raise Invalid("the columns have not all as many values; give a list of one length for each, or a value for each")
    if not columns or None in lengths:
        return [columns]
    rows = range(lengths.pop() or 0)
    known = {each.name: columns[each.name] for each in COLUMNS if each.name in columns}
    return [{name: values[row] for name, values in known.items()} for row in _within(list(rows), limit)]


def _from_csv(body: bytes, limit: int) -> list[dict[str, Any]]:
    try:
        lines = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        table = [line for line in islice(lines, limit + 2) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Invalid("body: not CSV in UTF-8; correct it") from error
    if not table:
        raise Invalid("body: no header line; begin with the columns' names")
    if len(table) > limit + 1:
        raise TooLarge(f"more than {limit} rows at once; send fewer")
    rows = _paired([*table[0]], table[1:])
    return [
        {name: None if name in NUMBERS and text.strip().lower() in NULLS else text for name, text in row.items()} for row in rows
    ]


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The contract's columns of a row; extra ones are left out."""
    return {each.name: _value(each, row[each.name]) for each in COLUMNS if each.name in row}


def _value(column: Column, value: Any) -> Any:
    """What pandas meant: it writes a null as NaN, and whole numbers and flags with nulls among them as floats."""
    match column.kind:
        case _ if isinstance(value, float) and value != value:  # noqa: PLR0124 - only NaN differs from itself
            return None
        case Integer() if isinstance(value, float) and value.is_integer():
            return int(value)
        case Flag() if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        case _ if column.name == ENTITY and type(value) is int:
            return str(value)
    return value


def documented() -> dict[str, Any]:
    """The OpenAPI of the bodies: the contract's columns, with the spellings that `_value` understands."""
    columns = Customer.model_json_schema()["properties"]
    for each in COLUMNS:
        if isinstance(each.kind, Flag):
            columns[each.name] |= {"type": ["boolean", "number"], "enum": [True, False, 0, 1]}
    columns[ENTITY]["anyOf"].append({"type": "integer"})
    row = {"type": "object", "properties": columns, "required": [*NEEDED]}
    lists = {name: {"type": "array", "items": each} for name, each in columns.items()}
    records = {"type": "array", "items": row}
    either = {"anyOf": [records, row, {"type": "object", "properties": lists, "required": [*NEEDED]}]}
    forms = {"dataframe_split": Split.model_json_schema(), "dataframe_records": records, "instances": either, "inputs": either}
    schema = {
        "type": "object",
        "properties": {**forms, "params": {"type": ["object", "null"]}},
        "oneOf": [{"required": [form]} for form in forms],
    }
    return {"application/json": {"schema": schema}, "text/csv": {"schema": {"type": "string"}}}
