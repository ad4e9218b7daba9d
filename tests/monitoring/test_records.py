"""The watcher's records, on a real folder and a real S3 API."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from pydantic import TypeAdapter

from churn.errors import MonitorError
from http_server import HttpServer, ReceivedRequest, Reply
from monitoring.records import Records
from monitoring.records import open_records as open_typed_records
from s3_server import new_bucket

ANY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = (f"20261123T0{hour}0000Z-retrain" for hour in (1, 2, 3))


def open_records(location: str) -> Records[dict[str, Any]]:
    """Records of any content."""
    return open_typed_records(location, ANY)


@pytest.fixture
def bucket(s3: str) -> str:
    """A new bucket, with the environment pointing there."""
    return new_bucket(s3)


@pytest.fixture(params=["folder", "s3", "whole-bucket"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records[dict[str, Any]]:
    match request.param:
        case "folder":
            return open_records(str(tmp_path / "not" / "made" / "yet"))
        case "s3":
            return open_records(f"s3://{request.getfixturevalue('bucket')}/some/prefix/")
        case _:
            return open_records(f"s3://{request.getfixturevalue('bucket')}")


def through(upstream: str, drop: int) -> HttpServer:
    """A way to the S3 API on which the answers to the first `drop` writes get lost."""
    left = [None] * drop

    def forward(request: ReceivedRequest) -> Reply:
        headers = {key: value for key, value in request.headers.items() if key not in ("host", "connection")}
        answer = requests.request(request.method, upstream + request.path, headers=headers, data=request.content, timeout=30)
        if request.method == "PUT" and left:
            left.pop()
            return Reply(0)
        kept = [
            (key, value) for key, value in answer.headers.items() if key.lower().startswith(("x-amz", "etag", "content-type"))
        ]
        return Reply(answer.status_code, answer.content, tuple(kept))

    return HttpServer(forward)


def test_a_record_is_read_as_it_was_added(records: Records[dict[str, Any]]) -> None:
    content = {"decision": "retrain", "psi": {"member_months": 0.31}, "versions": [1, 2], "who": "Zoë"}

    assert records.add(FIRST, content)

    assert records.get(FIRST) == content
    assert records.since("") == [content]


def test_a_second_record_of_a_name_is_refused_and_the_first_is_kept(records: Records[dict[str, Any]]) -> None:
    assert records.add(FIRST, {"by": "one"})

    assert not records.add(FIRST, {"by": "two"})
    assert not records.add(FIRST, {"by": "one"})
    assert records.get(FIRST) == {"by": "one"}


def test_a_missing_record_is_none_and_an_empty_store_has_no_records(records: Records[dict[str, Any]]) -> None:
    assert records.get(FIRST) is None
    assert records.since(FIRST) == []


def test_records_are_listed_from_the_prefix_on_sorted_by_name(records: Records[dict[str, Any]]) -> None:
    for name in (THIRD, FIRST, SECOND):
        records.add(name, {"name": name})

    assert [each["name"] for each in records.since(SECOND[:16])] == [SECOND, THIRD]
    assert [each["name"] for each in records.since(SECOND)] == [SECOND, THIRD]
    assert [each["name"] for each in records.since("2026")] == [FIRST, SECOND, THIRD]
    assert records.since(THIRD + "0") == []


def test_a_name_sorts_before_names_that_it_is_a_prefix_of(records: Records[dict[str, Any]]) -> None:
    names = ["20261123T010000Z", "20261123T010000Z-b", "20261123T010000Z.c", "20261123T010000Z_d"]
    for name in reversed(names):
        records.add(name, {"name": name})

    assert [each["name"] for each in records.since("")] == names
    assert [each["name"] for each in records.since(names[1])] == names[1:]
    assert [each["name"] for each in records.since(names[2])] == names[2:]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../a", "a b", "ä", "a\n"])
def test_a_name_with_other_characters_is_refused(records: Records[dict[str, Any]], name: str) -> None:
    with pytest.raises(ValueError, match="make a name"):
        records.add(name, {})
    with pytest.raises(ValueError, match="make a name"):
        records.get(name)


def test_content_that_is_not_json_is_refused_without_a_record(records: Records[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        records.add(FIRST, {"auc": float("nan")})

    assert records.since("") == []


def test_exactly_one_of_many_processes_adds_a_name(tmp_path: Path) -> None:
    code = (
        "import sys; from typing import Any; from pydantic import TypeAdapter; from monitoring.records import open_records\n"
        "records, who = open_records(sys.argv[1], TypeAdapter(dict[str, Any])), sys.argv[2]\n"
        "sys.stdin.read()\n"
        "print(sum(records.add(f'name-{each}', {'by': who}) for each in range(40)))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(who)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(8)
    ]

    with ThreadPoolExecutor(8) as pool:  # the end of the input starts them all
        added = [int(out) for out, _ in pool.map(lambda writer: writer.communicate(), writers)]

    kept = [each["by"] for each in open_records(str(tmp_path)).since("")]
    assert sum(added) == len(kept) == 40
    assert [kept.count(str(who)) for who in range(8)] == added
    assert len([*tmp_path.iterdir()]) == 40  # nothing temporary is left


def test_readers_never_get_partial_records(tmp_path: Path) -> None:
    records, content = open_records(str(tmp_path)), {"text": "x" * 500_000}

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(records.add, f"name-{each}", content) for each in range(60)]
        while not all(each.done() for each in writing):
            assert all(each == content for each in records.since(""))

    assert all(each.result() for each in writing)
    assert len(records.since("")) == 60


def test_temporary_and_foreign_files_are_not_records(tmp_path: Path) -> None:
    records = open_records(str(tmp_path))
    records.add(FIRST, {})
    (tmp_path / f".{SECOND}.json.0a1b").write_text('{"half": ')
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "runs").mkdir()

    assert records.since("") == [{}]


def test_foreign_objects_in_the_bucket_are_not_records(bucket: str, s3_server: str) -> None:
    records = open_records(f"s3://{bucket}/monitoring")
    records.add(FIRST, {})
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    for key in ("monitoring/reports/2.json", "monitoring/3.html", "monitoring-too/4.json"):
        client.put_object(Bucket=bucket, Key=key, Body=b"no record")

    assert records.since("") == [{}]


def test_a_write_with_a_lost_response_counts_as_added(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with through(s3_server, drop=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        records = open_records(f"s3://{bucket}/monitoring")

        assert records.add(FIRST, {"by": "one"})
        assert [each.method for each in proxy.received] == ["PUT", "PUT", "HEAD"]
        assert not records.add(FIRST, {"by": "one"})


def test_old_objects_are_neither_listed_nor_read(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with through(s3_server, drop=0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        records = open_records(f"s3://{bucket}/monitoring")
        for name in (FIRST, SECOND, THIRD):
            records.add(name, {"name": name})
        before = len(proxy.received)

        assert [each["name"] for each in records.since(THIRD[:16])] == [THIRD]

        listed, *read = [each.path for each in proxy.received[before:]]
        assert "start-after=monitoring%2F20261123T030000Z" in listed
        assert [Path(each).stem for each in read] == [THIRD]


@pytest.mark.parametrize("location", ["", "gs://bucket/prefix", "sqlite:///records.db"])
def test_a_location_that_is_neither_a_folder_nor_s3_is_refused(location: str) -> None:
    with pytest.raises(MonitorError, match=r"CHURN_MONITOR = .* is neither a folder nor s3://bucket/prefix; correct it"):
        open_records(location)


def test_an_invalid_endpoint_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")

    with pytest.raises(MonitorError, match=r"AWS_ENDPOINT_URL = 'localhost': Invalid endpoint"):
        open_records(f"s3://{bucket}")


def test_a_read_only_folder_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    records = open_records(str(tmp_path / "file"))

    for call in (lambda: records.add(FIRST, {}), lambda: records.since("")):
        with pytest.raises(MonitorError, match=r"/file.*; check the address") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_an_error_in_one_line(bucket: str) -> None:
    records = open_records(f"s3://{bucket}-gone/prefix")

    for call in (lambda: records.add(FIRST, {}), lambda: records.since("")):
        with pytest.raises(
            MonitorError, match=rf"s3://{bucket}-gone/prefix/.*bucket does not exist.*; check the address"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_unreachable_storage_is_an_error_in_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    records = open_records(f"s3://{bucket}/prefix")

    with pytest.raises(MonitorError, match=r"Could not connect to the endpoint URL.*; check the address"):
        records.add(FIRST, {})
