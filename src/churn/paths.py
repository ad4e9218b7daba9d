"""Every path of the pipeline, in one place; all are relative to the project's root."""

from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("uv.lock")

RAW = Path("data/raw")
QUARANTINE = Path("data/quarantine")
VALIDATION = Path("data/validation")
TRAIN_ROWS = Path("data/prepared/train.parquet")
TEST_ROWS = Path("data/prepared/test.parquet")
FEATURES = Path("data/features/customers.parquet")
TEST_FRAME = Path("data/frames/test.parquet")
ONLINE_STORE = Path("data/online")
MODEL = "churn"
"""The registered model."""
PRODUCTION = "production"
"""The alias of the version that serves."""
CANDIDATE_ALIAS = "candidate"
"""The alias of the version that was trained last."""
BUNDLE = "artifacts/candidate"
"""Where a bundle lies in a version's artifacts: MLflow's layout of a pyfunc model, and the folder that was logged."""

FEAST_PROJECT = "churn"
"""Under which `feature_store.yaml` keeps everything; a part of every key in the online store."""
FEAST_VIEW = "customer_features"
"""The one feature view; a part of every name in the online store."""

CANDIDATE = Path("models/candidate")
BASELINE = Path("models/baseline.onnx")

TRAIN_METRICS = Path("metrics/train.json")
EVALUATE_METRICS = Path("metrics/evaluate.json")
PLOTS = Path("plots")
TRAIN_REPORTS = Path("reports/train")
EVALUATE_REPORTS = Path("reports/evaluate")
