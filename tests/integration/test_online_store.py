"""The small reader on data that Feast wrote to SQLite and Redis, and on stores that are unreachable, hanging or empty."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from churn import paths
from churn.adapters.feast.store import CONFIG, Store
from churn.adapters.files import write_parquet
from churn.adapters.moments import CLOCK_SKEW
from churn.adapters.online_store import reader as online_store
from churn.adapters.online_store.reader import Stored, connect
from churn.contract import COLUMNS, ENTITY, FEATURE_TTL, Category, Integer, Real
from churn.domain.derived import DERIVED
from churn.errors import FeatureStoreError
from churn.features import FEATURES
from churn.pipeline.featurize import features_of
from churn.settings import Settings
from factory import rows
from redis_server import RedisServer
from serving.service import is_fresh

CUSTOMERS = 1000
JUNE = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
PATIENT_S = 5.0
"""These tests share two cores; only those about time-outs are in a hurry."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """For one test, which may stop it."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@dataclass(frozen=True)
class Filled:
    """An online store that Feast filled, and both ways to read it."""

    features: pd.DataFrame
    feast: Store
    url: str

    @property
    def entities(self) -> list[str]:
        return list(self.features[ENTITY])


def features(n: int = CUSTOMERS, **overrides: Any) -> pd.DataFrame:
    stamps = pd.Series(JUNE, index=range(n)).astype("datetime64[us, UTC]")
    return features_of(rows(n, event_timestamp=stamps, **overrides))


def odd_values(frame: pd.DataFrame) -> pd.DataFrame:
    """Nulls, and values at the edges of what Feast's encoding can hold, in the first rows."""
    integers = [0, 127, 128, 2**62, -1, -(2**62)]
    reals = [0.0, -0.0, np.inf, 5e-324, -1.7e308, np.nan]
    for each in FEATURES:
        match each.kind:
            case Integer() if each.null_as is None:
                frame.loc[:5, each.name] = integers
            case Integer() | Real():
                frame.loc[:5, each.name] = reals
            case Category():
                texts = frame[each.name].astype(object)
                texts[:4] = ["é", "x" * 127, "x" * 128, "雪" * 9000]
                frame[each.name] = texts
    return frame


