"""One check in a process of its own: `checks.py fill ROWS PARTS | watcher | evidently`, in a trained project's root.

`fill` writes a prediction log of that many rows, all within the last minutes; `watcher` and `evidently` print JSON: seconds of
the first and of a second check in the same process, and how long the imports took.
"""

import json
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

INTERVAL_S = 3600


def main() -> None:
    """Do what is asked for."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path.cwd()))
    match sys.argv[1:]:
        case ["fill", rows, parts]:
            fill(int(rows), int(parts))
        case ["watcher"]:
            watcher()
        case ["evidently"]:
            evidently()


def fill(rows: int, parts: int) -> None:
    """A log of the shipped customers' features, drawn again and again, with the reference's probabilities."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from churn.events import open_sink, prediction_schema

    pool = pq.read_table("models/candidate/reference.parquet")
    random = np.random.default_rng(0)
    sink = open_sink("data/events")
    end = datetime.now(UTC) - timedelta(minutes=1)
    for part in range(parts):
        count = rows // parts
        drawn = pool.take(pa.array(random.integers(len(pool), size=count)))
        drawn = drawn.append_column("prediction_id", pa.array([f"{part:06d}{row:08d}" for row in range(count)]))
        for name, values in {
            "time": pa.array([end - timedelta(milliseconds=part)] * count, pa.timestamp("us", "UTC")),
            "churn": pa.compute.greater_equal(drawn["churn_probability"], 0.124),
            "model_version": pa.array(["1"] * count),
            "latency_ms": pa.array(random.random(count)),
        }.items():
            drawn = drawn.append_column(name, values)
        sink.write("predictions", drawn.select(prediction_schema().names), f"{part:06d}")


def watcher() -> None:
    """Two checks of the watcher, at two ends of the window."""
    began = time.perf_counter()
    import evidently  # noqa: F401 - what the first check would import
    import great_expectations  # noqa: F401

    from churn.settings import Monitoring
    from monitoring.watcher import Watcher

    watching = Watcher(Monitoring(interval_s=INTERVAL_S))
    imported = time.perf_counter() - began
    now = datetime.now(UTC)
    took = []
    decisions = []
    for turn in (1, 2):
        began = time.perf_counter()
        decision = watching.check(now + turn * timedelta(seconds=INTERVAL_S))
        took.append(time.perf_counter() - began)
        assert decision, "there is no production version"
        decisions.append(decision.kind)
    print(json.dumps({"import_s": imported, "first_s": took[0], "second_s": took[1], "decisions": decisions}))


def evidently() -> None:
    """Evidently on every row of the window, with the same metrics and the same files written."""
    began = time.perf_counter()
    from churn.events import open_sink
    from churn.features import FEATURES
    from churn.model_store import connect
    from monitoring import drift
    from monitoring.reports import Reports
    from monitoring.versions import Versions

    imported = time.perf_counter() - began
    took = []
    for turn in (1, 2):
        began = time.perf_counter()
        version = Versions(connect("sqlite:///mlflow.db", timeout_s=5)).production()
        assert version, "there is no production version"
        rows = open_sink("data/events").read("predictions", since=datetime.now(UTC) - timedelta(days=1)).to_pandas()
        current, before = drift._comparable(rows, version.reference, [each.name for each in FEATURES])
        bounds = dict.fromkeys(map(str, current), drift.DRIFT_PSI)
        Reports(Path("data/evidently"), 10).add(drift._report(current, before, bounds, {}), f"{turn}-v1-short")
        took.append(time.perf_counter() - began)
    print(json.dumps({"import_s": imported, "first_s": took[0], "second_s": took[1]}))


if __name__ == "__main__":
    main()
