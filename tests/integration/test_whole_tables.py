"""A whole table is read with all of its columns, from wherever rows can come, also where the pipeline would refuse the file."""

from pathlib import Path

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tables
from churn.adapters.sources import whole
from churn.errors import SourceError
from s3_server import new_bucket

CSV = b"id,plan\n1,a\n2,b\n"


def test_an_object_is_read_with_all_of_its_columns(s3: str) -> None:
    bucket = new_bucket(s3)
    boto3.client("s3", endpoint_url=s3).put_object(Bucket=bucket, Key="one.csv", Body=CSV)

    found = whole.read(f"s3://{bucket}/one.csv")

    assert found.table.to_pydict() == {"id": ["1", "2"], "plan": ["a", "b"]}
    assert found.files == ()
    assert whole.names(f"s3://{bucket}/one.csv") == [["id", "plan"]]


def test_a_missing_bucket_is_refused(s3: str) -> None:
    with pytest.raises(SourceError, match="no such bucket"):
        whole.read("s3://absent-bucket/one.csv")


def test_a_database_is_read_with_its_types(tmp_path: Path) -> None:
    location = f"sqlite:///{tables.database(tmp_path)}"

    found = whole.read(location)

    assert found.table.column_names == ["customer_id", "visits", "plan", "left"] == whole.names(location)[0]
    assert pa.types.is_boolean(found.table["left"].type)
    assert found.table["visits"].null_count > 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CSV, {"id": ["1", "2"], "plan": ["a", "b"]}),
        (b"\xef\xbb\xbf" + CSV, {"id": ["1", "2"], "plan": ["a", "b"]}),
        (CSV.replace(b",", b";"), {"id": ["1", "2"], "plan": ["a", "b"]}),
        (CSV.replace(b",", b"\t"), {"id": ["1", "2"], "plan": ["a", "b"]}),
        ("id,größe\n1,Ä\n".encode("cp1252"), {"id": ["1"], "größe": ["Ä"]}),
        (b'id,"two\nlines"\n1,a\n', {"id": ["1"], "two\nlines": ["a"]}),
        (b"\n\n" + CSV, {"id": ["1", "2"], "plan": ["a", "b"]}),
        (b"id,a;b;c\n1,x\n2,y\n", {"id": ["1", "2"], "a;b;c": ["x", "y"]}),
        (b"a,a,\n1,2,3\n", {"a": ["1"], "a_2": ["2"], "unnamed": ["3"]}),
        (b'id,note\n1,"two\nlines, and a ""quotation"""\n', {"id": ["1"], "note": ['two\nlines, and a "quotation"']}),
    ],
    ids=[
        "plain",
        "byte order mark",
        "semicolons",
        "tabs",
        "cp1252",
        "name of two lines",
        "blank lines first",
        "semicolons in a name",
        "names twice and empty",
        "quotation marks",
    ],
)
def test_a_file_is_read_whatever_its_encoding_and_separator(
    content: bytes, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_bytes(content)

    assert whole.read(str(tmp_path / "rows.csv")).table.to_pydict() == expected


def test_parts_whose_types_differ_become_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "since": [pd.Timestamp("2026-01-01")]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": ["x"], "since": ["2026-02-01"]}), tmp_path / "2.parquet")

    assert whole.read(str(tmp_path)).table["id"].to_pylist() == ["1", "x"]


@pytest.mark.parametrize("content", [b"", b"id,plan\n", b"id,plan\n1\n"], ids=["empty", "no rows", "a value too few"])
def test_a_file_without_a_table_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(content)

    with pytest.raises(SourceError, match=r"rows\.csv"):
        whole.read(str(tmp_path / "rows.csv"))


def test_parts_of_types_that_nothing_reads_leave_the_other_columns_as_they_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "tags": [3]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": [2], "tags": [["x"]]}), tmp_path / "2.parquet")

    found = whole.read(str(tmp_path)).table

    assert found["id"].to_pylist() == [1, 2]
    assert pa.types.is_list(found["tags"].type)


def test_a_column_that_a_part_lacks_is_null_there_and_the_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(CSV)
    (tmp_path / "2.csv").write_bytes(b"id\n3\n")

    found = whole.read(str(tmp_path))

    assert found.table["plan"].to_pylist() == ["a", "b", None]
    assert found.odd == ("2.csv has no column plan",)


def test_an_encoding_of_a_parquet_column_is_no_type_of_its_own(tmp_path: Path) -> None:
    rows = pa.table([pa.array(["a", "b"]).dictionary_encode(), pa.array([1, 2])], names=["x", "x"])
    pq.write_table(rows, tmp_path / "rows.parquet")

    assert whole.read(str(tmp_path / "rows.parquet")).table.to_pydict() == {"x": ["a", "b"], "x_2": [1, 2]}
