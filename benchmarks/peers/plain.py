"""What most people write: FastAPI, a pydantic model of the raw columns, a data frame, a pickled scikit-learn pipeline."""

from fastapi import FastAPI
from peers.customers import Customer, Prediction, load, scored
from pydantic import BaseModel

app = FastAPI()
PIPELINE = load()


class Request(BaseModel):
    """Customers to score."""

    customers: list[Customer]


class Answer(BaseModel):
    """Their scores."""

    predictions: list[Prediction]


@app.post("/predict")
def predict(request: Request) -> Answer:
    """Score customers; not `async`, as FastAPI's own guide has it for work that blocks."""
    return Answer(predictions=scored(PIPELINE, request.customers))
