"""The bodies that MLflow's scoring protocol takes, as rows of the contract's columns.

Source: mlflow.org/docs/latest/ml/deployment/deploy-model-locally; mlflow.pyfunc.scoring_server (MLflow 3.17).
"""

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from churn.contract import RAW_FEATURES, SCORED
from churn.domain.values import from_text
from serving.json_bodies import in_words, parse_json
from serving.problems import Invalid, TooLarge, Unsupported
from serving.schemas import Customer, renamed

NEEDED = tuple(each.name for each in RAW_FEATURES if not each.nullable)


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


def rows_of(body: bytes, content_type: str, limit: int) -> list[dict[str, Any]]:
    """The request's rows with the contract's columns alone; the values of a CSV body are read as the contract's kinds."""
    kind, _, parameters = content_type.lower().partition(";")
    if parameters.replace(" ", "").strip('"') not in ("", "charset=utf-8", 'charset="utf-8'):
        raise Unsupported("Content-Type has parameters other than charset=utf-8; send UTF-8")
    match kind.strip():
        case "text/csv":
            return [_read(row, number) for number, row in enumerate(_from_csv(body, limit))]
        case "" | "application/json":
            return [_plain(each) for each in _from_json(body, limit)]
        case _:
            raise Unsupported("Content-Type is neither application/json nor text/csv; send one of them")


def _from_json(body: bytes, limit: int) -> list[dict[str, Any]]:
    parsed = parse_json(body)
    given = FORMS.keys() & parsed.keys() if isinstance(parsed, dict) else set()
    if len(given) != 1:
        raise Invalid(f"body: not a JSON object with exactly one of {', '.join(FORMS)}; give one of them")
    if not isinstance(parsed.get("params"), dict | None):
        raise Invalid("params: not a JSON object; correct it, or leave it out: the model has none")
    form = given.pop()
    try:
        content = FORMS[form].validate_python(parsed[form])
    except ValidationError as error:
        raise Invalid(f"{form}: {in_words(error.errors())}") from None
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
        raise Invalid(f"columns: {missing[0]} is missing; {renamed(columns) or 'add it'}")
    try:
        return [dict(zip(columns, row, strict=True)) for row in rows]
    except ValueError:
        raise Invalid(f"data: a row has not as many values as there are columns ({len(columns)}); correct it") from None


def _transposed(columns: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The rows of column → values, or the one row of column → value."""
    lengths = {len(values) if isinstance(values, list) else None for values in columns.values()}
    if len(lengths) > 1:
        raise Invalid("the columns have not all as many values; give a list of one length for each, or a value for each")
    if not columns or None in lengths:
        return [columns]
    rows = range(lengths.pop() or 0)
    _refuse_raw_names(columns)
    known = {each.name: columns[each.name] for each in SCORED if each.name in columns}
    return [{name: values[row] for name, values in known.items()} for row in _within(list(rows), limit)]


def _from_csv(body: bytes, limit: int) -> list[dict[str, Any]]:
    try:
        lines = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        table = [line for line in islice(lines, limit + 2) if line]
    except (UnicodeDecodeError, csv.Error):
        raise Invalid("body: not CSV in UTF-8; correct it") from None
    if not table:
        raise Invalid("body: no header line; begin with the columns' names")
    if len(table) > limit + 1:
        raise TooLarge(f"more than {limit} rows at once; send fewer")
    return _paired([*table[0]], table[1:])


def _read(row: Mapping[str, str], number: int) -> dict[str, Any]:
    """The contract's columns of a row of texts, as their kinds; extra ones are left out."""
    values = {}
    for column in SCORED:
        if column.name in row:
            try:
                values[column.name] = from_text(column.kind, row[column.name])
            except ValueError as error:
                raise Invalid(f"[{number}].{column.name}: {error}; correct it") from None
    return values


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The contract's columns of a row, NaN as the null for which pandas writes it; extra columns are left out."""
    _refuse_raw_names(row)
    found = {each.name: row[each.name] for each in SCORED if each.name in row}
    return {name: None if value != value else value for name, value in found.items()}  # noqa: PLR0124 - only NaN differs


def _refuse_raw_names(row: Mapping[Any, Any]) -> None:
    if any(name not in row for name in NEEDED) and (how := renamed(row)):
        raise Invalid(f"the raw file's column names; {how}")


def documented() -> dict[str, Any]:
    """The OpenAPI of the bodies: the contract's columns."""
    columns = Customer.model_json_schema()["properties"]
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
