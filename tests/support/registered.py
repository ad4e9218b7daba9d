"""Trainings to register: small, and of a bundle that a registry does not look into."""

from pathlib import Path

import numpy as np
import pandas as pd

from churn.adapters import bundle
from churn.adapters.mlflow.tracking import Training
from churn.domain.encoding import derive
from factory import rows


def training(content: str = "a model") -> Training:
    """A training whose bundle is a stand-in: the registry does not look into its files."""
    folder = Path("candidate")
    folder.mkdir(exist_ok=True)
    (folder / bundle.MODEL).write_text(content)
    for name in (bundle.INPUTS, bundle.GOLDEN):
        (folder / name).write_text("{}")
    digest = bundle.seal(folder)
    frame = pd.DataFrame(derive(rows(20)))
    texts = frame.select_dtypes("category").columns
    return Training(
        params={"seed": 7},
        metrics={"cv.roc_auc": 0.85},
        loss=np.array([[0.6, 0.61], [0.5, 0.52]]),
        tags={bundle.TAG: digest, "train_rows_sha256": "b" * 64},
        rows=frame.astype(dict.fromkeys(texts, object)),
        source=Path("data/features/customers.parquet"),
        bundle=folder,
    )
