"""The registry on a real MLflow database."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.errors import RegistryError
from churn.features import derive
from churn.files import write_json
from churn.paths import PRODUCTION
from churn.registry import CANDIDATE, Registry
from churn.settings import Settings
from churn.tracking import Training
from factory import rows


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run: making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(Settings(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")).versions()
    return folder / "mlflow.db"


@pytest.fixture
def registry(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    shutil.copy(empty, tmp_path)
    monkeypatch.chdir(tmp_path)
    return Registry(Settings(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db"))


def training(digest: str = "a" * 64) -> Training:
    """A training whose bundle is a stand-in: the registry does not look into it until someone downloads it."""
    bundle = Path("candidate")
    bundle.mkdir(exist_ok=True)
    (bundle / "model.onnx").write_bytes(b"not a model")
    write_json({"inputs": []}, bundle / "model.json")
    frame = pd.DataFrame(derive(rows(20)))
    texts = frame.select_dtypes("category").columns
    return Training(
        params={"seed": 7},
        metrics={"cv.roc_auc": 0.85},
        loss=np.array([[0.6, 0.61], [0.5, 0.52]]),
        tags={"onnx_sha256": digest, "train_rows_sha256": "b" * 64},
        rows=frame.astype(dict.fromkeys(texts, object)),
        source=Path("data/features/customers.parquet"),
        bundle=bundle,
    )


def test_a_training_becomes_the_candidate(registry: Registry) -> None:
    version = registry.register(training())

    assert version.number == "1"
    assert version.aliases == (CANDIDATE,)
    assert version.metrics["cv.roc_auc"] == 0.85
    assert version.metrics["log_loss.held_out"] == 0.52


def test_a_version_is_found_by_the_digest_of_its_model(registry: Registry) -> None:
    registry.register(training("a" * 64))
    registry.register(training("b" * 64))

    assert registry.of_digest("a" * 64).number == "1"
    with pytest.raises(RegistryError, match="run `dvc repro --force`"):
        registry.of_digest("c" * 64)


def test_production_moves_and_remembers_what_it_replaced(registry: Registry) -> None:
    first, second = registry.register(training("a" * 64)), registry.register(training("b" * 64))

    registry.promote(first, over=None, reason="first")
    registry.promote(second, over=registry.of_alias(PRODUCTION), reason="better")

    champion = registry.of_alias(PRODUCTION)
    assert champion
    assert champion.number == "2"
    assert champion.tags["promoted_over"] == "1"
    assert champion.tags["promoted_because"] == "better"


def test_production_does_not_move_if_the_champion_changed_meanwhile(registry: Registry) -> None:
    first, second, third = (registry.register(training(letter * 64)) for letter in "abc")
    registry.promote(first, over=None, reason="first")
    seen = registry.of_alias(PRODUCTION)
    registry.promote(second, over=seen, reason="somebody else's")

    with pytest.raises(RegistryError, match="version 1 was champion when this began, now it is 2; nothing was moved"):
        registry.promote(third, over=seen, reason="ours")

    champion = registry.of_alias(PRODUCTION)
    assert champion
    assert champion.number == "2"


def test_promoting_the_champion_again_keeps_its_history(registry: Registry) -> None:
    first, second = registry.register(training("a" * 64)), registry.register(training("b" * 64))
    registry.promote(first, over=None, reason="first")
    registry.promote(second, over=registry.of_alias(PRODUCTION), reason="better")

    with pytest.raises(RegistryError, match="is version 2 already"):
        registry.promote(second, over=registry.of_alias(PRODUCTION), reason="again")

    assert registry.rollback()[1].number == "1"


def test_there_is_nothing_to_roll_back_to_before_a_second_promotion(registry: Registry) -> None:
    registry.promote(registry.register(training()), over=None, reason="first")

    with pytest.raises(RegistryError, match="version 1 replaced none"):
        registry.rollback()


def test_a_bundle_whose_model_is_not_the_registered_one_is_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(training("a" * 64))

    with pytest.raises(RegistryError, match=r"version 1: model\.onnx has SHA-256 .*, its tag says aaaaaaaaaaaa"):
        registry.download(version, tmp_path / "download")
