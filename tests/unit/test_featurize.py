from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain.derived import DERIVED, Feature
from churn.domain.kinds import Real
from churn.errors import ContractError
from churn.features import FEATURES
from churn.pipeline.featurize import features_of, write
from factory import rows


def test_features_have_the_key_and_every_feature_and_no_label() -> None:
    found = features_of(rows(10))

    assert list(found) == [ENTITY, TIMESTAMP, *(each.name for each in FEATURES)]
    assert LABEL not in found


def test_features_written_in_batches_equal_those_written_at_once(tmp_path: Path) -> None:
    customers = rows(100)
    batches = [customers[:1], customers[1:60], customers[60:]]

    done = write(batches, tmp_path / "batches.parquet")
    write([customers], tmp_path / "once.parquet")

    found, expected = (pd.read_parquet(tmp_path / name).astype(object) for name in ("batches.parquet", "once.parquet"))
    assert done == 100
    pd.testing.assert_frame_equal(found, expected)


def test_a_derived_null_is_refused_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hole = Feature("hole", Real(), "always null", derive=lambda c: np.full(len(c["member_months"]), np.nan))
    monkeypatch.setitem(DERIVED, "hole", hole)

    with pytest.raises(ContractError, match=r"features\.py: hole: 10 rows null"):
        write([rows(10)], tmp_path / "features.parquet")

    assert list(tmp_path.iterdir()) == []
