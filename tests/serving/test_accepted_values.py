"""Every interface accepts or refuses the same values, and converts them alike: the cases of tests/support/accepted.py.

An entrance that has no type for a value refuses it, or never sees it: MLflow's signature, for one, has no numbers for flags.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from accepted import INF, NAN, NEW, REFUSED, TEXTS, TYPED, Case
from churn.adapters import bundle, expectations, onnx, sources
from churn.adapters.mlflow import tracking
from churn.contract import BY_NAME, ENTITY, RAW_FEATURES, TIMESTAMP, Category, Flag, Integer, Real, Text
from churn.domain.encoding import derive, encode, encoded_names
from churn.errors import ChurnError
from churn.paths import BUNDLE
from churn.pipeline.score import Model, score
from factory import raw_table, rows
from served import THRESHOLD, Releases, Running

# MLflow warns of its own type hints when it is imported.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.slow]

TEXT_FEATURES = [each for each in RAW_FEATURES if isinstance(each.kind, Category)]

Verdict = Any
"""What a value became: for a table the value itself, else the probability; or REFUSED."""
Enter = Callable[[Case], Verdict]


def row_of(case: Case) -> dict[str, Any]:
    """A row that keeps every rule but, maybe, the one on the case's value."""
    row = rows(1, pool_access="Day pass", has_locker=True, member_months=1, monthly_fee=50.0, total_fees=50.0).iloc[0]
    given = row.to_dict() | {name: row[name].item() for name in row.index if hasattr(row[name], "item")} | case.beside
    if given["member_months"] == 0:
        given["total_fees"] = None
    if case.becomes is not REFUSED and case.column in ("monthly_fee", "member_months"):
        given[case.column] = case.becomes
        given["total_fees"] = float(given["monthly_fee"] * given["member_months"])
    return given | {case.column: case.value}


def spelled(case: Case) -> dict[str, str]:
    """The row as a CSV file spells it."""
    good = row_of(case) | {case.column: None}
    filled = {name: value for name, value in good.items() if value is not None}
    texts = {name: values[0].as_py() for name, values in zip(filled, raw_table(pd.DataFrame([filled])).columns, strict=True)}
    return {name: texts.get(name, "") for name in good} | {case.column: case.value}


