"""One check in a process of its own, in a trained project's root.

`checks.py fill ROWS PARTS` writes a prediction log of that many rows, all within the last minutes. `checks.py month DAYS ROWS
PARTS` writes that many days of a busy server, each in so many parts, with outcomes; `checks.py day PARTS ROWS` one more day,
yesterday, as a server writes it, a part every five seconds; `checks.py compact` compacts what is over. `watcher` and `evidently`
print JSON: seconds of the first and of a second check in the same process, and how long the imports took. `repeated CHECKS`
prints the watcher's resident memory after each of so many checks, a minute apart (Linux).
"""

import json
import resource
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

INTERVAL_S = 3600
LABEL_HORIZON_S = 86_400
"""A day, so that the window of performance is full of final labels too."""


def main() -> None:
    """Run the command of the arguments."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path.cwd()))
    match sys.argv[1:]:
        case ["fill", rows, parts]:
            fill(int(rows), int(parts))
        case ["month", days, rows, parts]:
            month(int(days), int(rows), int(parts))
        case ["day", parts, rows]:
            day(int(parts), int(rows))
        case ["compact"]:
            compacted()
        case ["watcher"]:
            watcher()
        case ["repeated", checks]:
            repeated(int(checks))
        case ["evidently"]:
            evidently()


def fill(rows: int, parts: int) -> None:
    """A log of the shipped customers' features, drawn again and again, with the reference's probabilities."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from churn.adapters.events.log import open_sink, prediction_schema

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


def month(days: int, rows: int, parts: int) -> None:
    """Days of a busy server that are over by more than a day; one customer in fifty is reported on."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for number in range(2, days + 2):
        _day(midnight - timedelta(days=number), parts, rows // parts, reported=rows // 50)


def day(parts: int, rows: int) -> None:
    """Yesterday, which is not compacted yet."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    _day(midnight - timedelta(days=1), parts, max(1, rows // parts), reported=0)


def _day(start: datetime, parts: int, rows: int, *, reported: int) -> None:
    """A day of parts with `rows` rows each, in the order of time, and outcomes of some of its predictions a day later."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from churn.adapters.events.log import open_sink, outcomes, prediction_schema
    from churn.contract import LABEL

    pool = pq.read_table("models/candidate/reference.parquet")
    sink, random = open_sink("data/events"), np.random.default_rng(start.toordinal())
    step = timedelta(days=1) / (parts * rows)
    left = []
    for part in range(parts):
        drawn = pool.take(pa.array(random.integers(len(pool), size=rows)))
        names = [f"{start:%j}{part:06d}{row:08d}" for row in range(rows)]
        times = [start + (part * rows + row) * step for row in range(rows)]
        left += [(name, random.random() < p) for name, p in zip(names, drawn["churn_probability"].to_pylist(), strict=True)][
            : reported // parts
        ]
        columns = {
            "prediction_id": pa.array(names),
            "customer_id": pa.array([f"customer-{number}" for number in random.integers(500_000, size=rows)]),
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "churn": pa.compute.greater_equal(drawn["churn_probability"], 0.124),
            "model_version": pa.array(["1"] * rows),
            "latency_ms": pa.array(random.random(rows)),
        }
        table = pa.table(
            {name: columns.get(name, drawn[name] if name in drawn.column_names else None) for name in prediction_schema().names}
        )
        sink.write("predictions", table, f"{times[-1]:%Y%m%dT%H%M%S.%fZ}-server-1-{part:06d}")
    seen = start + timedelta(days=1, hours=1)
    if left and seen + timedelta(hours=1) < datetime.now(UTC):
        reports = [
            {"prediction_id": name, LABEL: bool(churned), "observed_at": seen + timedelta(hours=23)} for name, churned in left
        ]
        received = min(seen + timedelta(hours=23), datetime.now(UTC))
        sink.write("outcomes", outcomes(reports, received_at=received), f"{start:%Y%m%d}")


def compacted() -> None:
    """Compact what is over, and delete what was replaced; prints how long each took, and what was done."""
    from churn.adapters.events.compaction import compact
    from churn.adapters.events.log import open_sink

    found = {}
    for turn in ("merge", "delete"):
        began = time.perf_counter()
        done = compact(open_sink("data/events"), now=datetime.now(UTC), after=timedelta(0), grace=timedelta(0))
        found[f"{turn}_s"] = time.perf_counter() - began
        found |= {
            "days": done.days or found.get("days", 0),
            "merged": done.merged or found.get("merged", 0),
            "deleted": done.deleted,
        }
    print(json.dumps(found))


def watcher() -> None:
    """Two checks of the watcher, at two ends of the window."""
    began = time.perf_counter()
    import evidently  # noqa: F401 - what the first check would import
    import great_expectations  # noqa: F401

    from churn.settings import Monitoring
    from monitoring.watcher import Watcher

    watching = Watcher(Monitoring(interval_s=INTERVAL_S, label_horizon_s=LABEL_HORIZON_S))
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


def repeated(checks: int) -> None:
    """So many checks of one watcher; prints JSON: its resident memory after each, in MB."""
    from churn.settings import Monitoring
    from monitoring.watcher import Watcher

    watching = Watcher(Monitoring(interval_s=60, label_horizon_s=LABEL_HORIZON_S))
    now, found = datetime.now(UTC), []
    for turn in range(1, checks + 1):
        assert watching.check(now + turn * timedelta(minutes=1)), "there is no production version"
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found.append(round(pages * resource.getpagesize() / 2**20))
    print(json.dumps({"resident_mb": found}))


def evidently() -> None:
    """Evidently on every row of the window, with the same metrics and the same files written."""
    began = time.perf_counter()
    from churn.adapters.events.log import open_sink
    from churn.adapters.mlflow.model_store import connect
    from churn.features import FEATURES
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
