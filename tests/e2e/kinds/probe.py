"""What stands in a project after its pipeline ran, as JSON: `python probe.py URL OUT`; a server listens at URL."""

import json
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd

from churn import paths
from churn.adapters import bundle, onnx
from churn.adapters.events import log as events
from churn.adapters.feast.store import Store
from churn.adapters.online_store import reader
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain.encoding import encode
from churn.settings import load_settings
from monitoring.drift import measure
from monitoring.evidence import _violations

settings = load_settings()
http = httpx2.Client(base_url=sys.argv[1], timeout=60)
files = bundle.read(paths.CANDIDATE, (*bundle.SERVED, bundle.REFERENCE))
inputs = bundle.inputs_of(files[bundle.INPUTS])
session = onnx.session(files[bundle.MODEL])


def post(path: str, body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predictions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(post("/predict", {"customers": rows})["predictions"])


def probabilities(rows: list[dict[str, Any]]) -> list[float]:
    return [each["churn_probability"] for each in predictions(rows)]


# The rows as training sees them, the newest of each line
both = pd.concat([pd.read_parquet(path) for path in (paths.TRAIN_ROWS, paths.TEST_ROWS)], ignore_index=True)
store = Store(paths.FEATURES, settings)
frame = store.training_frame(both[[ENTITY, TIMESTAMP, LABEL]])
frame = frame.assign(p=onnx.predict(session, encode(frame, inputs)))
newest = frame.sort_values(TIMESTAMP).drop_duplicates(ENTITY, keep="last").head(100).reset_index(drop=True)
ids = newest[ENTITY].tolist()
raw = both.merge(newest[[ENTITY, TIMESTAMP]])
raw = raw.set_index(ENTITY).loc[ids].reset_index().drop(columns=[LABEL, "row_origin"])
sent = [
    {
        str(name): str(value)[:10] if isinstance(value, pd.Timestamp) else value
        for name, value in row.items()
        if not pd.isna(value)
    }
    for row in raw.astype(object).to_dict("records")
]
by_id = [each["churn_probability"] for each in post("/predict/by-id", {"customer_ids": ids})["predictions"]]
explained = post("/explain", {"customers": sent[:1]})["explanations"][0]
today = datetime.now(UTC).date()
undated = {name: value for name, value in sent[0].items() if name != TIMESTAMP} | {"joined": str(today - timedelta(days=7))}
undated.pop("last_call", None)
looked_up = http.post(
    "/page/customer", content=f"customer_id={ids[0]}", headers={"Content-Type": "application/x-www-form-urlencoded"}
)
assert looked_up.status_code == 200, looked_up.text

# The log, as soon as it is written
with_timestamp = predictions(sent)
scored = [each["prediction_id"] for each in with_timestamp]
sink, since, end = events.open_sink(settings.events), datetime.now(UTC) - timedelta(days=1), time.monotonic() + 60
found: dict[str, Any] = {
    "inputs": inputs,
    "all": {f"{row[ENTITY]} {row[TIMESTAMP]:%Y-%m-%d}": row["p"] for _, row in frame.iterrows()},
    "training": newest["p"].tolist(),
    "with_timestamp": [each["churn_probability"] for each in with_timestamp],
    "scored": scored,
    "by_id": by_id,
    "reasons": {each["feature"]: (each["value"], each["text"]) for each in explained["reasons"]},
    "row": sent[0],
    "page": looked_up.text,
    "without_timestamp": probabilities([undated]),
    "with_todays": probabilities([undated | {TIMESTAMP: str(today)}]),
}
while not set(scored) <= set((log := sink.read("predictions", since=since))["prediction_id"].to_pylist()):
    assert time.monotonic() < end
    time.sleep(0.2)
logged = log.to_pandas()
stored = reader.connect(settings.online_store).read(ids[:1])[0]
assert stored
reference = pd.read_parquet(paths.CANDIDATE / bundle.REFERENCE)
is_rare = ~("city=" + reference["city"]).isin(inputs)
renamed = reference.assign(city=reference["city"].where(~is_rare, "Newtown"))
drift, renamed_drift = (measure(window, reference, important=(), threshold=0.5, inputs=inputs) for window in (logged, renamed))
found |= {
    "logged": json.loads(logged[logged["prediction_id"].isin(scored)].to_json(orient="records", double_precision=15)),
    "log_gap": float(abs(onnx.predict(session, encode(logged, inputs)) - logged["churn_probability"]).max()),
    "log_violations": [str(each) for each in _violations(log)],
    "log_types": {name: str(log.schema.field(name).type) for name in ("plan", "has_app", "city", "joined", "is_silent_user")},
    "log_nulls": {name: log[name].null_count for name in ("plan", "has_app", "device", "last_call")},
    "drift": {each.name: each.value for each in drift.features},
    "rare": int(is_rare.sum()),
    "renamed_drift": {each.name: each.value for each in renamed_drift.features},
    "stored": {name: value if not isinstance(value, date) else str(value) for name, value in stored.values.items()},
}
Path(sys.argv[2]).write_text(json.dumps(found))
