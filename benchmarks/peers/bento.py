"""The same pickled pipeline as a BentoML service with one worker, and like the others without access log."""

import bentoml  # type: ignore[import-not-found, unused-ignore]
from peers.customers import Customer, Prediction, load, scored


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Churn:
    """Scores customers."""

    def __init__(self) -> None:
        self.pipeline = load()

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    def predict(self, customers: list[Customer]) -> list[Prediction]:
        """Score customers."""
        return scored(self.pipeline, customers)
