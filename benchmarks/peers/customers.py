"""What both pickled peers share: the raw file's columns as a pydantic model, and the notebook's pipeline."""

import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
from notebook import engineer
from pydantic import BaseModel


class Customer(BaseModel):
    """One customer, spelled as in the raw file."""

    customerID: str  # noqa: N815
    gender: str
    SeniorCitizen: int
    Partner: str
    Dependents: str
    tenure: int
    PhoneService: str
    MultipleLines: str
    InternetService: str
    OnlineSecurity: str
    OnlineBackup: str
    DeviceProtection: str
    TechSupport: str
    StreamingTV: str
    StreamingMovies: str
    Contract: str
    PaperlessBilling: str
    PaymentMethod: str
    MonthlyCharges: float
    TotalCharges: float | None = None


class Prediction(BaseModel):
    """One customer's score."""

    customerID: str  # noqa: N815
    churn_probability: float


def load() -> Any:
    """The pipeline that `notebook.py fit` pickled."""
    return pickle.loads(Path(os.environ["PIPELINE"]).read_bytes())


def scored(pipeline: Any, customers: list[Customer]) -> list[Prediction]:
    """The customers' probabilities, by way of a data frame."""
    frame = pd.DataFrame([each.model_dump() for each in customers])
    probabilities = pipeline.predict_proba(engineer(frame))[:, 1]
    return [
        Prediction(customerID=each.customerID, churn_probability=float(probability))
        for each, probability in zip(customers, probabilities, strict=True)
    ]
