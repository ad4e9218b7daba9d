"""An S3 API that keeps its objects in memory, and the environment that points there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_api() -> Iterator[str]:
    """Its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables for the address and the credentials of the S3 API."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def new_bucket(address: str) -> str:
    """The name of a new bucket."""
    import boto3

    name = f"bucket-{os.urandom(4).hex()}"
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket=name)
    return name
