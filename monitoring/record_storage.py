"""Small files by name, on a local folder or S3: created once, never changed, moved away if they are damaged."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from churn.adapters.files import create_file
from churn.adapters.object_storage import ATTEMPTS, CONNECT_TIMEOUT_S, region
from churn.domain.reasons import reason
from churn.errors import MonitorError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SUFFIX = ".json"
QUARANTINE = "quarantine"
MAX_BYTES = 2**20
"""A record has some 20 kB."""
READ_TIMEOUT_S = 10
THERE_ALREADY = {409, 412}
"""What S3 answers where an object of that name is there, or is written at this moment by another."""
CHECK = "check the address, the credentials, the permissions and the space"


class NotARecordError(Exception):
    """What is there under the name of a record cannot be read as one."""


class Storage(Protocol):
    """Small files by name; safe to use from several processes. Every method raises MonitorError where it is out of reach."""

    def create(self, name: str, text: str) -> bool:
        """Create the file; False if one of that name is there already, whose content stays."""

    def names(self, first: str) -> list[str]:
        """The names of the files, from `first` on, sorted."""

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none of that name.

        Raises:
            NotARecordError: it is no file, or it has more than `MAX_BYTES`.
        """

    def move_away(self, name: str) -> str:
        """Move the file to `quarantine/`; returns where it is now."""

    def quarantined(self) -> int:
        """How many files are in `quarantine/`."""

    def place(self, name: str) -> str:
        """The file as messages have it."""


@dataclass(frozen=True)
class FolderStorage:
    """Files in a folder."""

    folder: Path

    def create(self, name: str, text: str) -> bool:
        """Create the file; False if one of that name is there already."""
        path = self._path(name)
        with _local_refusals(path):
            return create_file(path, text)

    def names(self, first: str) -> list[str]:
        """The names from `first` on, sorted."""
        with _local_refusals(self.folder):
            return _names([each.name for each in self.folder.iterdir()] if self.folder.exists() else [], first)

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none of that name."""
        path = self._path(name)
        with _local_refusals(path):
            if not path.exists():
                return None
            if not path.is_file():
                raise NotARecordError("not a file")
            with path.open("rb") as file:
                return _bounded(file.read(MAX_BYTES + 1))

    def move_away(self, name: str) -> str:
        """Move the file to `quarantine/`; returns where it is now."""
        folder, path = self.folder / QUARANTINE, self._path(name)
        with _local_refusals(path):
            folder.mkdir(exist_ok=True)
            target = folder / path.name
            if target.exists():
                target = folder / f"{name}-{uuid4().hex[:8]}{SUFFIX}"
            # Another watcher may have moved it a moment ago.
            with suppress(FileNotFoundError):
                path.rename(target)
        return str(target)

    def quarantined(self) -> int:
        """How many files are in `quarantine/`."""
        folder = self.folder / QUARANTINE
        with _local_refusals(folder):
            return len([*folder.iterdir()]) if folder.exists() else 0

    def place(self, name: str) -> str:
        """The file's path."""
        return str(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / (name + SUFFIX)


@dataclass(frozen=True)
class BucketStorage:
    """Objects in a bucket, under a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str
    client: Any

    def create(self, name: str, text: str) -> bool:
        """Create the object; False if one of that name is there already."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        key, writer = self._key(name), uuid4().hex
        with self._refusals(key):
            try:
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=text.encode(),
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

    def names(self, first: str) -> list[str]:
        """The names from `first` on, sorted; older ones are not even listed."""
        return _names(self._listed(self.prefix, StartAfter=self.prefix + first), first)

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none of that name."""
        key = self._key(name)
        with self._refusals(key):
            try:
                return _bounded(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read(MAX_BYTES + 1))
            except self.client.exceptions.NoSuchKey:
                return None

    def move_away(self, name: str) -> str:
        """Copy the object to `quarantine/`, and delete it; returns where it is now."""
        key, target = self._key(name), f"{self.prefix}{QUARANTINE}/{name}-{uuid4().hex[:8]}{SUFFIX}"
        with self._refusals(key):
            self.client.copy_object(Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": key})
            self.client.delete_object(Bucket=self.bucket, Key=key)
        return f"s3://{self.bucket}/{target}"

    def quarantined(self) -> int:
        """How many objects are in `quarantine/`."""
        return len(self._listed(f"{self.prefix}{QUARANTINE}/"))

    def place(self, name: str) -> str:
        """The object's address."""
        return f"s3://{self.bucket}/{self._key(name)}"

    def _key(self, name: str) -> str:
        return f"{self.prefix}{name}{SUFFIX}"

    def _listed(self, prefix: str, **options: str) -> list[str]:
        with self._refusals(prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/", **options
            )
            return [each["Key"].removeprefix(prefix) for page in pages for each in page.get("Contents", [])]

    @contextmanager
    def _refusals(self, key: str) -> Iterator[None]:
        """Foreign exceptions become one line."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise MonitorError(f"s3://{self.bucket}/{key}: {reason(error)}; {CHECK}") from error


def s3_client() -> Any:
    """A client of the S3 API, as the environment configures it.

    Raises:
        MonitorError: the endpoint is no address.
    """
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
        raise MonitorError(f"environment: AWS_ENDPOINT_URL = {endpoint!r}: {reason(error)}; correct it") from error


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise NotARecordError(f"more than {MAX_BYTES} bytes")
    return content


def _names(files: list[str], first: str) -> list[str]:
    """The names of those files that are records, from `first` on, sorted; without the suffix, which would sort otherwise."""
    names = [each.removesuffix(SUFFIX) for each in files if each.endswith(SUFFIX)]
    return sorted(name for name in names if name >= first and NAME.fullmatch(name))


@contextmanager
def _local_refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MonitorError(f"{path}: {error.strerror or reason(error)}; {CHECK}") from error
