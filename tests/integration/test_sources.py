"""Reading raw rows: from real files, real databases and a real S3 API."""

import csv
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from churn.adapters.sources import batches, databases, read
from churn.contract import COLUMNS
from churn.errors import SourceError

RAW = Path(__file__).parents[2] / "data/raw/customers.csv"
HEADER, *LINES = RAW.read_text().splitlines(keepends=True)
NAMES = [each.name for each in COLUMNS if each.default is None]
WIDTH = len(HEADER.split(","))
SOURCES = [each.source for each in COLUMNS if each.default is None]


def lines(start: int, stop: int) -> str:
    """The header and some rows of the real file."""
    return HEADER + "".join(LINES[start:stop])


def rows(start: int, stop: int, **changes: Any) -> list[dict[str, Any]]:
    """Some rows of the real file under the contract's names, with the same `changes` to each."""
    found = csv.DictReader(lines(start, stop).splitlines())
    return [{name: row[source] for name, source in zip(NAMES, SOURCES, strict=True)} | changes for row in found]


def parquet(path: Path, start: int, stop: int, **changes: Any) -> Path:
    """A Parquet file of some rows."""
    pq.write_table(pa.Table.from_pylist(rows(start, stop, **changes)), path)
    return path


def create(url: str, values: list[dict[str, Any]], *, schema: str | None = None, **kinds: Any) -> None:
    """A table `customers` of those rows, created again: text, except the columns whose SQL type `kinds` gives."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    columns = [sa.Column(each, kinds.get(each, sa.Text)) for each in values[0]]
    table = sa.Table("customers", sa.MetaData(), *columns, schema=schema)
    with engine.begin() as connection:
        if schema:
            connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        table.drop(connection, checkfirst=True)
        table.create(connection)
        connection.execute(table.insert(), values)


def put(endpoint: str, bucket: str, **objects: bytes) -> None:
    """A bucket with those objects; `__` in a name stands for `/`, `_csv` and `_parquet` at its end for the extension."""
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=bucket)
    for name, body in objects.items():
        stem, _, extension = name.replace("__", "/").rpartition("_")
        client.put_object(Bucket=bucket, Key=f"{stem}.{extension}", Body=body)


def refusal(location: str | Path, **options: str) -> str:
    """The one line with which the reader refuses `location`."""
    with pytest.raises(SourceError) as caught:
        read(str(location), **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_shipped_file_is_read_as_text_with_contract_names() -> None:
    table = read(str(RAW))

    assert table.num_rows == len(LINES)
    assert table.schema == pa.schema([(name, pa.string()) for name in NAMES])
    assert [each.strip() for each in table["total_fees"].to_pylist()].count("") == 11
    assert table.slice(0, 2).to_pylist() == rows(0, 2)


def test_columns_outside_the_contract_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text("shoe size," + HEADER + "43," + LINES[0])

    table = read(str(path))

    assert table.column_names == NAMES


def test_columns_can_have_contract_names_in_any_order(tmp_path: Path) -> None:
    row = rows(0, 1)[0]
    path = tmp_path / "customers.csv"
    path.write_text(",".join(reversed(row)) + "\n" + ",".join(reversed(row.values())) + "\n")

    table = read(str(path))

    assert table.to_pylist() == [row]


def test_csv_files_can_have_a_bom_quoted_line_breaks_and_blanks(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(HEADER + LINES[0].replace("Online invoice", '"Online\ninvoice"').replace("Danish", ""), "utf-8-sig")

    table = read(str(path))

    assert table["customer_id"].to_pylist() == ["8504-XZKFR"]
    assert table["paid_by"].to_pylist() == ["Online\ninvoice"]
    assert table["language"].to_pylist() == [""]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    path = parquet(tmp_path / "customers.parquet", 0, 3, monthly_fee=29.85, member_months=1, churned=False, extra="x")

    table = read(str(path))

    assert table.column_names == NAMES
    kinds = [str(table.schema.field(name).type) for name in ("monthly_fee", "member_months", "churned", "commitment")]
    assert kinds == ["double", "int64", "bool", "string"]


def test_parts_of_a_folder_are_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(lines(2, 4))
    (tmp_path / "a.csv").write_text(lines(0, 2))
    parquet(tmp_path / "c.parquet", 4, 5)
    (tmp_path / "README.md").write_text("# no data")
    (tmp_path / "_SUCCESS.csv").touch()
    (tmp_path / ".hidden.csv").touch()
    (tmp_path / "nested.csv").mkdir()

    table = read(str(tmp_path))

    assert table.to_pylist() == rows(0, 5)


def test_columns_with_different_types_in_parts_become_text_without_loss(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    parquet(tmp_path / "a.parquet", 0, 1, monthly_fee=0.1 + 0.2, churned=True, event_timestamp=moment, total_fees=None)
    (tmp_path / "b.csv").write_text(lines(1, 2))
    (tmp_path / "c.csv").write_text(f"event_timestamp,{HEADER}2026-04-01,{LINES[2]}")

    table = read(str(tmp_path))

    assert table["monthly_fee"].to_pylist() == ["0.30000000000000004", "56.95", "53.85"]
    assert table["churned"].to_pylist() == ["true", "No", "Yes"]
    assert table["total_fees"].to_pylist() == [None, "1889.5", "108.15"]
    assert table["event_timestamp"].to_pylist() == [
        "2026-03-01T12:30:00.000000Z",
        "2026-01-01T00:00:00.000000Z",  # the contract's default: the part has no such column
        "2026-04-01",
    ]


def test_numbers_of_different_widths_stay_numbers(tmp_path: Path) -> None:
    for name, kind in (("a", pa.int32()), ("b", pa.int64())):
        table = pa.Table.from_pylist(rows(0, 1, member_months=None))
        index = table.column_names.index("member_months")
        pq.write_table(table.set_column(index, "member_months", pa.array([7], kind)), tmp_path / f"{name}.parquet")

    table = read(str(tmp_path))

    assert table.schema.field("member_months").type == pa.int64()


def test_the_number_of_rows_and_their_source_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(lines(0, 3))

    with caplog.at_level(logging.INFO, logger="churn"):
        read(str(path))

    assert caplog.messages == [f"read 3 rows from {path}"]


def test_the_reader_imports_no_database_library() -> None:
    code = "import sys, churn.adapters.sources; print({'sqlalchemy', 'pyarrow.parquet', 'pyarrow.fs', 'pandas'} & {*sys.modules})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


RENAMED = HEADER.replace("MonthlyFee", "Monthly Fee").replace(",Cancelled", "")

BAD_FILES = {
    "an empty file": ("x.csv", b"", "expected a header with the columns MemberNo, language, "),
    "a file of empty lines": ("x.csv", b"\n\n", "expected a header with the columns MemberNo, language, "),
    "an empty Parquet file": ("x.parquet", b"", "0 bytes"),
    "a header without rows": ("x.csv", HEADER.encode(), "no rows"),
    "a header without a line's end": ("x.csv", HEADER.strip().encode(), "no rows"),
    "a truncated Parquet file": ("x.parquet", b"PAR1" + b"\0" * 90, "whole Parquet file"),
    "a text called Parquet": ("x.parquet", lines(0, 1).encode(), "whole Parquet file"),
    "a row with too few values": ("x.csv", (lines(0, 1) + "8504-XZKFR,Danish\n").encode(), f"line 3: expected {WIDTH} values, "),
    "a row with too many values": (
        "x.csv",
        lines(0, 3).replace("Dutch,", "Dutch,,", 1).encode(),
        f"line 3: expected {WIDTH} values, ",
    ),
    "a row that is cut off": ("x.csv", lines(0, 3).encode()[:-20], f"line 4: expected {WIDTH} values, "),
    "a short row after empty lines": ("x.csv", (lines(0, 1) + "\n\n8504\n").encode(), f"line 5: expected {WIDTH} values, "),
    "a short row after a line break in a value": (
        "x.csv",
        (lines(0, 1).replace("Danish", '"Dan\nish"') + "8504\n").encode(),
        f"line 4: expected {WIDTH} values, ",
    ),
    "a quote that does not end": ("x.csv", (lines(0, 3) + '"8504').encode(), f"line 5: expected {WIDTH} values, "),
    "a quote in the header that does not end": ("x.csv", b'"' + HEADER.encode() * 1000, "line 1: "),
    "Latin-1 in a value": ("x.csv", lines(0, 1).replace("Danish", "Français").encode("latin-1"), "line 2: expected UTF-8"),
    "Latin-1 in the header": ("x.csv", ("é," + lines(0, 1)).encode("latin-1"), "line 1: expected UTF-8"),
    "UTF-16": ("x.csv", lines(0, 1).encode("utf-16"), "line 1: expected UTF-8"),
    "semicolons": ("x.csv", lines(0, 1).replace(",", ";").encode(), "line 1: expected values separated by commas, got ';'"),
    "tabs": ("x.csv", lines(0, 1).replace(",", "\t").encode(), "line 1: expected values separated by commas, got '\\t'"),
    "columns spelled otherwise": (
        "x.csv",
        RENAMED.encode(),
        "missing columns: MonthlyFee (found: Monthly Fee?), Cancelled; rename",
    ),
    "a column there twice": ("x.csv", b"commitment," + HEADER.encode(), "twice: commitment"),
    "another format": ("x.xlsx", b"PK", "neither .csv nor .parquet"),
}


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    message = refusal(path)

    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["an empty file", "a row with too few values", "a row that is cut off", "Latin-1 in a value"])
def test_a_bad_file_to_score_is_refused_with_the_same_line(tmp_path: Path, kind: str) -> None:
    name, content, reason = BAD_FILES[kind]
    (tmp_path / name).write_bytes(content)

    with pytest.raises(SourceError) as refused:
        list(batches(tmp_path / name, rows=1000))

    assert reason in str(refused.value)


def test_a_column_is_suggested_for_only_one_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER.replace("AquaGym", "Aqua Gym").replace("Diving", "Films"))

    assert "missing columns: AquaGym (found: Aqua Gym?), Diving; rename" in refusal(path)


def test_a_contract_column_is_not_suggested_for_another(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER.replace("AquaGym,", ""))

    assert "missing columns: AquaGym; rename" in refusal(path)


def test_a_file_given_by_name_can_have_a_name_that_folders_skip(tmp_path: Path) -> None:
    path = tmp_path / "_customers.CSV"
    path.write_text(lines(0, 2))

    table = read(str(path))

    assert table.to_pylist() == rows(0, 2)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nope.csv")

    assert "no such file or folder" in message


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no data")

    message = refusal(tmp_path)

    assert "no .csv or .parquet file" in message


def test_a_delta_lake_table_is_refused_since_its_files_have_removed_rows(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    parquet(tmp_path / "part-00000.parquet", 0, 2)

    message = refusal(tmp_path)

    assert "is a Delta Lake table" in message


def test_a_bad_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines(0, 1))
    (tmp_path / "b.csv").touch()

    message = refusal(tmp_path)

    assert message.startswith(f"{tmp_path / 'b.csv'}: expected a header")


def test_an_incompatible_column_type_is_refused_with_its_part(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines(0, 1))
    parquet(tmp_path / "b.parquet", 0, 1, language=["Danish"])

    message = refusal(tmp_path)

    assert message.startswith(f"{tmp_path / 'b.parquet'}: language: values of type list<")
    assert "are not readable as one of Danish, Dutch" in message


def test_sqlite_columns_keep_their_types_and_other_columns_are_not_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crm.db"
    values = rows(0, 2, monthly_fee=29.85, member_months=1, churned=True, extra="x")
    create(url, values, monthly_fee=sa.Float, member_months=sa.Integer, churned=sa.Boolean)

    table = read(url)

    assert table.column_names == NAMES
    assert table.to_pylist() == [{name: row[name] for name in NAMES} for row in values]


def test_a_sqlite_column_of_numbers_and_blanks_becomes_text(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE customers ({' REAL, '.join(NAMES)} REAL)")
        values = [tuple(row.values()) for row in (*rows(0, 1), *rows(1, 2, total_fees=""))]
        connection.executemany(f"INSERT INTO customers VALUES ({', '.join('?' * len(NAMES))})", values)
        connection.commit()

    table = read(f"sqlite:///{path}")

    assert table["total_fees"].to_pylist() == ["29.85", ""]
    assert table["monthly_fee"].to_pylist() == [29.85, 56.95]


def test_a_postgresql_table_is_read_in_chunks_with_its_own_types(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    own = {"customer_id": UUID(int=7), "event_timestamp": moment, "churned": True, "member_months": 1, "extra": "x"}
    values = [
        *rows(0, 2, **own, monthly_fee=Decimal("29.85"), total_fees=None),
        *rows(2, 5, **own, monthly_fee=Decimal("1029.850"), total_fees=29.85),
    ]
    kinds = {"customer_id": sa.Uuid, "event_timestamp": sa.DateTime(timezone=True), "churned": sa.Boolean}
    numbers = {"member_months": sa.SmallInteger, "monthly_fee": sa.Numeric, "total_fees": sa.Double}
    create(postgres_url, values, schema="crm", **kinds, **numbers)
    monkeypatch.setattr(databases, "ROWS_PER_CHUNK", 2)

    table = read(postgres_url, table="crm.customers")

    expected = [{each.name: row[each.name] for each in COLUMNS} | {"customer_id": str(UUID(int=7))} for row in values]
    assert table.to_pylist() == expected
    assert pa.types.is_decimal(table.schema.field("monthly_fee").type)


def test_no_log_line_or_message_has_the_password(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    create(postgres_url, rows(0, 1))

    with caplog.at_level(logging.INFO, logger="churn"):
        read(postgres_url)
    message = refusal(postgres_url, table="cutsomers")

    assert "read 1 rows from postgresql+psycopg://churn:***@" in caplog.text
    assert "table cutsomers is not there; did you mean customers?" in message
    assert "s3cret" not in caplog.text + message


def test_a_wrong_password_is_refused_and_not_repeated(postgres_url: str) -> None:
    message = refusal(postgres_url.replace("s3cret", "hunter2"))

    assert "password authentication failed" in message
    assert "hunter2" not in message


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crm.db"
    create(url, [{"Member No": "1"}])

    message = refusal(url)

    assert "table customers: missing columns: MemberNo (found: Member No?), language," in message


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE customers ({', '.join(NAMES)})")

    message = refusal(f"sqlite:///{path}")

    assert "no rows" in message


def test_a_missing_sqlite_file_is_refused_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"

    message = refusal(f"sqlite:///{path}")

    assert "no such file" in message
    assert not path.exists()


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    path.write_text(lines(0, 9))

    message = refusal(f"sqlite:///{path}")

    assert "file is not a database" in message


BAD_URLS = {
    "a database out of reach": ("postgresql://churn:hunter2@127.0.0.1:1/crm?password=hunter2", "onnection refused"),
    "an unknown database": ("gs://churn:hunter2@bucket/key", "Can't load plugin: sqlalchemy.dialects:gs; install the package"),
    "an unknown driver": ("postgresql+nope://churn:hunter2@127.0.0.1/crm", "Can't load plugin"),
    "a driver that is not installed": (
        "mysql://churn:hunter2@127.0.0.1/crm",
        "; install the package of its driver (uv add --group train PACKAGE)",
    ),
    "a port that is no number": ("postgresql://churn:hunter2@127.0.0.1:port/crm", "not a database URL"),
    "no driver": ("://churn:hunter2@127.0.0.1/crm", "not a database URL"),
}


@pytest.mark.parametrize(("url", "reason"), BAD_URLS.values(), ids=BAD_URLS)
def test_a_bad_database_url_is_refused_in_one_line_without_its_password(url: str, reason: str) -> None:
    message = refusal(url)

    assert reason in message
    assert "hunter2" not in message


def test_an_object_is_read_like_a_file(s3: str) -> None:
    put(s3, "one", customers_csv=lines(0, 3).encode())

    table = read("s3://one/customers.csv")

    assert table.to_pylist() == rows(0, 3)


def test_a_prefix_is_read_like_a_folder(s3: str, tmp_path: Path) -> None:
    last = parquet(tmp_path / "b.parquet", 2, 4).read_bytes()
    put(s3, "many", raw__a_csv=lines(0, 2).encode(), raw__b_parquet=last, raw__README_md=b"#", raw__nested__c_csv=b"")

    table = read("s3://many/raw/")

    assert table.to_pylist() == rows(0, 4)


@pytest.mark.parametrize("location", ["s3://absent", "s3://absent/customers.csv", "s3://present/nope.csv"])
def test_a_missing_bucket_or_key_is_refused(s3: str, location: str) -> None:
    put(s3, "present", customers_csv=b"")

    message = refusal(location)

    assert message.startswith(f"{location}: there is no such bucket, file or folder")


def test_an_unreachable_endpoint_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    message = refusal("s3://one/customers.csv")

    assert "NETWORK_CONNECTION" in message


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "", "AWS_ACCESS_KEY_ID not set"),
        ("AWS_SECRET_ACCESS_KEY", "", "AWS_SECRET_ACCESS_KEY not set"),
        ("AWS_ENDPOINT_URL", "storage:9000", "AWS_ENDPOINT_URL = 'storage:9000': not an http"),
    ],
)
def test_an_invalid_environment_is_refused(
    s3: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)

    message = refusal("s3://one/customers.csv")

    assert reason in message
