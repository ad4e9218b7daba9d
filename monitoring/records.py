"""What the watcher saw and decided: append-only records, each a small JSON file on a local folder or S3.

A record appears whole or not at all, exactly one of a name, and never changes. Names begin with a UTC time as
`20261123T030000Z`, so that their order is the order in time.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from churn.errors import MonitorError
from churn.files import create_file
from churn.object_storage import ATTEMPTS, CONNECT_TIMEOUT_S, region

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SUFFIX = ".json"
STAMP = "%Y%m%dT%H%M%SZ"
"""The time in a name."""
READ_TIMEOUT_S = 10
READERS = 8
"""Small objects are read that many at once: it is the way there that takes time."""
THERE_ALREADY = {409, 412}
"""What S3 answers where an object of that name is there, or is written at this moment by another."""
CHECK = "check the address, the credentials, the permissions and the space"


class Records(Protocol):
    """Records by name; safe to use from several processes. Every method raises MonitorError where they are out of reach."""

    def add(self, name: str, content: dict[str, Any]) -> bool:
        """Create the record; False if one of that name is there already, whose content stays.

        Where this returns True, the record outlives a loss of power.

        Raises:
            ValueError: the name has other characters than letters, digits, `.`, `_` and `-`, or the content is not JSON.
        """

    def since(self, prefix: str) -> list[dict[str, Any]]:
        """The contents of the records whose name is `prefix` or sorts after it, in the order of names."""

    def get(self, name: str) -> dict[str, Any] | None:
        """The content of one record; None if there is none of that name.

        Raises:
            ValueError: as `add`.
        """


def open_records(location: str) -> Records:
    """The records at a folder, which need not exist yet, or at `s3://bucket/prefix`. Nothing is connected to yet.

    S3 is reached as `churn.object_storage` does, and must honour `If-None-Match: *`, as AWS, MinIO, Ceph and R2 do.

    Raises:
        MonitorError: it is neither, or the environment names an endpoint that is no address.
    """
    if location.startswith("s3://"):
        bucket, _, prefix = location.removeprefix("s3://").strip("/").partition("/")
        return BucketRecords(bucket, f"{prefix}/" if prefix else "", _client())
    if not location or "://" in location:
        raise MonitorError(f"environment: CHURN_MONITOR = {location!r} is neither a folder nor s3://bucket/prefix; correct it")
    return FolderRecords(Path(location))


@dataclass(frozen=True)
class FolderRecords:
    """Files in a folder."""

    folder: Path

    def add(self, name: str, content: dict[str, Any]) -> bool:
        """Create the record; False if one of that name is there already."""
        path, text = self.folder / _file(name), _text(content)
        with _local_refusals(path):
            return create_file(path, text)

    def since(self, prefix: str) -> list[dict[str, Any]]:
        """The contents of the records from `prefix` on, in the order of names."""
        with _local_refusals(self.folder):
            names = _names([each.name for each in self.folder.iterdir()] if self.folder.exists() else [], prefix)
        return [content for name in names if (content := self.get(name)) is not None]

    def get(self, name: str) -> dict[str, Any] | None:
        """The content of one record; None if there is none of that name."""
        path = self.folder / _file(name)
        with _local_refusals(path):
            return _content(path.read_bytes(), str(path)) if path.exists() else None


@dataclass(frozen=True)
class BucketRecords:
    """Objects in a bucket, under a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str
    client: Any

    def add(self, name: str, content: dict[str, Any]) -> bool:
        """Create the record; False if one of that name is there already."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        key, body, writer = self.prefix + _file(name), _text(content).encode(), uuid4().hex
        with self._refusals(key):
            try:
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,
                    IfNoneMatch="*",
                    ContentType="application/json",
                    Metadata={"writer": writer},
                )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in THERE_ALREADY:
                    raise
                # If the first answer was lost, the second attempt meets what the first one wrote.
                there = self.client.head_object(Bucket=self.bucket, Key=key)
                return bool(there["Metadata"].get("writer") == writer)
        return True

    def since(self, prefix: str) -> list[dict[str, Any]]:
        """The contents of the records from `prefix` on, in the order of names; older ones are not even listed."""
        with self._refusals(self.prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix, Delimiter="/", StartAfter=self.prefix + prefix
            )
            keys = [each["Key"].removeprefix(self.prefix) for page in pages for each in page.get("Contents", [])]
        with ThreadPoolExecutor(READERS) as readers:
            return [content for content in readers.map(self.get, _names(keys, prefix)) if content is not None]

    def get(self, name: str) -> dict[str, Any] | None:
        """The content of one record; None if there is none of that name."""
        key = self.prefix + _file(name)
        with self._refusals(key):
            try:
                found = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None
        return _content(found, f"s3://{self.bucket}/{key}")

    @contextmanager
    def _refusals(self, key: str) -> Iterator[None]:
        """Foreign exceptions become one line."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise MonitorError(f"s3://{self.bucket}/{key}: {' '.join(str(error).split())}; {CHECK}") from error


def _client() -> Any:
    import boto3
    from botocore.config import Config  # type: ignore[import-untyped]

    endpoint = os.environ.get("AWS_ENDPOINT_URL") or None
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        # Other servers than AWS's do not know the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.client("s3", endpoint_url=endpoint, region_name=region(), config=config)
    except ValueError as error:
        raise MonitorError(f"environment: AWS_ENDPOINT_URL = {endpoint!r}: {error}; correct it") from error


def _file(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"record {name!r}: letters, digits, '.', '_' and '-' make a name, a letter or digit first; rename it")
    return name + SUFFIX


def _names(files: list[str], first: str) -> list[str]:
    """The names of those files that are records, from `first` on, sorted; without the suffix, which would sort otherwise."""
    names = [each.removesuffix(SUFFIX) for each in files if each.endswith(SUFFIX)]
    return sorted(name for name in names if name >= first and NAME.fullmatch(name))


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _content(found: bytes, shown: str) -> dict[str, Any]:
    try:
        return dict(json.loads(found))
    except (ValueError, TypeError) as error:
        raise MonitorError(f"{shown}: not a record of the watcher ({error}); move it away") from error


@contextmanager
def _local_refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror or error}; {CHECK}") from error