def fill(folder: Path, url: str, frame: pd.DataFrame) -> Filled:
    folder.mkdir(exist_ok=True)
    settings = Settings(online_store=url, feature_registry=f"sqlite:///{folder}/registry.db")
    write_parquet(frame, folder / "features.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = Store(folder / "features.parquet", settings)
        store.materialise(full=True)
    return Filled(frame, store, url)


@pytest.fixture(scope="module")
def sqlite_filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    folder = tmp_path_factory.mktemp("sqlite_filled")
    return fill(folder, f"sqlite:///{folder}/features.db", odd_values(features()))


@pytest.fixture(scope="module")
def redis_filled(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Filled:
    return fill(tmp_path_factory.mktemp("redis_filled"), redis.url, odd_values(features()))


@pytest.fixture(params=["sqlite_filled", "redis_filled"])
def filled(request: pytest.FixtureRequest) -> Filled:
    value: Filled = request.getfixturevalue(request.param)
    return value


@pytest.fixture
def read(filled: Filled) -> Iterator[Callable[..., list[Stored | None]]]:
    with closing(connect(filled.url, timeout_s=PATIENT_S)) as store:
        yield lambda *entities: store.read(entities)


def test_every_value_equals_the_feast_reader(filled: Filled, read: Callable[..., list[Stored | None]]) -> None:
    expected = filled.feast.online(filled.entities)

    stored = read(*filled.entities)

    assert all(stored)
    for each in FEATURES:
        values = [row.values[each.name] for row in stored if row]
        assert values == expected[each.name]
        assert list(map(type, values)) == list(map(type, expected[each.name]))
    assert any(value is None for values in expected.values() for value in values)


def test_values_have_the_order_of_the_features(read: Callable[..., list[Stored | None]]) -> None:
    (stored,) = read("customer_id-00009")

    assert stored
    assert list(stored.values) == [each.name for each in FEATURES]


def test_rows_have_the_order_of_the_requested_entities(filled: Filled, read: Callable[..., list[Stored | None]]) -> None:
    shuffled = list(np.random.default_rng(0).permutation(filled.entities))

    stored = read(*shuffled, shuffled[0])

    by_entity = dict(zip(filled.entities, read(*filled.entities), strict=True))
    assert stored == [by_entity[entity] for entity in [*shuffled, shuffled[0]]]


def test_no_customers_give_no_rows(read: Callable[..., list[Stored | None]]) -> None:
    assert read() == []


@pytest.mark.parametrize("unknown", ["customer_id-99999", "", "\ud800", "x" * 100_000, "customer_id-00001\x00"])
def test_an_unknown_entity_among_known_ones_is_none(unknown: str, read: Callable[..., list[Stored | None]]) -> None:
    first, second, third = read("customer_id-00001", unknown, "customer_id-00002")

    assert first
    assert second is None
    assert third


def test_the_time_is_the_feature_time_in_utc(read: Callable[..., list[Stored | None]]) -> None:
    (stored,) = read("customer_id-00009")

    assert stored
    assert stored.as_of == JUNE
    assert stored.as_of.tzinfo is UTC


def test_the_time_does_not_depend_on_the_local_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        filled = fill(tmp_path, f"sqlite:///{tmp_path}/features.db", features(1))

        (stored,) = connect(filled.url).read(filled.entities)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert stored
    assert stored.as_of == JUNE


def test_redis_keeps_the_microseconds(tmp_path: Path, redis_filled: Filled) -> None:
    moment = JUNE.replace(microsecond=123_457)
    late = features(1, customer_id="precise").assign(event_timestamp=pd.Series([moment]).astype("datetime64[us, UTC]"))
    fill(tmp_path, redis_filled.url, late)

    (stored,) = connect(redis_filled.url, timeout_s=PATIENT_S).read(["precise"])

    assert stored
    assert stored.as_of == moment


def test_features_are_fresh_up_to_the_maximum_age() -> None:
    stored = Stored({}, JUNE)

    assert is_fresh(stored, JUNE + FEATURE_TTL)
    assert not is_fresh(stored, JUNE + FEATURE_TTL + timedelta(seconds=1))


def test_future_features_beyond_the_clock_tolerance_are_not_fresh() -> None:
    stored = Stored({}, JUNE)

    assert is_fresh(stored, JUNE - CLOCK_SKEW)
    assert not is_fresh(stored, JUNE - CLOCK_SKEW - timedelta(seconds=1))


def test_sqlite_is_readable_during_a_feast_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled = fill(tmp_path, f"sqlite:///{tmp_path}/features.db", features(4000))
    expected = {name: values[0] for name, values in filled.feast.online(["customer_id-00003"]).items() if name != ENTITY}
    later = filled.features.assign(event_timestamp=filled.features.event_timestamp + timedelta(days=1))
    write_parquet(later, tmp_path / "features.parquet")
    writing = threading.Thread(target=filled.feast.materialise)

    answers: list[Stored | None] = []
    with closing(connect(filled.url, timeout_s=0.5)) as store:
        writing.start()
        while writing.is_alive():
            answers += store.read(["customer_id-00003"])
        answers += store.read(["customer_id-00003"])

    assert len(answers) > 10
    assert all(answer and answer.values == expected for answer in answers)
    times = [answer.as_of for answer in answers if answer]
    assert times == sorted(times)
    assert {times[0], times[-1]} == {JUNE, JUNE + timedelta(days=1)}


def test_a_replaced_sqlite_file_is_reopened(tmp_path: Path) -> None:
    first = fill(tmp_path / "first", f"sqlite:///{tmp_path}/first/features.db", features(1, customer_id="first"))
    second = fill(tmp_path / "second", f"sqlite:///{tmp_path}/second/features.db", features(1, customer_id="second"))
    del first, second
    with closing(connect(f"sqlite:///{tmp_path}/first/features.db", timeout_s=PATIENT_S)) as store:
        assert store.read(["first"])[0]

        for suffix in ("", "-wal", "-shm"):
            if (file := tmp_path / f"second/features.db{suffix}").exists():
                file.replace(tmp_path / f"first/features.db{suffix}")

        assert store.read(["first"]) == [None]
        assert store.read(["second"])[0]


def test_a_missing_sqlite_file_is_an_error_and_not_created(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path}/features.db")

    with pytest.raises(FeatureStoreError, match=r"features\.db: there is no such file; run `churn featurize`"):
        store.read(["customer_id-00000"])

    assert list(tmp_path.iterdir()) == []


def test_an_empty_sqlite_file_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "features.db").touch()

    with pytest.raises(FeatureStoreError, match=r"no such table: churn_customer_features: nothing was materialised yet; run"):
        connect(f"sqlite:///{tmp_path}/features.db").read(["customer_id-00000"])


def test_a_file_that_is_not_sqlite_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "features.db").write_text("not a database " * 100)

    with pytest.raises(FeatureStoreError, match=r"file is not a database; check that it is there and readable"):
        connect(f"sqlite:///{tmp_path}/features.db").read(["customer_id-00000"])


def test_a_read_of_a_locked_sqlite_file_times_out(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "features.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE anything (x)")
        writer.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()

        with pytest.raises(FeatureStoreError, match=r"database is locked: no answer within 0\.2 s; try again"):
            connect(f"sqlite:///{path}").read(["customer_id-00000"])

    assert time.monotonic() - begun < 5


def test_a_slow_read_times_out(filled: Filled) -> None:
    with pytest.raises(FeatureStoreError, match=r"no answer within 1e-06 s"):
        connect(filled.url, timeout_s=1e-6).read(filled.entities)


def test_an_unreachable_redis_is_an_immediate_error(mortal_redis: RedisServer) -> None:
    mortal_redis.stop()
    store = connect(mortal_redis.url)
    begun = time.monotonic()

    with pytest.raises(
        FeatureStoreError, match=rf"online store {mortal_redis.url}: .*refused.*check that it is there and reachable"
    ):
        store.read(["customer_id-00000"])

    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("database", [0, 3])
