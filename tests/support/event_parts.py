"""Tables of predictions for the event log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from churn.adapters.events.log import prediction_schema

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def predictions(n: int = 3, *, at: datetime = NOON, **changes: Any) -> pa.Table:
    """Rows of the log, a second apart; the log does not validate the values."""
    texts = {"customer_id": [f"c{index}" for index in range(n)], "prediction_id": [f"p{index}" for index in range(n)]}
    values = {"time": [at + timedelta(seconds=index) for index in range(n)]} | texts | changes
    stand_in = {pa.string(): "x", pa.int64(): 7, pa.float64(): 0.25, pa.bool_(): True}
    schema = prediction_schema()
    return pa.table({each.name: values.get(each.name, [stand_in.get(each.type)] * n) for each in schema}, schema=schema)