class Entrances:
    """Every way in: each takes a case and gives what its value became."""

    def __init__(self, folder: Path, releases: Releases, server: Running) -> None:
        self._folder = folder
        self._http = server.http
        self._bundle = next((releases.folder / "artifacts").iterdir()) / BUNDLE
        self._session = onnx.session(self._bundle / bundle.MODEL)
        self._model = Model("1", self._session, encoded_names(), THRESHOLD)
        self._number = 0
        self._of_tables: dict[str, dict[str, Verdict]] = {}
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment("accepted")
        with mlflow.start_run():
            logged = tracking.log_model(self._bundle, rows(3).astype({each.name: object for each in TEXT_FEATURES}))
        self._pyfunc = mlflow.pyfunc.load_model(logged.model_uri)
        self.mlflow = TestClient(mlflow.pyfunc.scoring_server.init(self._pyfunc))

    def probability(self, case: Case) -> Verdict:
        """The model's answer for the value that the case must become."""
        row = row_of(case) | {case.column: case.becomes}
        frame = pd.DataFrame([row]).astype({"total_fees": float})
        return float(onnx.predict(self._session, encode(derive(frame)))[0])

    def predict_by_mlflow(self, frame: pd.DataFrame) -> float:
        """The first row's probability by the version as MLflow loads it."""
        return float(self._pyfunc.predict(frame.drop(columns=ENTITY, errors="ignore"))["churn_probability"][0])

    # Tables, a file or a database for all cases whose values have one type

    def csv(self, case: Case) -> Verdict:
        return self._of_table("csv", case)

    def parquet_text(self, case: Case) -> Verdict:
        return self._of_table("parquet_text", case)

    def parquet(self, case: Case) -> Verdict:
        return self._of_table("parquet", case)

    def sqlite_text(self, case: Case) -> Verdict:
        return self._of_table("sqlite_text", case)

    def sqlite(self, case: Case) -> Verdict:
        return self._of_table("sqlite", case)

    def score_csv(self, case: Case) -> Verdict:
        return self._scored(self._csv([spelled(case)]), case)

    def score_parquet_text(self, case: Case) -> Verdict:
        return self._scored(self._parquet([spelled(case)]), case)

    def score_parquet(self, case: Case) -> Verdict:
        return self._scored(self._parquet([row_of(case)]), case)

    # Requests

    def predict(self, case: Case) -> Verdict:
        answer = self._post("/predict", json.dumps({"customers": [_features(row_of(case))]}))
        if answer is REFUSED:
            return REFUSED
        [prediction] = answer["predictions"]
        return prediction[ENTITY] if case.column == ENTITY else prediction["churn_probability"]

    def invocations(self, case: Case) -> Verdict:
        return self._invoked(json.dumps({"dataframe_records": [_features(row_of(case))]}), "application/json")

    def invocations_csv(self, case: Case) -> Verdict:
        row = _features(spelled(case))
        return self._invoked(pd.DataFrame([row]).to_csv(index=False), "text/csv")

    def tensors(self, case: Case) -> Verdict:
        kinds = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES", type(None): "FP64"}
        inputs = [
            {"name": name, "shape": [1], "datatype": kinds[type(value)], "data": [value]}
            for name, value in _features(row_of(case)).items()
        ]
        answer = self._post("/v2/models/churn/infer", json.dumps({"inputs": inputs}))
        return REFUSED if answer is REFUSED else answer["outputs"][0]["data"][0]

    # MLflow

    def pyfunc(self, case: Case) -> Verdict:
        row = {name: value for name, value in _features(row_of(case)).items() if name != ENTITY}
        try:
            return self.predict_by_mlflow(pd.DataFrame([row]))
        except mlflow.MlflowException:
            return REFUSED

    def _of_table(self, entrance: str, case: Case) -> Verdict:
        if entrance not in self._of_tables:
            self._of_tables[entrance] = self._checked_tables(entrance)
        return self._of_tables[entrance][str(case)]

    def _checked_tables(self, entrance: str) -> dict[str, Verdict]:
        cases = [each for each in (TEXTS if entrance in OF_TEXTS else TYPED) if not never_sees(entrance, each)]
        writers: dict[str, Callable[[Any], Path | str]] = {"csv": self._csv, "sqlite": self._sqlite, "sqlite_text": self._sqlite}
        write: Callable[[Any], Path | str] = writers.get(entrance, self._parquet)
        row: Callable[[Case], dict[str, Any]] = spelled if entrance in OF_TEXTS else row_of
        groups: dict[tuple[str, type, str], list[Case]] = {}
        for case in cases:
            # One identifier that is not exact refuses its column.
            own = (case.column, type(case.value), str(case) if case.column == ENTITY else "")
            groups.setdefault(("", str, "") if entrance in OF_TEXTS else own, []).append(case)
        verdicts: dict[str, Verdict] = {}
        for group in groups.values():
            named = [row(case) | ({} if case.column == ENTITY else {ENTITY: f"case-{at}"}) for at, case in enumerate(group)]
            found = self._checked(write(named), group)
            verdicts |= {str(case): verdict for case, verdict in zip(group, found, strict=True)}
        return verdicts

    def _csv(self, given: list[dict[str, Any]]) -> Path:
        pyarrow.csv.write_csv(pa.Table.from_pylist(given), path := self._path("csv"))
        return path

    def _parquet(self, given: list[dict[str, Any]]) -> Path:
        table = pa.table({name: pa.array([row[name] for row in given], from_pandas=False) for name in given[0]})
        pyarrow.parquet.write_table(table, path := self._path("parquet"))
        return path

    def _sqlite(self, given: list[dict[str, Any]]) -> str:
        path = self._path("db")
        texts = [row | {TIMESTAMP: str(row[TIMESTAMP])} for row in given]
        with closing(sqlite3.connect(path)) as connection:
            # Columns without a declared type keep each value as it comes.
            kinds = [f"{name} {'BOOLEAN' if isinstance(value, bool) else ''}" for name, value in given[0].items()]
            connection.execute(f"CREATE TABLE customers ({', '.join(kinds)})")
            question_marks = ", ".join("?" * len(given[0]))
            connection.executemany(f"INSERT INTO customers VALUES ({question_marks})", [tuple(row.values()) for row in texts])
            connection.commit()
        return f"sqlite:///{path}"

    def _path(self, extension: str) -> Path:
        self._number += 1
        return self._folder / f"{self._number}.{extension}"

    def _checked(self, source: Path | str, group: list[Case]) -> list[Verdict]:
        """The verdict of `prepare` and `ingest` on each row."""
        try:
            report = expectations.check(sources.read(str(source)))
        except ChurnError:
            return [REFUSED] * len(group)
        values = [report.frame[case.column].astype(object)[row] for row, case in enumerate(group)]
        found = [None if pd.isna(value) else value for value in values]
        return [REFUSED if bad else value for bad, value in zip(report.bad, found, strict=True)]

    def _scored(self, source: Path, case: Case) -> Verdict:
        out = source.with_suffix(".scores.parquet")
        try:
            score(source, out, self._model)
        except ChurnError:
            assert not out.exists()
            return REFUSED
        [scored] = pyarrow.parquet.read_table(out).to_pylist()
        return scored[ENTITY] if case.column == ENTITY else scored["churn_probability"]

    def _post(self, path: str, body: str, kind: str = "application/json") -> Any:
        answer = self._http.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 422), answer.text
        return answer.json() if answer.status_code == 200 else REFUSED

    def _invoked(self, body: str, kind: str) -> Verdict:
        answer = self._post("/invocations", body, kind)
        return REFUSED if answer is REFUSED else answer["predictions"][0]["churn_probability"]


