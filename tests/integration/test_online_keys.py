"""An online store that cannot hold what was written is reported, and never treated as complete."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from churn import paths
from churn.adapters.feast.store import Store
from churn.adapters.files import write_parquet
from churn.adapters.online_store import keys as online_keys
from churn.contract import ENTITY
from churn.errors import FeatureStoreError
from churn.pipeline.featurize import features_of
from churn.settings import Settings
from factory import rows
from redis_server import RedisServer

CUSTOMERS = 3000
"""They need more than 2 MB of Redis."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RedisServer]]:
    """Starts a Redis with options; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    servers: list[RedisServer] = []

    def begin(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def materialise(url: str, n: int = CUSTOMERS) -> int:
    write_parquet(features_of(rows(n, event_timestamp=pd.Timestamp("2026-06-01", tz="UTC").as_unit("us"))), paths.FEATURES)
    return Store(paths.FEATURES, Settings(online_store=url)).materialise()


def without_info(server: RedisServer) -> str:
    """The URL of a user who may not read the server's settings, as on a managed server."""
    with redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-info", "-config")
    return server.url.replace("//", "//limited:secret@")


@pytest.mark.reported
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_evicts_is_refused_before_anything_is_written(start: Callable[..., RedisServer], policy: str) -> None:
    server = start("--maxmemory-policy", policy)

    with pytest.raises(FeatureStoreError, match=f"expected the maxmemory-policy noeviction, got {policy}"):
        materialise(server.url, n=5)

    with redis.from_url(server.url) as client:
        assert client.dbsize() == 0


def test_a_policy_that_evicts_only_keys_with_an_expiry_is_accepted(start: Callable[..., RedisServer]) -> None:
    assert materialise(start("--maxmemory-policy", "volatile-lru").url, n=5) == 5


@pytest.mark.reported
def test_evicted_customers_are_counted_if_the_policy_is_unreadable(start: Callable[..., RedisServer]) -> None:
    server = start("--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru")
    url = without_info(server)

    with pytest.raises(FeatureStoreError, match="customers are there after writing") as refusal:
        materialise(url)

    there = re.search(rf"(\d+) of {CUSTOMERS} customers", str(refusal.value))
    assert there
    assert 0 < int(there[1]) < CUSTOMERS
    with redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)
    assert materialise(url) == CUSTOMERS, "what was not stored is written again"


def test_customers_missing_since_the_last_run_are_written_again(start: Callable[..., RedisServer]) -> None:
    url = start().url
    assert materialise(url, n=50) == 50
    with redis.from_url(url) as client:
        client.delete(client.keys()[7])

    assert materialise(url, n=50) == 50
    assert materialise(url, n=50) == 0


@pytest.mark.reported
def test_a_full_redis_is_an_error_without_customer_data(start: Callable[..., RedisServer]) -> None:
    server = start("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")

    with pytest.raises(FeatureStoreError) as refusal:
        materialise(server.url)

    assert "maxmemory" in str(refusal.value)
    assert not any(word in str(refusal.value) for word in ("HSET", "HMSET", ENTITY, "Command #", "\\x"))


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_count_is_the_number_of_stored_entities(start: Callable[..., Any], kind: str) -> None:
    url = start().url if kind == "redis" else Settings().online_store
    materialise(url, n=1200)
    stored = [f"{ENTITY}-{number:05}" for number in range(1200)]

    assert online_keys.count(url, stored) == 1200
    assert online_keys.count(url, [*stored[:700], "nobody", "8504-XZKFR"]) == 700
    assert online_keys.count(url, []) == 0
