"""Adapter of MLflow's tracking: what a training run logs, and the model in MLflow's format."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import churn
from churn.adapters.rows import as_sent
from churn.contract import ENTITY, LABEL, SCORED, TIMESTAMP, Column, Flag, Integer, Real

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run leaves: everything that is logged with a new version.

    `loss` (steps, 2) as `churn.pipeline.selection.Fitted` has it; `rows` are the labels and features that it was fitted on;
    `bundle` is the folder that travels with the version, `plots` PNG files.
    """

    params: dict[str, Any]
    metrics: dict[str, float]
    loss: Any
    tags: dict[str, str]
    rows: "pd.DataFrame"
    source: Path
    bundle: Path
    plots: tuple[Path, ...] = ()


REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic")
"""The packages that churn.adapters.mlflow.pyfunc needs."""


def log_training(training: Training, run_id: str) -> None:
    """Log parameters, metrics, the loss of every step, the dataset and the plots with the active run."""
    import mlflow
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    steps = [
        Metric(f"log_loss.{name}", float(value), now, step)
        for step, row in enumerate(training.loss, start=1)
        for name, value in zip(("train", "held_out"), row, strict=True)
    ]
    params = [Param(key, str(value)) for key, value in training.params.items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=steps, params=params)
    mlflow.log_metrics(training.metrics)
    dataset = mlflow.data.from_pandas(training.rows, source=str(training.source), name="train", targets=LABEL)
    mlflow.log_input(dataset, context="training", tags={"sha256": training.tags["train_rows_sha256"]})
    for plot in training.plots:
        mlflow.log_artifact(str(plot), "plots")


def signature() -> "ModelSignature":
    """The contract as MLflow's signature: raw columns in, a probability out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    def kind_of(column: Column) -> DataType:
        match column.kind:
            # MLflow refuses a null among longs, and pandas holds whole numbers with nulls as floats.
            case Integer() if not column.nullable:
                return DataType.long
            case Integer() | Real():
                return DataType.double
            case Flag():
                return DataType.boolean
            case _:
                return DataType.string

    inputs = Schema(
        [
            ColSpec(kind_of(each), each.name, required=not each.nullable and each.name != TIMESTAMP)
            for each in SCORED
            if each.name != ENTITY
        ]
    )
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double, "churn_probability")]))


def log_model(bundle: Path, rows: "pd.DataFrame") -> Any:
    """Log the bundle as a model that MLflow can load and serve, with the code that computes its features."""
    from importlib.metadata import version

    import mlflow

    package = Path(churn.__file__).parent
    return mlflow.pyfunc.log_model(
        name="model",
        python_model=str(Path(__file__).with_name("pyfunc.py")),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(package)],
        signature=signature(),
        input_example=as_sent(rows.head(2)),
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
    )
