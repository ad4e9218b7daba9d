"""What travels with a version for drift: its newest training rows, as a model saw them that had not learned from them."""

import numpy as np
import pandas as pd

from churn.contract import TIMESTAMP
from churn.pipeline.train import reference
from factory import rows

MONTHS = pd.date_range("2026-01-01", periods=4, freq="MS", tz="UTC", unit="us")


def frame(n: int = 400) -> pd.DataFrame:
    """Rows of four months, in no order of time."""
    return rows(n, event_timestamp=MONTHS[np.random.default_rng(0).permutation(n) % 4])


def test_the_reference_has_the_newest_rows() -> None:
    given = frame()

    found = reference(given, np.zeros(400), 200)

    assert len(found) == 200
    assert found[TIMESTAMP].value_counts().to_dict() == {MONTHS[3]: 100, MONTHS[2]: 100}


def test_a_partly_used_month_is_sampled_at_random() -> None:
    given = frame()

    found = reference(given, np.zeros(400), 150)

    assert (found[TIMESTAMP] == MONTHS[3]).sum() == 100
    older = given.index[given[TIMESTAMP] == MONTHS[2]][:50]
    taken = given.index[given.customer_id.isin(found.customer_id) & (given[TIMESTAMP] == MONTHS[2])]
    assert len(taken) == 50
    assert not taken.equals(older)


def test_the_reference_rows_keep_their_order_and_their_own_probabilities() -> None:
    given, probability = frame(), np.linspace(0, 1, 400)

    found = reference(given, probability, 150)

    positions = given.reset_index().set_index("customer_id")["index"].loc[found.customer_id].to_numpy()
    assert (np.diff(positions) > 0).all()
    assert found.churn_probability.tolist() == probability[positions].tolist()
    assert found.index.tolist() == list(range(150))
    pd.testing.assert_frame_equal(found[given.columns], given.iloc[positions].reset_index(drop=True))


def test_the_reference_has_all_rows_if_there_are_few() -> None:
    given = frame(40)

    pd.testing.assert_frame_equal(reference(given, np.zeros(40), 5000)[given.columns], given)


def test_the_same_rows_give_the_same_reference() -> None:
    first, second = (reference(frame(), np.zeros(400), 150) for _ in range(2))

    pd.testing.assert_frame_equal(first, second)
