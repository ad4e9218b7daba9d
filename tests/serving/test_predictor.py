"""Requests that are scored in one batch, and how one affects the others."""

import asyncio
from typing import Any

import numpy as np
import pytest

from served import customers
from serving.predictor import Predictor, Scored
from serving.problems import Contradiction, NoModel, Overloaded


class Model:
    """Gives every row its monthly charge as probability; refuses to score a charge of 13."""

    version, threshold = "7", 20.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probability(self, features: dict[str, Any]) -> Any:
        charges = features["monthly_fee"]
        self.batches.append(len(charges))
        if (charges == 13).any():
            raise ValueError("13")
        return charges.astype(float)


def score(model: Model | None, *requests: list[dict[str, Any]], deadline_s: float = 60) -> list[Any]:
    """What each of the requests, all at once, hears: its `Scored`, or its exception."""

    async def all_at_once() -> list[Any]:
        predictor = Predictor(lambda: model, None, deadline_s=deadline_s)  # type: ignore[arg-type, return-value]
        pending = [predictor.score(rows, [row["customer_id"] for row in rows]) for rows in requests]
        return await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 60)

    return asyncio.run(all_at_once())


def test_queued_requests_form_one_batch_and_get_their_own_rows() -> None:
    model = Model()
    requests = [customers(2, seed=1), customers(1, seed=2), customers(3, seed=3)]

    heard = score(model, *requests)

    assert model.batches == [6]
    for given, scored in zip(requests, heard, strict=True):
        assert isinstance(scored, Scored)
        np.testing.assert_array_equal(scored.probability, [row["monthly_fee"] for row in given])
        assert [each["customer_id"] for each in scored.predictions()] == [row["customer_id"] for row in given]
    ids = [name for scored in heard for name in scored.prediction_ids]
    assert len(set(ids)) == 6


def test_a_request_that_cannot_be_scored_fails_alone() -> None:
    good, bad = customers(2, seed=1, monthly_fee=5.0), customers(1, seed=2, monthly_fee=13.0)

    first, second, third = score(Model(), good, bad, good)

    assert first.probability == third.probability == [5.0, 5.0]
    assert isinstance(second, ValueError)


def test_a_contradicting_request_fails_alone_with_its_row_and_rule() -> None:
    good, bad = customers(2, seed=1), customers(3, seed=2, has_locker=True)
    bad[1] |= {"second_locker": "No locker"}

    scored, refused = score(Model(), good, bad)

    assert isinstance(scored, Scored)
    assert isinstance(refused, Contradiction)
    assert refused.detail.startswith("customers[1]: no_locker_no_second: ")


def test_a_large_batch_is_split_between_requests() -> None:
    model = Model()

    score(model, *[customers(900, seed=each) for each in range(3)])

    assert model.batches == [1800, 900]


def test_a_request_that_waited_too_long_is_refused() -> None:
    (refused,) = score(Model(), customers(1), deadline_s=0)

    assert isinstance(refused, Overloaded)
    assert refused.reason == "deadline"


@pytest.mark.parametrize("requests", [1, 3])
def test_every_request_without_a_model_is_refused(requests: int) -> None:
    heard = score(None, *[customers(1)] * requests)

    assert [type(each) for each in heard] == [NoModel] * requests
