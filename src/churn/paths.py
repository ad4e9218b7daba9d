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

CANDIDATE = Path("models/candidate")
BASELINE = Path("models/baseline.onnx")

TRAIN_METRICS = Path("metrics/train.json")
EVALUATE_METRICS = Path("metrics/evaluate.json")
PLOTS = Path("plots")
TRAIN_REPORTS = Path("reports/train")
EVALUATE_REPORTS = Path("reports/evaluate")
