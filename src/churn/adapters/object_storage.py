"""Object storage that speaks the S3 API, as the environment configures it."""

import os
from typing import Any
from urllib.parse import urlsplit

from churn.domain.reasons import reason
from churn.errors import SourceError

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
ATTEMPTS = 2
IDENTITIES = (
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"),
)
"""Where the AWS library finds credentials if no keys are given: a Kubernetes service account, a container's role, a file."""


def s3(*, request_timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """A pyarrow `S3FileSystem`, whose paths are `bucket/key`. Nothing is connected to yet.

    A request in which nothing moves for `request_timeout_s` seconds is given up, and tried `ATTEMPTS` times.

    It is configured by `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` (or one of `IDENTITIES`),
    `AWS_DEFAULT_REGION` and `AWS_ENDPOINT_URL` (AWS itself if unset).

    Raises:
        SourceError: the environment gives no credentials, or an endpoint that is no address.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not os.environ.get(name)]
    if missing and not any(map(os.environ.get, IDENTITIES)):
        raise SourceError(f"environment: {' and '.join(missing)} not set; reading s3:// needs both, or a role: set them")
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or "https://"
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https"):
        raise SourceError(f"environment: AWS_ENDPOINT_URL = {endpoint!r}: not an http:// or https:// address; correct it")
    # Keys and a region given here keep the AWS library from asking the machine's metadata service for them.
    return S3FileSystem(
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        session_token=os.environ.get("AWS_SESSION_TOKEN"),
        region=region(),
        scheme=address.scheme,
        endpoint_override=address.netloc or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=request_timeout_s,
        # A small object is one PUT rather than three requests.
        allow_delayed_open=True,
        allow_bucket_creation=True,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def region() -> str:
    """The region that requests are signed for: `AWS_DEFAULT_REGION`, or `AWS_REGION`; us-east-1 if neither is set.

    In that order, because boto3, MLflow and DVC read only the first, and all must use the bucket's one region.
    """
    return os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or "us-east-1"


def make_bucket(name: str) -> bool:
    """Make a bucket; False if it is there already.

    Raises:
        SourceError: the storage is out of reach, or refuses.
    """
    from pyarrow.fs import FileType

    try:
        storage = s3()
        if storage.get_file_info(name).type == FileType.Directory:
            return False
        storage.create_dir(name)
    except OSError as error:
        raise SourceError(f"s3://{name}: {reason(error)}; check the address, the credentials and the permissions") from error
    return True
