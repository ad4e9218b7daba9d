import os

import pytest
from pydantic import ValidationError

from churn.errors import ConfigError
from churn.settings import load_settings


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


def test_mlflows_own_variable_keeps_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")

    assert load_settings().tracking_uri == "http://mlflow:5000"


def test_an_unknown_variable_is_refused_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_ONLINE_STOR", "redis://redis:6379/0")

    with pytest.raises(ConfigError) as refused:
        load_settings()

    assert str(refused.value) == "environment: CHURN_ONLINE_STOR is not a setting of churn; did you mean CHURN_ONLINE_STORE?"


def test_an_unknown_variable_like_no_other_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_ZZZ", "1")

    with pytest.raises(ConfigError, match=r"CHURN_ZZZ is not a setting.*the known ones are .*CHURN_SOURCE"):
        load_settings()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "1.5"])
def test_a_value_of_the_wrong_type_or_range_is_refused_with_its_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_TRACKING_TIMEOUT_S", value)

    with pytest.raises(ConfigError, match=f"CHURN_TRACKING_TIMEOUT_S = '{value}'"):
        load_settings()


def test_other_programs_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()

    monkeypatch.setenv("CHURNING", "butter")

    assert load_settings() == before


def test_settings_cannot_be_changed_once_loaded() -> None:
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.source = "elsewhere"  # type: ignore[misc]
