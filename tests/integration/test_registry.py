"""The registry on a real MLflow database."""

from pathlib import Path

import pytest

from churn.adapters import bundle
from churn.adapters.mlflow.registry import Registry
from churn.errors import RegistryError
from churn.paths import CANDIDATE_ALIAS, PRODUCTION
from churn.settings import Settings
from registered import training

pytestmark = pytest.mark.slow


def test_a_registered_training_becomes_the_candidate(registry: Registry) -> None:
    version = registry.register(training())

    assert version.number == "1"
    assert version.aliases == (CANDIDATE_ALIAS,)
    assert version.metrics["cv.roc_auc"] == 0.85
    assert version.metrics["log_loss.held_out"] == 0.52


def test_a_version_is_found_by_the_digest_of_its_bundle(registry: Registry) -> None:
    first = registry.register(training("a"))
    registry.register(training("b"))

    assert registry.of_digest(first.digest).number == "1"
    with pytest.raises(RegistryError, match="run `dvc repro --force`"):
        registry.of_digest("c" * 64)


def test_a_promotion_moves_production_and_records_the_replaced_version(registry: Registry) -> None:
    first, second = registry.register(training("a")), registry.register(training("b"))

    registry.promote(first, over=None, reason="first")
    registry.promote(second, over=registry.of_alias(PRODUCTION), reason="better")

    champion = registry.of_alias(PRODUCTION)
    assert champion
    assert champion.number == "2"
    assert champion.tags["promoted_over"] == "1"
    assert champion.tags["promoted_because"] == "better"


def test_production_does_not_move_if_the_champion_changed_meanwhile(registry: Registry) -> None:
    first, second, third = (registry.register(training(letter)) for letter in "abc")
    registry.promote(first, over=None, reason="first")
    seen = registry.of_alias(PRODUCTION)
    registry.promote(second, over=seen, reason="somebody else's")

    with pytest.raises(RegistryError, match="version 1 was champion when this began, now it is 2; nothing was moved"):
        registry.promote(third, over=seen, reason="ours")

    champion = registry.of_alias(PRODUCTION)
    assert champion
    assert champion.number == "2"


def test_promoting_the_champion_again_keeps_its_history(registry: Registry) -> None:
    first, second = registry.register(training("a")), registry.register(training("b"))
    registry.promote(first, over=None, reason="first")
    registry.promote(second, over=registry.of_alias(PRODUCTION), reason="better")

    with pytest.raises(RegistryError, match="is version 2 already"):
        registry.promote(second, over=registry.of_alias(PRODUCTION), reason="again")

    assert registry.rollback()[1].number == "1"


def test_a_rollback_before_a_second_promotion_is_refused(registry: Registry) -> None:
    registry.promote(registry.register(training()), over=None, reason="first")

    with pytest.raises(RegistryError, match="version 1 replaced none"):
        registry.rollback()


@pytest.mark.parametrize("name", [bundle.MODEL, bundle.INPUTS, bundle.GOLDEN, bundle.MANIFEST])
def test_a_bundle_with_a_changed_file_is_refused(name: str, registry: Registry) -> None:
    version = registry.register(training())
    (stored,) = Path("mlruns").rglob(f"artifacts/candidate/{name}")
    stored.write_bytes(stored.read_bytes() + b" ")

    with pytest.raises(RegistryError, match=rf"version 1: {name}: .*|version 1: {name} has SHA-256"):
        registry.read_bundle(version)


def test_a_version_without_a_bundle_digest_is_refused(registry: Registry) -> None:
    given = training()
    del given.tags[bundle.TAG]

    with pytest.raises(RegistryError, match="expected a SHA-256 in the version's tag `bundle_sha256`, got '': train it again"):
        registry.read_bundle(registry.register(given))


def test_the_files_of_a_version_equal_the_registered_files(registry: Registry) -> None:
    version = registry.register(training("content"))

    files = registry.read_bundle(version)

    assert files == {bundle.MODEL: b"content", bundle.INPUTS: b"{}", bundle.GOLDEN: b"{}"}


@pytest.mark.parametrize(
    ("uri", "shown", "expected"),
    [
        ("sqlite:///folder", "sqlite:///folder", "unable to open database file"),
        ("sqlite:///params.yaml", "sqlite:///params.yaml", "file is not a database"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/x", "postgresql+psycopg://u:***@127.0.0.1:1/x", "Connection refused"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1", "Connection refused"),
    ],
    ids=["folder", "another file", "PostgreSQL", "server"],
)
def test_an_unreachable_registry_is_an_immediate_error_in_one_line(
    uri: str, shown: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("params.yaml").write_text("seed: 7\n")

    with pytest.raises(RegistryError) as refused:
        Registry(Settings(MLFLOW_TRACKING_URI=uri)).versions()

    assert str(refused.value).startswith(f"model registry {shown}: ")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
