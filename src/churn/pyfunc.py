"""The model as MLflow loads it: `mlflow.pyfunc.load_model("models:/churn@production").predict(raw_columns)`.

MLflow keeps this file's text with every version ("models from code"): nothing is pickled.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from churn import bundle, onnx
from churn.features import derive, encode


class ChurnModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Raw columns of the contract in, churn probability out."""

    def load_context(self, context: Any) -> None:
        """Open the version's ONNX model.

        Raises:
            BundleError: a file of the bundle is not the one that its manifest names.
        """
        files = bundle.read(Path(context.artifacts["bundle"]))
        self._inputs = bundle.inputs_of(files[bundle.INPUTS])
        self._session = onnx.session(files[bundle.MODEL])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One `churn_probability` per row."""
        probability = onnx.predict(self._session, encode(derive(model_input), self._inputs))
        return pd.DataFrame({"churn_probability": probability}, index=model_input.index)


mlflow.models.set_model(ChurnModel())
