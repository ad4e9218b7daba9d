"""Scoring as a notebook does it, beside `churn score`: pandas and a scikit-learn pipeline on the same rows.

`notebook.py fit PIPELINE DEPTH` fits on the shipped rows; `notebook.py sklearn|churn ROUNDS IN OUT [PIPELINE]` scores a Parquet
file that is spelled as the raw file, and prints the median seconds of each step as JSON. Run it in a project's root.
"""

import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

RAW = "data/raw/customers.csv"
ADD_ONS = ["OnlineSecurity", "OnlineBackup", "DeviceProtection", "TechSupport", "StreamingTV", "StreamingMovies"]


def engineer(customers: Any) -> Any:
    """The raw columns and the derived ones, as a data scientist would write them in a notebook."""
    import numpy as np
    import pandas as pd

    df = customers.drop(columns=["customerID", "event_timestamp", "Churn"], errors="ignore")
    df["TotalCharges"] = pd.to_numeric(df["TotalCharges"], errors="coerce").fillna(0)
    df["total_value"] = df["tenure"] * df["MonthlyCharges"]
    df["average"] = np.where(df["tenure"] > 0, df["TotalCharges"] / df["tenure"].clip(lower=1), df["MonthlyCharges"])
    df["ratio"] = np.where(df["MonthlyCharges"] > 0, df["average"] / df["MonthlyCharges"], 1)
    df["add_ons"] = (df[ADD_ONS] == "Yes").sum(axis=1)
    df["has_family"] = (df["Partner"] == "Yes") | (df["Dependents"] == "Yes")
    df["is_autopay"] = df["PaymentMethod"].isin(["Bank transfer (automatic)", "Credit card (automatic)"])
    df["is_new"] = df["tenure"] <= 6
    return df


def fit(out: Path, trained: Path) -> None:
    """Fit the pipeline on the shipped rows, with the model and the hyperparameters of metrics/train.json, and pickle it."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    from churn import models
    from churn.params import load_params

    chosen = json.loads(trained.read_text())
    raw = pd.read_csv(RAW)
    X, y = engineer(raw), raw["Churn"] == "Yes"
    texts = list(X.select_dtypes("object"))
    encoder = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough")
    model = models.build(load_params().train, chosen["algorithm"]).unfitted(**chosen["hyperparameters"])
    out.write_bytes(pickle.dumps(Pipeline([("encoder", encoder), ("model", model)]).fit(X, y)))


def by_sklearn(source: Path, out: Path, model: Any) -> dict[str, float]:
    """Read, engineer, `predict_proba`, write; seconds of each."""
    import pandas as pd

    seconds: dict[str, float] = {}
    customers = _timed(seconds, "read", lambda: pd.read_parquet(source))
    X = _timed(seconds, "engineer", lambda: engineer(customers))
    probability = _timed(seconds, "predict", lambda: model.predict_proba(X)[:, 1])
    scored = pd.DataFrame({"customerID": customers["customerID"], "churn_probability": probability})
    _timed(seconds, "write", lambda: scored.to_parquet(out, index=False))
    return seconds | {"end_to_end": sum(seconds.values()), "rows": len(scored)}


def by_churn(source: Path, out: Path, model: Any) -> dict[str, float]:
    """`churn score`, and its work on rows that are in memory already; seconds of each."""
    from churn.adapters import sources
    from churn.adapters.rows import arrays
    from churn.contract import ENTITY
    from churn.pipeline import score

    seconds: dict[str, float] = {}
    rows = _timed(seconds, "end_to_end", lambda: score.score(source, out, model))
    typed = [arrays(batch.drop_columns([ENTITY])) for batch in sources.batches(source, rows=score.BATCH_ROWS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        _timed(seconds, "predict", lambda: list(pool.map(model.probability, typed)))
    return seconds | {"rows": rows}


def rounds(times: str, once: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The medians of several rounds in one process: from the second on, modules are imported and memory is at hand."""
    found = [once() for _ in range(int(times))]
    return {key: median(each[key] for each in found) for key in found[0]}


def _timed(seconds: dict[str, float], step: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    seconds[step] = time.perf_counter() - began
    return result


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["fit", out, trained]:
            fit(Path(out), Path(trained))
        case ["sklearn", times, source, out, pipeline]:
            fitted = pickle.loads(Path(pipeline).read_bytes())
            print(json.dumps(rounds(times, lambda: by_sklearn(Path(source), Path(out), fitted))))
        case ["churn", times, source, out]:
            from churn.adapters.mlflow.registry import Registry
            from churn.pipeline.score import production
            from churn.settings import load_settings

            model = production(Registry(load_settings()))
            print(json.dumps(rounds(times, lambda: by_churn(Path(source), Path(out), model))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
