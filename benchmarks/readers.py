"""`churn.adapters.online_store.reader` against Feast's own reader, on the same Redis, in one process, in turns.

`readers.py URL SECONDS` prints JSON: for each number of customers, the p50 of both in milliseconds, and of a bare PING, the
lower bound. Run it in a project's root.
"""

import json
import logging
import socket
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urlsplit

COUNTS = (1, 10, 100)
GROUPS = 20
"""Different groups of customers that are read in turns."""
MIN_CALLS = 20
WARM_UP_S = 1


def main() -> None:
    """Read with both for `SECONDS` by number of customers."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    logging.disable()
    warnings.simplefilter("ignore")
    import pyarrow.parquet as pq

    from churn import paths
    from churn.adapters.feast.store import Store
    from churn.adapters.online_store.reader import connect
    from churn.contract import ENTITY
    from churn.settings import Settings

    store = Store(paths.FEATURES, Settings(online_store=url))
    # Feast itself, without what our adapter adds to it.
    feast, service = store._feast, store._service
    lean = connect(url, timeout_s=5)
    ids: list[str] = pq.read_table(paths.FEATURES, columns=[ENTITY])[ENTITY].to_pylist()

    wire = _socket(url)

    def ping(group: list[str]) -> None:
        wire.sendall(b"PING\r\n")
        wire.recv(64)

    def by_feast(group: list[str]) -> Any:
        rows = [{ENTITY: each} for each in group]
        return feast.get_online_features(features=service, entity_rows=rows).to_dict()

    _in_turns([ids[:1]], WARM_UP_S, by_feast, lean.read)
    for count in COUNTS:
        groups = [ids[start * count : (start + 1) * count] for start in range(GROUPS)]
        _agree(by_feast(groups[0]), lean.read(groups[0]))
        feasts, ours, pings = _in_turns(groups, seconds, by_feast, lean.read, ping)
        print(json.dumps({"customers": count, "feast_ms": feasts, "ours_ms": ours, "ping_ms": pings}))


def _socket(url: str) -> socket.socket:
    at = urlsplit(url)
    assert at.hostname
    found = socket.create_connection((at.hostname, at.port or 6379))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _agree(columns: dict[str, list[Any]], stored: list[Any]) -> None:
    """Refuse to compare readers that read different values."""
    rows = [{name: values[position] for name, values in columns.items()} for position in range(len(stored))]
    for row, found in zip(rows, stored, strict=True):
        assert found.values.items() <= row.items(), f"Feast read {row}, churn.adapters.online_store.reader {found.values}"


def _in_turns(groups: list[list[str]], seconds: float, *readers: Callable[[list[str]], Any]) -> list[float]:
    """The p50 of each reader, milliseconds; a turn is all groups: a server has one reader, whose code stays in the cache."""
    took: list[list[float]] = [[] for _ in readers]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took[0]) < MIN_CALLS:
        for read, times in zip(readers, took, strict=True):
            for group in groups:
                began = time.perf_counter()
                read(group)
                times.append((time.perf_counter() - began) * 1000)
    return [median(each) for each in took]


if __name__ == "__main__":
    main()
