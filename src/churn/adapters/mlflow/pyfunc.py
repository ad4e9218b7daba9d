"""The model as MLflow loads it: `mlflow.pyfunc.load_model("models:/churn@production").predict(raw_columns)`.

MLflow keeps this file's text with every version ("models from code"): nothing is pickled.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from churn.adapters import bundle, onnx
from churn.adapters.rows import batch_of, checked, violation
from churn.contract import ENTITY, SCORED
from churn.domain.encoding import derive, encode
from churn.errors import ContractError


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
        """One `churn_probability` per row.

        Raises:
            MlflowException: a column is missing, or a row breaks the contract: the server of `mlflow models serve` answers 400.
        """
        probability = onnx.predict(self._session, encode(derive(_accepted(model_input)), self._inputs))
        return pd.DataFrame({"churn_probability": probability}, index=model_input.index)


def _accepted(rows: pd.DataFrame) -> dict[str, Any]:
    """The rows' columns, if every row keeps the contract. A refusal names row numbers and no values: they may be personal."""
    try:
        columns, violations = checked(batch_of(rows, [each for each in SCORED if each.name != ENTITY]))
    except ContractError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from None
    if violations:
        found = [
            violation(subject, rule, int(bad.sum()), ((f"row {bad.argmax()}", ""),), of=len(rows))
            for subject, rule, bad in violations
        ]
        raise MlflowException.invalid_parameter_value(f"{'; '.join(map(str, found))}; correct them")
    return columns


mlflow.models.set_model(ChurnModel())
