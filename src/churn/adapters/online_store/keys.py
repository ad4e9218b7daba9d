"""Whether the online store has, and will keep, what Feast wrote to it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from churn.adapters.online_store.reader import entity_key
from churn.features import FEATURES
from churn.paths import FEAST_PROJECT, FEAST_VIEW

KEYS_PER_COMMAND = 500
"""SQLite takes a limited number of parameters in one statement."""
COMMANDS_PER_EXCHANGE = 200
TIMEOUT_S = 30


def count(url: str, entities: Sequence[str]) -> int:
    """How many of the entities, of which none is there twice, have features in the store at `url`; a million take seconds.

    Raises:
        redis.RedisError, sqlite3.Error: the store is out of reach.
    """
    keys = [entity_key(entity) for entity in entities]
    return _in_sqlite(url, keys) if url.startswith("sqlite:") else _in_redis(url, keys)


def eviction_policy(url: str) -> str:
    """The policy by which a Redis drops any key when its memory is full; empty for one that does not, or does not tell.

    Policies for keys with an expiry (`volatile-…`) do not touch Feast's keys, which have none.

    Raises:
        redis.RedisError: it is out of reach.
    """
    if url.startswith("sqlite:"):
        return ""
    from redis import ResponseError

    with closing(_redis(url)) as client:
        try:
            policy = str(client.info("memory").get("maxmemory_policy", ""))
        except ResponseError:  # INFO may be forbidden, as on managed servers
            return ""
    return policy if policy.startswith("allkeys") else ""


def _in_sqlite(url: str, keys: Sequence[bytes]) -> int:
    path = Path(url.partition("://")[2].removeprefix("/")).absolute()
    found = 0
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", TIMEOUT_S, uri=True)) as connection:
        for part in _parts(keys, KEYS_PER_COMMAND):
            query = (
                f'SELECT COUNT(*) FROM "{FEAST_PROJECT}_{FEAST_VIEW}" '
                f"WHERE feature_name = ? AND entity_key IN ({','.join('?' * len(part))})"
            )
            found += connection.execute(query, (FEATURES[0].name, *part)).fetchone()[0]
    return found


def _in_redis(url: str, keys: Sequence[bytes]) -> int:
    found = 0
    with closing(_redis(url)) as client:
        for part in _parts(keys, KEYS_PER_COMMAND * COMMANDS_PER_EXCHANGE):
            with client.pipeline(transaction=False) as pipeline:
                for chunk in _parts(part, KEYS_PER_COMMAND):
                    pipeline.exists(*(key + FEAST_PROJECT.encode() for key in chunk))
                found += sum(pipeline.execute())
    return found


def _redis(url: str) -> Any:
    from redis import from_url

    return from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=5)


def _parts(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
