"""A company's months as requests: its customers are scored, and a month later the API gets who left."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from churn.contract import ENTITY, LABEL, RAW_FEATURES
from demo.reality import Scenario
from demo.table_world import TableWorld
from demo.world import World

ROWS = 500
"""Customers of one request."""
BAD_TOTAL = 100.0
"""A month of bad data bills in cents what it should bill in dollars."""
TIMEOUT_S = 30
LATER = Retry(20, connect=0, read=0, allowed_methods=["POST"], status_forcelist=[503], raise_on_status=False)
"""The server answers 503 with Retry-After while the pipeline has both cores."""


@dataclass
class Month:
    """One month: when its predictions were made (Unix time), the version that answered, prediction id → who left."""

    number: int
    began: float
    ended: float
    versions: set[str]
    left: dict[str, bool]
    outcomes_sent: bool = False


@dataclass
class Company:
    """Plays a world against a server."""

    url: str
    world: World | TableWorld
    bad_months: frozenset[int] = frozenset()
    key: str = field(default="", repr=False)
    outcomes_key: str = field(default="", repr=False)
    months: list[Month] = field(default_factory=list)

    def play(self) -> Month:
        """The next month: every customer is scored once."""
        table = self.world.step()
        number = self.world.month
        if number in self.bad_months:
            table = _in_cents(table)
        month = Month(number, time.time(), 0.0, set(), {})
        for rows in _chunks(table):
            answer = self._send("POST", "/predict", {"customers": [sent(row) for row in rows]})
            month.versions.add(answer["model_version"])
            for row, prediction in zip(rows, answer["predictions"], strict=True):
                month.left[prediction["prediction_id"]] = row[LABEL]
        month.ended = time.time()
        self.months.append(month)
        return month

    def tell(self, month: Month) -> None:
        """Report what became of that month's customers; it must be over."""
        now = datetime.now(UTC).isoformat()
        outcomes = [{"prediction_id": key, "churned": left, "observed_at": now} for key, left in month.left.items()]
        for start in range(0, len(outcomes), 2 * ROWS):
            self._send("POST", "/outcomes", {"outcomes": outcomes[start : start + 2 * ROWS]})
        month.outcomes_sent = True

    def serving(self) -> str:
        """The version that answers now."""
        return str(self._send("GET", "/model")["model_version"])

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        key = self.outcomes_key if path == "/outcomes" else self.key
        with requests.Session() as http:
            for scheme in ("http://", "https://"):
                http.mount(scheme, HTTPAdapter(max_retries=LATER))
            headers = {"X-API-Key": key} if key else {}
            answer = http.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()


_SENT = (ENTITY, *(each.name for each in RAW_FEATURES))


def sent(row: dict[str, Any]) -> dict[str, Any]:
    """What a request has of a row: the customer and the features, dates as ISO text."""
    found = {key: row[key] for key in _SENT}
    return {key: value.date().isoformat() if isinstance(value, datetime) else value for key, value in found.items()}


def _chunks(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, table.num_rows, ROWS):
        yield table.slice(start, ROWS).to_pylist()


def _in_cents(table: pa.Table) -> pa.Table:
    position = table.column_names.index("total_charges")
    cents = pa.compute.round(pa.compute.multiply(table["total_charges"], BAD_TOTAL), 2)
    return table.set_column(position, "total_charges", cents)


__all__ = ["Company", "Month", "Scenario"]
