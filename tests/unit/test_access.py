"""How CHURN_API_KEYS names keys and their rights."""

from hashlib import sha256

import pytest

from churn.domain.access import Right, parse_keys

ONE, TWO = "a" * 64, "0123456789abcdef" * 4


def test_a_key_digest_without_rights_can_only_predict() -> None:
    assert parse_keys(ONE) == {ONE: {Right.PREDICT}}


def test_rights_are_parsed_after_the_digest() -> None:
    assert parse_keys(f"{ONE}:outcomes,{TWO}:predict+admin") == {ONE: {Right.OUTCOMES}, TWO: {Right.PREDICT, Right.ADMIN}}


def test_an_empty_setting_has_no_keys() -> None:
    assert parse_keys("") == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"{ONE}:", "expected the rights predict, outcomes, admin"),
        (f"{ONE}:everything", "got 'everything'"),
        (f"{ONE}:predict+", "got ''"),
        (f"{ONE}:predict outcomes", "got 'predict outcomes'"),
        (f"{ONE}:Predict", "got 'Predict'"),
        (f"{ONE}:predict:admin", "got 'predict:admin'"),
        (f"{ONE}:predict,{ONE}:outcomes", "a digest is there twice"),
        (f":predict,{ONE}", "not SHA-256 digests"),
        ("secret:predict", "not SHA-256 digests"),
        (sha256(b"").hexdigest(), "the digest of an empty key"),
    ],
)
def test_malformed_keys_are_refused_and_not_shown(value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse_keys(value)

    assert ONE not in str(refused.value)
    assert "secret" not in str(refused.value)
