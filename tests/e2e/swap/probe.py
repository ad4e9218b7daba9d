"""The results of a project's pipeline, as JSON: `python probe.py ACCOUNT`, in the project's root."""

import json
import sys

import mlflow
import pyarrow.parquet as pq

import churn.contract
from churn import paths
from churn.adapters import bundle, onnx
from churn.adapters.feast.store import Store
from churn.adapters.mlflow.registry import Registry
from churn.settings import load_settings

settings = load_settings()
Registry(settings)
session = onnx.session(paths.CANDIDATE / bundle.MODEL)
golden = json.loads((paths.CANDIDATE / bundle.GOLDEN).read_text())
model = mlflow.pyfunc.load_model("models:/churn@production")
features = pq.read_schema(paths.FEATURES)
found = {
    "module": churn.contract.__file__,
    "features": dict(zip(features.names, map(str, features.types), strict=True)),
    "inputs": json.loads((paths.CANDIDATE / "model.json").read_text())["inputs"],
    "onnx_shape": session.get_inputs()[0].shape,
    "online": {name: values[0] for name, values in Store(paths.FEATURES, settings).online([sys.argv[1]]).items()},
    "signature": {each.name: (each.type.name, each.required) for each in model.metadata.get_input_schema()},
    "golden": golden,
    "golden_again": model.predict(golden["customers"])["churn_probability"].tolist(),
}
print(json.dumps(found))
