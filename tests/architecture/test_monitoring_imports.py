"""The watcher runs without training and serving packages: import-linter reads the imports, this test runs them."""

import json
from datetime import timedelta
from pathlib import Path

from absent import without
from watching import HOUR, NOON, Origin, Workspace, dearer, process

HEAVY = ("dvc", "fastapi", "feast", "mlflow", "onnx", "onnxruntime", "skl2onnx", "skops")

WATCH = """
import json, warnings
warnings.simplefilter("ignore")
from datetime import datetime
from urllib.request import urlopen
import monitoring.__main__
from churn.settings import load_monitoring
from monitoring.site import serve
from monitoring.watcher import Watcher

settings = load_monitoring()
watcher = Watcher(settings)
with serve(settings) as address:
    watcher.check(datetime.fromisoformat(sys.argv[1]))
    pages = {path: urlopen(address + path).status for path in ("/", "/metrics", "/healthz")}
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(HEAVY))
print(json.dumps({"pages": pages, "loaded": loaded, "attempted": sorted(Missing.attempted)}))
"""


def test_the_watcher_runs_without_training_and_serving_packages(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    workspace = Workspace.made(tmp_path / "workspace", Origin.made(tmp_path / "origin"))
    predictions = workspace.predict(NOON - 2 * HOUR, NOON, 1200, change=dearer)
    workspace.report(predictions)

    watcher = process(workspace, "-c", without(*HEAVY) + WATCH, (NOON + timedelta(seconds=1)).isoformat())
    output, log = watcher.communicate()

    assert watcher.returncode == 0, log
    result = json.loads(output)
    assert result == {"pages": {"/": 200, "/metrics": 200, "/healthz": 200}, "loaded": [], "attempted": []}
    record = workspace.checks()[0]
    assert [each["verdict"] for each in record["windows"]] == ["bad", "bad"]
    assert record["performance"]["rows"] > 1000
