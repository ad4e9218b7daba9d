import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from churn.errors import ConfigError
from churn.settings import KINDS, Settings, load_monitoring, load_serving, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("CHURN_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)


def test_the_defaults_need_no_server() -> None:
    settings = load_settings()

    assert settings.source == ""
    assert settings.tracking_uri.startswith("sqlite:///")
    assert settings.feature_registry.startswith("sqlite:///")
    assert settings.online_store.startswith("sqlite:///")


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SOURCE", "s3://bucket/rows")
    monkeypatch.setenv("CHURN_TRACKING_TIMEOUT_S", "3")

    settings = load_settings()

    assert settings.source == "s3://bucket/rows"
    assert settings.tracking_timeout_s == 3


def test_the_mlflow_variable_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")

    assert load_settings().tracking_uri == "http://mlflow:5000"


def test_an_unknown_variable_is_refused_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_ONLINE_STOR", "redis://redis:6379/0")

    with pytest.raises(ConfigError) as refused:
        load_settings()

    assert str(refused.value) == "environment: CHURN_ONLINE_STOR is not a setting of churn; did you mean CHURN_ONLINE_STORE?"


def test_an_unknown_variable_without_a_similar_one_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_ZZZ", "1")

    with pytest.raises(ConfigError, match=r"CHURN_ZZZ is not a setting.*the known ones are .*CHURN_SOURCE"):
        load_settings()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "1.5"])
def test_a_value_of_the_wrong_type_or_range_is_refused_with_its_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_TRACKING_TIMEOUT_S", value)

    with pytest.raises(ConfigError, match=f"CHURN_TRACKING_TIMEOUT_S = '{value}'"):
        load_settings()


@pytest.mark.parametrize(("name", "value"), [("CHURN_ROOT_PATH", "churn"), ("CHURN_API_KEYS", "a key")])
def test_a_refusal_has_no_pydantic_text(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=rf"^environment: {name}.*: (expected|not) .*; correct it or unset it$") as refused:
        load_serving()

    assert "Value error" not in str(refused.value)


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()

    monkeypatch.setenv("CHURNING", "butter")

    assert load_settings() == before


def test_settings_cannot_be_changed_once_loaded() -> None:
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.source = "elsewhere"  # type: ignore[misc]


DIGEST = "a" * 64


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_server_on_localhost_needs_no_keys(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_HOST", host)

    assert load_serving().is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "churn.example.org", ""])
def test_a_server_on_a_public_address_does_not_start_without_keys(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_HOST", host)

    with pytest.raises(ConfigError, match=f"CHURN_HOST = '{host}' is reached from other machines, and CHURN_API_KEYS is empty"):
        load_serving()


@pytest.mark.parametrize(("name", "value"), [("CHURN_API_KEYS", DIGEST), ("CHURN_ANONYMOUS", "true")])
def test_a_server_on_a_public_address_starts_with_keys_or_if_set_open(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHURN_HOST", "0.0.0.0")
    monkeypatch.setenv(name, value)

    assert not load_serving().is_local


@pytest.mark.parametrize("value", ["", DIGEST, f"{DIGEST},{'0123456789abcdef' * 4}"])
def test_keys_are_given_as_sha256_digests(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_API_KEYS", value)

    assert load_serving().api_keys == value


@pytest.mark.parametrize("value", ["a key", DIGEST[:-1], DIGEST.upper(), DIGEST[:-1] + "g", f"{DIGEST}, {DIGEST}", f"{DIGEST};"])
def test_keys_that_are_not_digests_are_refused_with_the_digest_command(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_API_KEYS", value)

    with pytest.raises(ConfigError, match=r"CHURN_API_KEYS.*not SHA-256 digests in hexadecimal.*sha256sum"):
        load_serving()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("POLL_S", "0"),
        ("KEPT_MODELS", "0"),
        ("LOG_CAPACITY_ROWS", "-1"),
        ("LOG_PART_ROWS", "0"),
        ("LOG_FLUSH_S", "0"),
        ("STORE_TIMEOUT_S", "0"),
        ("DEADLINE_S", "-1"),
        ("MAX_IN_FLIGHT", "0"),
        ("MAX_BODY_BYTES", "1023"),
        ("MAX_ROWS", "0"),
        ("DRAIN_S", "-0.1"),
        ("ACCESS_LOG", "perhaps"),
    ],
)
def test_a_server_setting_out_of_range_is_refused_with_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CHURN_{name}", value)

    with pytest.raises(ConfigError, match=f"CHURN_{name} = '{value}'"):
        load_serving()


def test_pipeline_and_server_accept_each_others_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_PORT", "9000")
    monkeypatch.setenv("CHURN_ONLINE_STORE", "redis://redis:6379/0")

    assert load_settings().online_store == load_serving().online_store == "redis://redis:6379/0"
    assert load_serving().port == 9000


def test_a_value_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "online_store").write_text("redis://:secret@valkey:6379/0\n")
    monkeypatch.setenv("CHURN_ONLINE_STORE_FILE", str(tmp_path / "online_store"))

    assert load_settings().online_store == "redis://:secret@valkey:6379/0"


def test_a_value_and_a_file_for_it_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SOURCE", "here")
    monkeypatch.setenv("CHURN_SOURCE_FILE", "/there")

    with pytest.raises(ConfigError, match="CHURN_SOURCE and CHURN_SOURCE_FILE are both set; unset one of them"):
        load_settings()


def test_a_missing_file_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SOURCE_FILE", "/nowhere")

    with pytest.raises(ConfigError, match="CHURN_SOURCE_FILE = '/nowhere': No such file or directory; correct the path"):
        load_settings()


def test_a_file_for_an_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_ONLINE_STOR_FILE", "/run/secrets/online_store")

    with pytest.raises(ConfigError, match="CHURN_ONLINE_STOR_FILE is not a setting of churn"):
        load_settings()


def test_settings_classes_share_no_variable() -> None:
    declared = [name for kind in KINDS for name in kind.__annotations__ if name in kind.model_fields]

    assert set(KINDS) == {Settings, *Settings.__subclasses__()}
    assert [name for name in declared if declared.count(name) > 1] == []


@pytest.mark.reported
def test_request_limit_and_drift_sample_are_separate_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_MAX_ROWS", "10")
    monkeypatch.setenv("CHURN_SAMPLE_ROWS", "2000")

    assert load_serving().max_rows == 10
    assert load_monitoring().sample_rows == 2000


def test_a_drift_sample_below_the_minimum_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_SAMPLE_ROWS", "200")

    with pytest.raises(ConfigError, match=r"CHURN_MIN_ROWS ≤ CHURN_SAMPLE_ROWS, got 300, 500, 200"):
        load_monitoring()
