"""Sends every case through every way in, in a project's root after its pipeline ran: `python doors.py URL FOLDER OUT`.

OUT gets, as JSON, what each value became: (entrance, column, value, expected, found).
"""

import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from churn.adapters import expectations, onnx, sources
from churn.adapters.mlflow.registry import Registry
from churn.contract import BY_NAME, RAW_FEATURES, Flag
from churn.domain.encoding import computable, derive, encode
from churn.errors import ChurnError
from churn.pipeline.score import Model, production, score
from churn.settings import load_settings
from more_kinds import REFUSED, ROW, TEXTS, TYPED, Case

Way = Callable[[str, Any], Any]
"""Takes a column and a value of it; gives what it became, or the probability, or REFUSED."""


def spelled(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "Y" if value else "N"
        case _:
            return str(value)


def days(text: str) -> float:
    return float((date.fromisoformat(ROW["as_of"]) - date.fromisoformat(text)).days)


class Entrances:
    """Every way in."""

    def __init__(self, url: str, folder: Path) -> None:
        self.http = httpx2.Client(base_url=url, timeout=60)
        self.folder = folder
        self.model: Model = production(Registry(load_settings()))
        self.pyfunc_model = mlflow.pyfunc.load_model("models:/churn@production")
        self.number = 0

    def expected(self, column: str, becomes: Any) -> Any:
        """The probability of the row whose value is what the case must become, encoded as training does."""
        row = {**ROW, "joined": days(ROW["joined"]), "last_call": days(ROW["last_call"]), column: becomes}
        given = {each.name: row[each.name] for each in RAW_FEATURES}
        columns = {
            name: np.array([value], dtype=object if isinstance(value, str) or name in ("plan", "city", "device") else float)
            for name, value in given.items()
        }
        return float(onnx.predict(self.model.session, encode(derive(columns), self.model.inputs))[0])

    # Tables: prepare, ingest, score

    def csv(self, column: str, value: Any) -> Any:
        return self._checked(self._csv(column, value), column)

    def parquet(self, column: str, value: Any) -> Any:
        return self._checked(self._parquet(column, value), column)

    def sqlite(self, column: str, value: Any) -> Any:
        row = self._typed(column, value) | {"churned": "0"}
        path = self._path("db")
        with closing(sqlite3.connect(path)) as connection:
            kinds = [f"{name} {'BOOLEAN' if isinstance(each, bool) else ''}" for name, each in row.items()]
            connection.execute(f"CREATE TABLE customers ({', '.join(kinds)})")
            connection.execute(f"INSERT INTO customers VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
            connection.commit()
        return self._checked(f"sqlite:///{path}", column)

    def score_csv(self, column: str, value: Any) -> Any:
        return self._scored(self._csv(column, value))

    def score_parquet(self, column: str, value: Any) -> Any:
        return self._scored(self._parquet(column, value))

    # Requests

    def predict(self, column: str, value: Any) -> Any:
        return self._answered("/predict", {"customers": [self._typed(column, value)]}, lambda a: a["predictions"][0])

    def predict_left_out(self, column: str, value: Any) -> Any:
        row = {name: each for name, each in self._typed(column, value).items() if each is not None}
        return self._answered("/predict", {"customers": [row]}, lambda a: a["predictions"][0])

    def invocations(self, column: str, value: Any) -> Any:
        return self._answered(
            "/invocations", {"dataframe_records": [self._typed(column, value)]}, lambda answer: answer["predictions"][0]
        )

    def invocations_csv(self, column: str, value: Any) -> Any:
        text = pd.DataFrame([self._texts(column, value)]).to_csv(index=False)
        answer = self.http.post("/invocations", content=text, headers={"Content-Type": "text/csv"})
        assert answer.status_code in (200, 400), answer.text
        return answer.json()["predictions"][0]["churn_probability"] if answer.status_code == 200 else REFUSED

    def tensors(self, column: str, value: Any) -> Any:
        kinds = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
        described = {each["name"]: each["datatype"] for each in self.http.get("/v2/models/churn").json()["inputs"]}
        inputs = [
            {"name": name, "shape": [1], "datatype": kinds.get(type(each), described[name]), "data": [each]}
            for name, each in self._typed(column, value).items()
        ]
        return self._answered("/v2/models/churn/infer", {"inputs": inputs}, lambda answer: answer["outputs"][0]["data"][0])

    def page(self, column: str, value: Any) -> Any:
        row = {name: each for name, each in self._texts(column, value).items() if name != "customer_id"}
        body = urlencode(row)
        answer = self.http.post("/page/score", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code != 200:
            return REFUSED
        found = re.search(r"<strong>([0-9.]+) %</strong> <span>probability", answer.text)
        assert found, answer.text
        return float(found[1]) / 100

    def pyfunc(self, column: str, value: Any) -> Any:
        row = {name: each for name, each in self._typed(column, value).items() if name != "customer_id"}
        try:
            return float(self.pyfunc_model.predict(pd.DataFrame([row]))["churn_probability"][0])
        except mlflow.MlflowException:
            return REFUSED

    def _typed(self, column: str, value: Any) -> dict[str, Any]:
        return ROW | {column: value}

    def _texts(self, column: str, value: Any) -> dict[str, str]:
        return {name: spelled(each) for name, each in ROW.items()} | {column: value}

    def _csv(self, column: str, value: Any) -> Path:
        row = self._texts(column, value) | {"churned": "0"}
        pyarrow.csv.write_csv(pa.Table.from_pylist([row]), path := self._path("csv"))
        return path

    def _parquet(self, column: str, value: Any) -> Path:
        row = self._typed(column, value) | {"churned": "0"}
        table = pa.table({name: pa.array([each], from_pandas=False) for name, each in row.items()})
        pyarrow.parquet.write_table(table, path := self._path("parquet"))
        return path

    def _path(self, extension: str) -> Path:
        self.number += 1
        return self.folder / f"{self.number}.{extension}"

    def _checked(self, source: Path | str, column: str) -> Any:
        try:
            report = expectations.check(sources.read(str(source)))
        except ChurnError:
            return REFUSED
        if report.bad[0]:
            return REFUSED
        value = computable(report.frame).get(column, report.frame[column])
        [found] = np.asarray(value, dtype=object).tolist()
        if pd.isna(found):
            return None
        return bool(found) if isinstance(BY_NAME[column].kind, Flag) else found

    def _scored(self, source: Path) -> Any:
        out = source.with_suffix(".scores.parquet")
        try:
            score(source, out, self.model)
        except ChurnError:
            return REFUSED
        return pyarrow.parquet.read_table(out)["churn_probability"][0].as_py()

    def _answered(self, path: str, body: Any, chosen: Callable[[Any], Any]) -> Any:
        answer = self.http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 422), answer.text
        found = chosen(answer.json()) if answer.status_code == 200 else REFUSED
        return found["churn_probability"] if isinstance(found, dict) else found


OF_TEXTS = ("csv", "score_csv", "invocations_csv", "page")
OF_TYPED = ("parquet", "sqlite", "score_parquet", "predict", "predict_left_out", "invocations", "tensors", "pyfunc")
TABLES = ("csv", "parquet", "sqlite")


def verdicts(entrances: Entrances) -> Iterable[dict[str, Any]]:
    for names, cases in ((OF_TEXTS, TEXTS), (OF_TYPED, TYPED)):
        for name in names:
            for case in cases:
                yield _verdict(entrances, name, case)


def _verdict(entrances: Entrances, name: str, case: Case) -> dict[str, Any]:
    column, value, becomes = case
    found = getattr(entrances, name)(column, value)
    expected = becomes if becomes == REFUSED or name in TABLES else entrances.expected(column, becomes)
    return {"entrance": name, "column": column, "value": value, "expected": expected, "found": found}


if __name__ == "__main__":
    url, folder, out = sys.argv[1:]
    started = time.monotonic()
    Path(out).write_text(json.dumps(list(verdicts(Entrances(url, Path(folder))))))
    print(f"{time.monotonic() - started:.0f} s")