def _features(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (ENTITY, *(each.name for each in RAW_FEATURES))}


@pytest.fixture(scope="module")
def server(released: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from served import servers

    with servers(released, tmp_path_factory.mktemp("server")) as serve:
        yield serve().ready()


@pytest.fixture(scope="module")
def entrances(released: Releases, server: Running, tmp_path_factory: pytest.TempPathFactory) -> Entrances:
    return Entrances(tmp_path_factory.mktemp("entrances"), released, server)


TABLES = ("csv", "parquet_text", "parquet", "sqlite_text", "sqlite")
ANSWERS_WITH_ENTITY = ("score_csv", "score_parquet_text", "score_parquet", "predict")
OF_TEXTS = ("csv", "parquet_text", "sqlite_text", "score_csv", "score_parquet_text", "invocations_csv")
OF_TYPED = ("parquet", "sqlite", "score_parquet", "predict", "invocations", "tensors", "pyfunc")


def refuses_the_type(entrance: str, case: Case) -> bool:
    """True if the way in has no type for such a value: it is refused there, whatever the contract says."""
    kind, value = BY_NAME[case.column].kind, case.value
    is_number = type(value) in (int, float)
    match entrance:
        case "predict":  # JSON has no NaN
            return bool(pd.isna(value)) and value is not None
        case "tensors":
            return (isinstance(kind, Flag) and is_number) or (isinstance(kind, Text) and type(value) is float)
        case "pyfunc":  # MLflow's signature
            exact = {Integer: int, Real: float}.get(type(kind))
            return is_number and type(value) is not exact
    return False


def never_sees(entrance: str, case: Case) -> bool:
    """True if no such value can be in there."""
    match entrance:
        case "pyfunc":  # the model takes no identifier
            return case.column == ENTITY
        case "sqlite" | "parquet" | "score_parquet":  # other types of Parquet's are in test_column_types.py
            return type(case.value) is int and not -(2**63) <= case.value < 2**63
    return False


@pytest.mark.parametrize(
    ("entrance", "case"),
    [
        pytest.param(entrance, case, id=f"{entrance}-{case}")
        for names, cases in ((OF_TEXTS, TEXTS), (OF_TYPED, TYPED))
        for entrance in names
        for case in cases
        if not never_sees(entrance, case)
    ],
)
def test_every_interface_accepts_or_refuses_the_same_values(entrance: str, case: Case, entrances: Entrances) -> None:
    found = getattr(entrances, entrance)(case)

    if case.becomes is REFUSED or refuses_the_type(entrance, case):
        assert found is REFUSED
    elif entrance in TABLES or (case.column == ENTITY and entrance in ANSWERS_WITH_ENTITY):
        assert found == case.becomes
    else:
        assert found == pytest.approx(entrances.probability(case), abs=1e-7)


GOOD = _features(row_of(Case(ENTITY, "A-1", "A-1")))
RAW_NAMES = {BY_NAME[name].source: value for name, value in GOOD.items()}


@pytest.mark.reported
@pytest.mark.parametrize(
    "change",
    [
        {"commitment": "Three seasons"},
        {"commitment": "month-to-month"},
        {"commitment": "Monthly "},
        {"commitment": None},
        {"monthly_fee": NAN},
        {"monthly_fee": INF},
        {"monthly_fee": -5.0},
        {"monthly_fee": 2985.0},
    ],
    ids=str,
)
def test_the_mlflow_server_refuses_what_the_contract_refuses(change: dict[str, Any], entrances: Entrances) -> None:
    body = json.dumps({"dataframe_records": [GOOD, GOOD | change]})

    answer = entrances.mlflow.post("/invocations", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    (name,) = change
    assert re.search(rf"Error: {name}: expected .* in 1 of 2 rows \(first: row 1\); correct them$", answer.json()["message"])
    assert entrances.mlflow.post("/invocations", json={"dataframe_records": [GOOD, GOOD]}).status_code == 200


@pytest.mark.reported
def test_a_nullable_column_is_optional_for_the_mlflow_model(entrances: Entrances) -> None:
    new = pd.DataFrame([_features(row_of(Case("total_fees", None, None, NEW)))])

    with_it, without = (entrances.predict_by_mlflow(frame) for frame in (new, new.drop(columns="total_fees")))

    assert with_it == without == pytest.approx(entrances.probability(Case("total_fees", None, None, NEW)), abs=1e-7)


def test_the_mlflow_model_names_a_missing_column_and_the_first_bad_row(entrances: Entrances) -> None:
    frame = pd.DataFrame([GOOD, GOOD | {"commitment": "Three seasons"}, GOOD])

    with pytest.raises(mlflow.MlflowException) as bad:
        entrances.predict_by_mlflow(frame)
    with pytest.raises(mlflow.MlflowException, match="commitment"):
        entrances.predict_by_mlflow(frame.drop(columns="commitment"))

    rule = "expected one of Monthly, Season, Two seasons, got no such value in 1 of 3 rows (first: row 1)"
    assert str(bad.value) == f"commitment: {rule}; correct them"


@pytest.mark.reported
def test_a_request_with_raw_column_names_lists_the_columns_to_rename(server: Running) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/predict", {"customers": [GOOD, RAW_NAMES]}),
        ("/explain", {"customers": [RAW_NAMES]}),
        ("/invocations", {"dataframe_records": [RAW_NAMES]}),
        ("/invocations", {"inputs": {name: [value] for name, value in RAW_NAMES.items()}}),
        ("/invocations", {"dataframe_split": {"columns": [*RAW_NAMES], "data": [[*RAW_NAMES.values()]]}}),
        ("/v2/models/churn/infer", {"inputs": [{"name": "MonthlyFee", "shape": [1], "datatype": "FP64", "data": [29.85]}]}),
    ]

    for path, body in requests:
        answer = server.http.post(path, json=body)
        assert answer.status_code in (400, 422)
        assert "rename" in answer.text
        assert "MonthlyFee to monthly_fee" in answer.text
