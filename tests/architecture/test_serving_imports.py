"""The server starts and scores without training packages: import-linter reads the imports, this test runs them."""

import json
import subprocess
import sys
from pathlib import Path

from absent import without
from served import ROOT, Releases, customers

HEAVY = (
    "boto3",
    "dvc",
    "evidently",
    "feast",
    "great_expectations",
    "matplotlib",
    "mlflow",
    "onnx",
    "pandas",
    "s3fs",
    "scipy",
    "skl2onnx",
    "sklearn",
    "skops",
    "sqlalchemy",
)
"""Not pickle: the standard library imports it. That the server itself does not is a contract in pyproject.toml."""

SERVE = """
import asyncio, json
import httpx2
from churn.settings import Serving
from serving.app import create_app

async def main():
    app = create_app(Serving(poll_s=0.2, drain_s=0, events="events", models="models"))
    started, ended = asyncio.Event(), asyncio.Event()
    sent = asyncio.Queue()
    await sent.put({"type": "lifespan.startup"})

    async def receive_message(message):
        (started if message["type"] == "lifespan.startup.complete" else ended).set()

    living = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, sent.get, receive_message))
    await asyncio.wait_for(started.wait(), 60)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://churn") as http:
        async with asyncio.timeout(300):
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        customers = json.load(open("customers.json"))
        answers = [await http.post(path, json={"customers": customers}) for path in ("/predict", "/explain")]
        answers += [await http.get(path) for path in ("/metrics", "/model")]
        answers += [await http.post("/outcomes", json={"outcomes": [
            {"customer_id": "c", "churned": True, "observed_at": "2026-01-01T00:00:00Z"}]})]
    await sent.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(ended.wait(), 60)
    await living
    return [each.status_code for each in answers]

statuses = asyncio.run(main())
print(json.dumps({"statuses": statuses, "attempted": sorted(Missing.attempted)}))
"""


def run(code: str, folder: Path, **environment: str) -> str:
    paths = f"{ROOT}:{ROOT / 'src'}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_server_scores_explains_and_logs_without_training_packages(tmp_path: Path) -> None:
    import mlflow

    releases = Releases(tmp_path)
    mlflow.MlflowClient(tracking_uri=releases.uri, registry_uri=releases.uri).create_registered_model("churn")
    releases.release()
    (tmp_path / "customers.json").write_text(json.dumps(customers(5)))

    result = json.loads(run(without(*HEAVY) + SERVE, tmp_path, MLFLOW_TRACKING_URI=releases.uri))

    assert result["statuses"] == [200] * 5
    assert [*(tmp_path / "events" / "predictions").rglob("*.parquet")]
    # Arrow tries to import pandas, which is optional.
    assert result["attempted"] in ([], ["pandas"])


def test_the_server_imports_no_training_module(tmp_path: Path) -> None:
    result = run("import json, sys, serving.app, serving.__main__; print(json.dumps(sorted(sys.modules)))", tmp_path)

    training = ("churn.cli", "churn.params", "churn.pipeline", "churn.models", "churn.domain.gate", "churn.domain.metrics")
    adapters = ("feast", "sources", "expectations", "rows", "mlflow.registry", "mlflow.tracking", "mlflow.pyfunc")
    unwanted = (*training, *(f"churn.adapters.{name}" for name in adapters))
    assert [name for name in json.loads(result) if name.startswith(unwanted)] == []
