"""Damaged bundles are refused, whatever is damaged: `make bench-fuzz` runs longer."""

from pathlib import Path

import pytest

import fuzzing
from churn.adapters import bundle
from churn.adapters.mlflow import model_store
from churn.domain.version import Version
from churn.paths import MODEL, PRODUCTION
from served import Releases

pytestmark = [pytest.mark.reported, pytest.mark.slow]

FilesOfVersion = tuple[dict[str, bytes], Version]


@pytest.fixture(scope="module")
def version(released: Releases) -> FilesOfVersion:
    """The files of a good version, and what the registry says of it."""
    found = model_store.connect(released.uri, timeout_s=3).of_alias(MODEL, PRODUCTION)
    assert found
    return bundle.read(Path(found.location) / "artifacts" / "candidate", expected=found.digest), found


def test_ten_thousand_damaged_bundles_are_parsed_or_refused(version: FilesOfVersion) -> None:
    found = fuzzing.parse_in_process(*version, rounds=10_000, seed=15)

    assert {"corrupt", "contract", "golden"} <= found.keys()
    assert found.keys() <= {"corrupt", "contract", "golden", "explanation", "signature", ""}


def test_three_hundred_damaged_bundles_are_loaded_or_refused_in_isolation(version: FilesOfVersion, tmp_path: Path) -> None:
    found = fuzzing.load_isolated(*version, tmp_path, rounds=300, seed=15)

    assert sum(found.values()) == 300
    assert found.get("", 0) < 100
