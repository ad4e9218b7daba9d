"""The same rows give the same model bytes, whatever their order, the number of threads and the locale."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.adapters import rows, sources
from churn.pipeline.prepare import ordered, split

ROOT = Path(__file__).parents[2]

FIT = """
import hashlib, sys
from pathlib import Path
import pandas as pd
from churn import models
from churn.contract import LABEL
from churn.domain.encoding import derive, encode
from churn.params import load_params
from churn.pipeline import selection

frame, params = pd.read_parquet(sys.argv[1]), load_params(Path(sys.argv[2])).train
X, y = encode(derive(frame)), frame[LABEL].to_numpy(bool)
for name in models.names():
    model = models.build(params, name)
    fitted = selection.fit(model, X, y, params)
    print(hashlib.sha256(model.export(fitted.estimator, X, metadata={})).hexdigest())
"""


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    frame, _ = rows.typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    return split(ordered(frame), 0.2)[0]


def fitted(train: pd.DataFrame, path: Path, **environment: str) -> str:
    """The digest of every shipped model, fitted on the sorted rows by a process of its own."""
    ordered(train).to_parquet(path, index=False)
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(path), str(ROOT / "params.yaml")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.reported
def test_model_bytes_do_not_depend_on_row_order_threads_or_locale(train: pd.DataFrame, tmp_path: Path) -> None:
    shuffled = train.iloc[np.random.default_rng(1).permutation(len(train))]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C"}
    four = {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}

    digests = fitted(train, tmp_path / "a.parquet", **one).split()

    assert len(set(digests)) == 3
    assert fitted(shuffled, tmp_path / "b.parquet", **four).split() == digests
