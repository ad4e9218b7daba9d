"""Object storage, as the environment says."""

import pytest

from churn.adapters.object_storage import region


@pytest.mark.parametrize(
    ("environment", "signed_for"),
    [
        ({"AWS_DEFAULT_REGION": "eu-central-1", "AWS_REGION": "us-west-2"}, "eu-central-1"),
        ({"AWS_REGION": "us-west-2"}, "us-west-2"),
        ({}, "us-east-1"),
    ],
)
def test_the_region_equals_the_one_that_boto3_uses(
    environment: dict[str, str], signed_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert region() == signed_for
