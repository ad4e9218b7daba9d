"""What `churn repro` reports: the gate's decision where it decided, else the version that the workspace holds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from churn import paths
from churn.adapters.mlflow.registry import Registry
from churn.domain.version import Version
from churn.paths import PRODUCTION
from churn.pipeline import retrain
from churn.settings import Settings
from registered import training


@pytest.fixture
def settings(registry: Registry, tmp_path: Path) -> Settings:
    """Those of the registry's workspace."""
    return Settings(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def version(registry: Registry) -> Version:
    """The version that the workspace's files belong to, evaluated and kept in DVC's outputs."""
    made = training()
    version = registry.register(made)
    paths.CANDIDATE.parent.mkdir()
    shutil.copytree(made.bundle, paths.CANDIDATE)
    paths.EVALUATE_REPORTS.mkdir(parents=True)
    retrain.DECISION.write_text('{"promoted": true, "reason": "passed every check"}')
    return version


def evaluated(registry: Registry, version: Version, **tags: str) -> None:
    registry.record(version, metrics={}, tags=tags, artifacts=paths.EVALUATE_REPORTS)


def test_a_gate_decision_is_reported(settings: Settings, version: Version, dvc: Callable[[str], None]) -> None:
    dvc("""echo '{"promoted": false, "outcome": "failed", "reason": "failed roc_auc"}' > reports/evaluate/decision.json""")

    assert retrain.reproduce(settings) == "not promoted: failed"


def test_a_run_without_changes_names_the_production_version(
    settings: Settings, registry: Registry, version: Version, dvc: Callable[[str], None]
) -> None:
    registry.promote(version, over=None, reason="first")
    dvc("")

    assert retrain.reproduce(settings) == "nothing changed since version 1, which is in production"


def test_a_run_without_changes_gives_the_reason_of_the_refusal(
    settings: Settings, registry: Registry, version: Version, dvc: Callable[[str], None]
) -> None:
    evaluated(registry, version, gate="failed: roc_auc", decision="failed roc_auc: 0.84, expected ≥ 0.99")
    dvc("")

    assert retrain.reproduce(settings) == (
        "nothing changed since version 1, which was not promoted: failed roc_auc: 0.84, expected ≥ 0.99"
    )


def test_a_run_without_changes_names_the_replacing_version(
    settings: Settings, registry: Registry, version: Version, dvc: Callable[[str], None]
) -> None:
    evaluated(registry, version, gate="passed", decision="passed every check")
    registry.promote(version, over=None, reason="first")
    registry.promote(registry.register(training("another")), over=registry.of_alias(PRODUCTION), reason="by hand")
    dvc("")

    assert retrain.reproduce(settings) == "nothing changed since version 1, which is not in production: version 2 is"