def test_a_hanging_redis_times_out(scheme: str, database: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        store = connect(f"{scheme}://127.0.0.1:{hung.getsockname()[1]}/{database}")
        begun = time.monotonic()

        with pytest.raises(FeatureStoreError, match=r"no answer within 0\.2 s; check that it is there and not overloaded"):
            store.read(["customer_id-00000"])

    assert time.monotonic() - begun < 5


def test_a_long_read_of_many_short_replies_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as slow:
        dripping = threading.Thread(target=drip, args=(slow,), daemon=True)
        dripping.start()
        store = connect(f"redis://127.0.0.1:{slow.getsockname()[1]}/0")
        begun = time.monotonic()

        with pytest.raises(FeatureStoreError, match=r"no answer within 0\.2 s"):
            store.read(["customer_id-00000"] * 200)

        assert time.monotonic() - begun < 5
        # Its connection is closed rather than kept with unread replies.
        dripping.join(5)
        assert not dripping.is_alive()


def drip(server: socket.socket) -> None:
    """Answer a null ten times a second for as long as anybody listens."""
    client, _ = server.accept()
    with client:
        try:
            while True:
                client.sendall(b"*-1\r\n")
                time.sleep(0.1)
        except OSError:
            return


def test_a_late_reply_is_not_used_for_the_next_read(redis_filled: Filled) -> None:
    import redis as client

    with closing(connect(redis_filled.url)) as store, client.from_url(redis_filled.url) as admin:
        (expected,) = connect(redis_filled.url, timeout_s=PATIENT_S).read(["customer_id-00008"])
        store.read(["customer_id-00009"])
        admin.execute_command("CLIENT", "PAUSE", "600", "ALL")
        with pytest.raises(FeatureStoreError, match="no answer within"):
            store.read(["customer_id-00009"])
        admin.ping()

        assert store.read(["customer_id-00008"]) == [expected]


def test_redis_is_readable_after_a_restart(tmp_path: Path, mortal_redis: RedisServer) -> None:
    fill(tmp_path / "first", mortal_redis.url, features(2))
    store = connect(mortal_redis.url, timeout_s=PATIENT_S)
    assert store.read(["customer_id-00001"])[0]

    mortal_redis.stop()
    with pytest.raises(FeatureStoreError):
        store.read(["customer_id-00001"])
    mortal_redis.start()
    assert store.read(["customer_id-00001"]) == [None]
    mortal_redis.stop()
    mortal_redis.start()
    fill(tmp_path / "second", mortal_redis.url, features(2))

    assert store.read(["customer_id-00001"])[0]


def test_the_password_is_sent_and_never_shown(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--requirepass", "s3cret")
    try:
        right, wrong = (f"redis://:{word}@127.0.0.1:{server.port}/0" for word in ("s3cret", "wr0ng"))
        assert connect(right, timeout_s=PATIENT_S).read(["customer_id-00000"]) == [None]

        with pytest.raises(FeatureStoreError, match=rf"online store redis://127\.0\.0\.1:{server.port}/0: ") as refused:
            connect(wrong, timeout_s=PATIENT_S).read(["customer_id-00000"])
    finally:
        server.stop()

    assert "wr0ng" not in str(refused.value)


@pytest.mark.parametrize("url", ["mongo://me:s3cret@host", "redis://me:s3cret@host:port/0", "rediss://me:s3cret@[host/0"])
def test_an_unsupported_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(FeatureStoreError, match="CHURN_ONLINE_STORE") as refused:
        connect(url)

    assert "s3cret" not in str(refused.value)


def test_concurrent_threads_get_their_own_rows(filled: Filled, read: Callable[..., list[Stored | None]]) -> None:
    expected = dict(zip(filled.entities, read(*filled.entities), strict=True))

    def wrong(seed: int) -> int:
        wanted = [list(each) for each in np.random.default_rng(seed).choice(filled.entities, (100, 7))]
        return sum(read(*entities) != [expected[entity] for entity in entities] for entities in wanted)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(wrong, range(8))) == 0


def test_reading_imports_neither_feast_nor_pandas(filled: Filled) -> None:
    code = f"""
import sys
from churn.adapters.online_store.reader import connect
assert connect({filled.url!r}, timeout_s={PATIENT_S}).read(["customer_id-00009"])[0]
print(sorted({{"feast", "pandas", "pyarrow", "pydantic", "google.protobuf"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_feast_stores_the_features_under_the_expected_names() -> None:
    from churn.adapters.feast.definitions import customer_features

    assert yaml.safe_load(CONFIG.read_text())["project"] == paths.FEAST_PROJECT
    assert customer_features.name == paths.FEAST_VIEW


def test_the_reader_has_no_column_name_of_the_shipped_data() -> None:
    code = Path(online_store.__file__).read_text()

    named = {name for name in [*(each.name for each in COLUMNS), *DERIVED] if re.search(rf"\b{name}\b", code)}

    assert named == set()
