"""Arrow types of every kind: each is converted, or refused in one line; by `prepare`'s reader and by `score`."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from churn import paths
from churn.adapters import onnx
from churn.adapters.expectations import check
from churn.adapters.sources import read
from churn.contract import ENTITY, TIMESTAMP
from churn.domain.encoding import derive, encode, encoded_names
from churn.errors import ChurnError, ContractError
from churn.pipeline import ingest
from churn.pipeline.score import Model, score
from churn.settings import Settings
from factory import raw_table, rows

N = 8
CUSTOMERS = Path(__file__).parents[2] / "data/raw/customers.csv"
FRAME = pd.concat([rows(N - 2), rows(2, seed=1, member_months=0, customer_id=["new-1", "new-2"])], ignore_index=True)
IDS = FRAME.customer_id.tolist()
MONTH = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def model() -> Model:
    from sklearn.ensemble import GradientBoostingClassifier

    X = encode(derive(rows(100)))
    estimator = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, X[:, 0] > X[:, 0].mean())
    return Model("1", onnx.session(onnx.export(estimator, X, metadata={})), encoded_names(), 0.5)


def native(frame: pd.DataFrame = FRAME) -> pa.Table:
    """The rows with the types that pandas gives them, categories as text."""
    texts = {name: object for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)}
    return pa.Table.from_pandas(frame.astype(texts), preserve_index=False)


def replaced(name: str, values: Any) -> pa.Table:
    table = native()
    return table.set_column(table.column_names.index(name), name, values)


def written(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


def refused(action: Callable[[], Any]) -> str:
    """The one line of a refusal."""
    with pytest.raises(ChurnError) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def encoded(values: Any) -> Any:
    return pa.array(values).dictionary_encode()


UUIDS = pa.array([UUID(int=number) for number in range(N)])
NUMBERS = pa.array(range(N))
ENTITIES: dict[str, tuple[Any, list[str]]] = {
    "large_string": (pa.array(IDS, pa.large_string()), IDS),
    "string_view": (pa.array(IDS, pa.string_view()), IDS),
    "binary": (pa.array([each.encode() for each in IDS]), IDS),
    "dictionary": (encoded(IDS), IDS),
    "dictionary of integers": (encoded(NUMBERS), [str(number) for number in range(N)]),
    "int8": (NUMBERS.cast(pa.int8()), [str(number) for number in range(N)]),
    "uint64": (pa.array([2**64 - 1 - number for number in range(N)], pa.uint64()), [str(2**64 - 1 - n) for n in range(N)]),
    "double": (pa.array([1e15 + number for number in range(N)]), [str(10**15 + number) for number in range(N)]),
    "float": (NUMBERS.cast(pa.float32()), [str(number) for number in range(N)]),
    "decimal": (
        pa.array([Decimal(2**64 - 1 - number) for number in range(N)]).cast(pa.decimal128(38, 2)),
        [str(2**64 - 1 - n) for n in range(N)],
    ),
    "negative decimal": (pa.array([Decimal(number - 2**63) for number in range(N)]), [str(n - 2**63) for n in range(N)]),
    "decimal with a zero fraction": (NUMBERS.cast(pa.decimal128(30, 2)), [str(number) for number in range(N)]),
    "uuid": (UUIDS, [str(UUID(int=number)) for number in range(N)]),
}


@pytest.mark.reported
@pytest.mark.parametrize("name", ENTITIES)
def test_an_identifier_is_exact_text_whatever_its_type(name: str, model: Model, tmp_path: Path) -> None:
    values, expected = ENTITIES[name]
    source = written(replaced(ENTITY, values), tmp_path / "rows.parquet")

    report = check(read(str(source)))
    score(source, tmp_path / "scores.csv", model)

    assert report.violations == ()
    assert report.frame[ENTITY].tolist() == expected
    assert pd.read_csv(tmp_path / "scores.csv", dtype=str)[ENTITY].tolist() == expected


NOT_IDENTIFIERS = {
    "fraction": pa.array([0.5, *range(1, N)]),
    "float that may stand for several numbers": pa.array([2.0**53 + number for number in range(N)]),
    "float32 beyond its digits": pa.array([2.0**24 + 2 * number for number in range(N)], pa.float32()),
    "infinity": pa.array([float("inf"), *map(float, range(1, N))]),
    "decimal beyond 64 bits": pa.array([Decimal(2**64 + number) for number in range(N)]),
    "negative decimal beyond 64 bits": pa.array([Decimal(-(2**63) - 1 - number) for number in range(N)]),
    "decimal with a fraction": pa.array([Decimal("1.5")] * N),
    "boolean": pa.array([True, False] * (N // 2)),
    "timestamp": pa.array([MONTH + timedelta(days=number) for number in range(N)]),
    "date": pa.array([date(2026, 2, 1 + number) for number in range(N)]),
    "list": pa.array([[each] for each in IDS]),
    "struct": pa.array([{"id": each} for each in IDS]),
    "binary that is no text": pa.array([bytes([255, number]) for number in range(N)]),
    "null": pa.nulls(N),
}


@pytest.mark.parametrize("name", NOT_IDENTIFIERS)
def test_a_column_without_exact_identifiers_is_refused_in_one_line(name: str, model: Model, tmp_path: Path) -> None:
    source = written(replaced(ENTITY, NOT_IDENTIFIERS[name]), tmp_path / "rows.parquet")

    def prepared() -> None:
        report = check(read(str(source)))
        if report.violations:
            raise ContractError("; ".join(map(str, report.violations)))

    assert ENTITY in refused(prepared)
    assert ENTITY in refused(lambda: score(source, tmp_path / "scores.csv", model))


TIMES = {
    "date32": pa.array([date(2026, 2, 1)] * N),
    "date64": pa.array([date(2026, 2, 1)] * N, pa.date64()),
    "seconds": pa.array([datetime(2026, 2, 1)] * N, pa.timestamp("s")),
    "nanoseconds in a zone": pa.array([MONTH] * N, pa.timestamp("ns", "Europe/Berlin")),
    "dictionary of timestamps": encoded(pa.array([MONTH] * N)),
    "text with an offset": pa.array(["2026-02-01T02:00:00+02:00"] * N),
    "text without a zone": pa.array(["2026-02-01 00:00:00"] * N),
    "date as text": pa.array(["2026-02-01"] * N),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_timestamp_or_date_is_read_in_utc(name: str, tmp_path: Path) -> None:
    report = check(read(str(written(replaced(TIMESTAMP, TIMES[name]), tmp_path / "rows.parquet"))))

    assert report.violations == ()
    assert report.frame[TIMESTAMP].tolist() == [pd.Timestamp(MONTH)] * N


NOT_TIMES = {
    "seconds since 1970": pa.array([1769904000] * N),
    "days as digits": pa.array([20260201] * N),
    "days as digits in text": pa.array(["20260201"] * N),
    "seconds as text": pa.array(["1769904000"] * N),
    "float": pa.array([1769904000.0] * N),
    "boolean": pa.array([True] * N),
    "decimal": pa.array([Decimal(20260201)] * N),
    "dictionary of integers": encoded(pa.array([20260201] * N)),
    "time": pa.array([time(12)] * N),
    "duration": pa.array([timedelta(days=1)] * N),
    "a month": pa.array(["2026-02"] * N),
    "the year 1 as text": pa.array(["0001-01-01"] * N),
    "the year 1": pa.array([datetime(1, 1, 1)] * N, pa.timestamp("us")),
    "the year 9999": pa.array([datetime(9999, 12, 31)] * N, pa.timestamp("ms")),
    "before the year 1 in UTC": pa.array(["0001-01-01T00:00:00+14:00"] * N),
    "no such day": pa.array(["2026-02-30"] * N),
    "list": pa.array([[MONTH]] * N),
}


@pytest.mark.reported
@pytest.mark.parametrize("name", NOT_TIMES)
def test_a_value_that_is_not_a_timestamp_is_refused(name: str, tmp_path: Path) -> None:
    source = written(replaced(TIMESTAMP, NOT_TIMES[name]), tmp_path / "rows.parquet")

    def prepared() -> None:
        report = check(read(str(source)))
        assert report.bad.all()
        raise ContractError(str(report.violations[0]))

    assert "readable as UTC timestamp" in refused(prepared)


@pytest.mark.reported
@pytest.mark.parametrize("kind", [sa.Integer, sa.Float])
def test_a_database_number_is_not_read_as_a_timestamp(kind: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crm.db"
    engine = sa.create_engine(url)
    FRAME.assign(event_timestamp=1769904000).to_sql("customers", engine, index=False, dtype={TIMESTAMP: kind})
    engine.dispose()

    assert "not readable as UTC timestamp" in refused(lambda: read(url))


def cast(name: str, kind: Any) -> Callable[[], pa.Table]:
    return lambda: replaced(name, native()[name].cast(kind))


FEATURES: dict[str, Callable[[], pa.Table]] = {
    "int8 for a real": lambda: replaced("total_fees", pa.array([*[1] * (N - 2), None, None], pa.int8())),
    "decimal for a real": lambda: replaced("monthly_fee", pc.cast(native()["monthly_fee"], pa.decimal128(20, 2))),
    "decimal for an integer": cast("member_months", pa.decimal128(30, 2)),
    "float16 for an integer": cast("member_months", pa.float16()),
    "double for an integer": cast("member_months", pa.float64()),
    "uint64 for an integer": cast("member_months", pa.uint64()),
    "string_view for a category": cast("commitment", pa.string_view()),
    "large_binary for a category": cast("commitment", pa.large_binary()),
    "uint8 for a flag": cast("is_student", pa.uint8()),
    "text for a flag": cast("is_duo", pa.string()),
    "dictionary everywhere": lambda: pa.table({name: encoded(values.combine_chunks()) for name, values in _columns()}),
}


def _columns() -> list[tuple[str, Any]]:
    table = native()
    return [(name, table[name]) for name in table.column_names]


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_read_from_every_compatible_type(name: str, model: Model, tmp_path: Path) -> None:
    table = FEATURES[name]()
    source = written(table, tmp_path / "rows.parquet")

    report = check(read(str(source)))
    score(source, tmp_path / "scores.parquet", model)

    assert [each for each in report.violations if each.subject != "billed_as_charged"] == []
    if name != "int8 for a real":
        pd.testing.assert_frame_equal(report.frame, FRAME, check_dtype=False, check_categorical=False)


NOT_FEATURES = {
    "boolean for a real": ("monthly_fee", pa.array([True] * N)),
    "time for a real": ("monthly_fee", pa.array([time(12)] * N)),
    "duration for an integer": ("member_months", pa.array([timedelta(seconds=5)] * N)),
    "date for a category": ("commitment", pa.array([date(2026, 2, 1)] * N)),
    "boolean for a category": ("commitment", pa.array([True] * N)),
    "list for a category": ("commitment", pa.array([["Season"]] * N)),
    "struct for a flag": ("is_duo", pa.array([{"a": True}] * N)),
    "binary that is no text": ("commitment", pa.array([b"\xff"] * N)),
    "uint64 beyond int64": ("member_months", pa.array([2**64 - 1] * N, pa.uint64())),
    "nulls for a flag": ("is_duo", pa.nulls(N)),
}


@pytest.mark.parametrize("name", NOT_FEATURES)
def test_an_incompatible_type_is_refused_in_one_line(name: str, model: Model, tmp_path: Path) -> None:
    column, values = NOT_FEATURES[name]
    source = written(replaced(column, values), tmp_path / "rows.parquet")

    def prepared() -> None:
        report = check(read(str(source)))
        raise ContractError("; ".join(map(str, report.violations)))

    assert column in refused(prepared)
    assert column in refused(lambda: score(source, tmp_path / "scores.parquet", model))


@pytest.mark.reported
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_parts_with_identifiers_of_different_types_are_scored_and_read(suffix: str, model: Model, tmp_path: Path) -> None:
    ids = [pa.array(IDS), pa.array(IDS, pa.large_string()), NUMBERS, encoded(IDS), UUIDS, pa.array([1e15] * N)]
    for number, values in enumerate(ids):
        later = [MONTH + timedelta(days=number)] * N
        part = replaced(ENTITY, values).drop_columns([TIMESTAMP]).append_column(TIMESTAMP, pa.array(later))
        written(part, tmp_path / "parts" / f"{number}.parquet")
    written(native().slice(0, 0).drop_columns([ENTITY]).append_column(ENTITY, pa.nulls(0)), tmp_path / "parts/empty.parquet")
    out = tmp_path / f"scores{suffix}"

    assert score(tmp_path / "parts", out, model) == N * len(ids)

    scored = pd.read_csv(out, dtype=str) if suffix == ".csv" else pd.read_parquet(out)
    assert scored[ENTITY].tolist() == read(str(tmp_path / "parts"))[ENTITY].to_pylist()
    assert scored[ENTITY].iloc[-1] == "1000000000000000"


@pytest.mark.reported
def test_a_quoted_line_break_in_an_ignored_column_of_a_large_csv_is_scored(model: Model, tmp_path: Path) -> None:
    frame = rows(70_000)
    table = raw_table(frame).append_column("note", pa.array(['said "no",\nthen left'] * len(frame)))
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")

    assert score(tmp_path / "rows.csv", tmp_path / "scores.parquet", model) == len(frame)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def customers(first: int, last: int) -> pd.DataFrame:
    """Rows of the shipped file, as text."""
    return pd.read_csv(CUSTOMERS, dtype=str, keep_default_na=False)[first:last]


@pytest.mark.reported
def test_a_null_timestamp_is_refused_in_a_part_that_has_the_column(workspace: Path) -> None:
    customers(0, 2).assign(event_timestamp=["2026-03-01", ""]).to_csv("new.csv", index=False)

    message = refused(lambda: ingest.run(Settings(source="new.csv")))

    assert "event_timestamp: expected a value, got none in 1 row" in message
    assert not paths.RAW.exists()


@pytest.mark.reported
def test_a_part_without_a_timestamp_gets_the_default_among_others(workspace: Path) -> None:
    Path("new").mkdir()
    customers(0, 2).to_csv("new/a.csv", index=False)
    customers(2, 4).assign(event_timestamp="2026-03-01").to_csv("new/b.csv", index=False)
    pq.write_table(pa.Table.from_pandas(customers(4, 6).assign(event_timestamp=date(2026, 4, 1))), "new/c.parquet")

    assert ingest.run(Settings(source="new")) == 6

    (part,) = paths.RAW.iterdir()
    found = pd.read_parquet(part)[TIMESTAMP].dt.strftime("%Y-%m-%d").value_counts()
    assert found.to_dict() == {"2026-01-01": 2, "2026-03-01": 2, "2026-04-01": 2}


@pytest.mark.reported
def test_an_increment_without_churned_customers_is_ingested(workspace: Path) -> None:
    customers(0, 20).assign(Cancelled="No").to_csv("new.csv", index=False)

    assert ingest.run(Settings(source="new.csv")) == 20


@pytest.mark.reported
@pytest.mark.parametrize("value", ["20,50", "N/A", "$1,234", "inf"])
def test_an_unreadable_number_in_a_nullable_column_is_not_scored(value: str, model: Model, tmp_path: Path) -> None:
    table = raw_table(FRAME)
    totals = [value if text == "" else text for text in table["total_fees"].to_pylist()]
    index = table.column_names.index("total_fees")
    pyarrow.csv.write_csv(table.set_column(index, "total_fees", pa.array(totals)), tmp_path / "rows.csv")

    message = refused(lambda: score(tmp_path / "rows.csv", tmp_path / "scores.csv", model))

    assert message.startswith(
        "total_fees: expected a value readable as real ≥ 0 and ≤ 1e+06, got no such value in 2 of 8 rows (first: new-1; new-2)"
    )


def test_sqlite_values_of_several_types_keep_their_digits(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crm.db"
    ids = ["A-1", 7, 1e15, 2**53 + 1, "b-2", "0042", "c", "d"]
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        columns = [str(name) for name in FRAME if name != ENTITY]
        connection.execute(sa.text(f"CREATE TABLE customers ({', '.join([ENTITY, *columns])})"))
        marks = ", ".join(f":{name}" for name in (ENTITY, *columns))
        given = raw_table(FRAME).to_pylist()
        values = [row | {ENTITY: entity} for row, entity in zip(given, ids, strict=True)]
        connection.execute(sa.text(f"INSERT INTO customers VALUES ({marks})"), values)

    assert read(url)[ENTITY].to_pylist() == ["A-1", "7", "1000000000000000", "9007199254740993", "b-2", "0042", "c", "d"]


def test_padding_of_a_postgresql_char_column_is_removed(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    texts = native(FRAME).to_pandas()
    texts.to_sql("padded", engine, if_exists="replace", index=False, dtype={"commitment": sa.CHAR(20), ENTITY: sa.CHAR(40)})

    report = check(read(postgres_url, table="padded"))

    assert [each for each in report.violations if each.subject != "billed_as_charged"] == []
    assert report.frame[ENTITY].tolist() == IDS


def test_type_conversion_imports_neither_pandas_nor_onnxruntime() -> None:
    imports = "import sys, churn.domain.values, churn.adapters.arrow_types"
    code = imports + "; print('pandas' in sys.modules, 'onnxruntime' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
