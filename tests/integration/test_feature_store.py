"""Feast with real stores: DuckDB offline, SQLite and Redis online."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from churn import paths
from churn.adapters.feast.store import Store
from churn.adapters.files import write_parquet
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.errors import FeatureStoreError
from churn.pipeline.featurize import features_of
from churn.settings import Settings
from factory import rows
from redis_server import RedisServer

JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty Redis of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A workspace of its own, with either online store."""
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        return Settings()
    import redis

    url = request.getfixturevalue("redis_url")
    with redis.from_url(url) as client:
        client.flushall()
    return Settings(online_store=url)


def at(moment: datetime, n: int = 5, **overrides: Any) -> pd.DataFrame:
    """The features of the same `n` customers at a moment."""
    stamps = pd.Series(moment, index=range(n)).astype("datetime64[us, UTC]")
    return features_of(rows(n, event_timestamp=stamps, **overrides))


def materialise(settings: Settings, *parts: pd.DataFrame, full: bool = False) -> tuple[Store, int]:
    features = pd.concat(parts, ignore_index=True).sort_values([ENTITY, TIMESTAMP], ignore_index=True)
    write_parquet(features, paths.FEATURES)
    store = Store(paths.FEATURES, settings)
    return store, store.materialise(full=full)


def charge(store: Store, customer: str = "customer_id-00000") -> float:
    return float(store.online([customer])["monthly_fee"][0])


def test_a_customers_latest_features_are_online(settings: Settings) -> None:
    store, fresh = materialise(settings, at(JANUARY, monthly_fee=10.0), at(FEBRUARY, monthly_fee=20.0))

    assert fresh == 10
    assert charge(store) == 20.0


def test_a_second_materialisation_writes_nothing(settings: Settings) -> None:
    materialise(settings, at(JANUARY))

    _, fresh = materialise(settings, at(JANUARY))

    assert fresh == 0


def test_only_new_rows_are_written_on_a_later_run(settings: Settings) -> None:
    materialise(settings, at(JANUARY, monthly_fee=10.0))

    store, fresh = materialise(settings, at(JANUARY, monthly_fee=10.0), at(FEBRUARY, n=2, monthly_fee=30.0))

    assert fresh == 2
    assert charge(store) == 30.0
    assert charge(store, "customer_id-00004") == 10.0


def test_a_late_row_is_written_and_does_not_replace_a_newer_one(settings: Settings) -> None:
    early = at(MARCH, n=2, monthly_fee=30.0)
    materialise(settings, early)
    late = at(FEBRUARY, n=5, monthly_fee=20.0)

    store, fresh = materialise(settings, late, early)

    assert fresh == 5
    assert charge(store, "customer_id-00000") == 30.0
    assert charge(store, "customer_id-00004") == 20.0


def test_a_corrected_row_is_written_again(settings: Settings) -> None:
    materialise(settings, at(JANUARY, monthly_fee=10.0))

    store, fresh = materialise(settings, at(JANUARY, monthly_fee=11.0))

    assert fresh == 5
    assert charge(store) == 11.0


def test_an_emptied_online_store_is_filled_again(settings: Settings) -> None:
    materialise(settings, at(JANUARY, monthly_fee=10.0))
    if settings.online_store.startswith("redis"):
        import redis

        with redis.from_url(settings.online_store) as client:
            client.flushall()
    else:
        Path("data/online/features.db").unlink()

    store, fresh = materialise(settings, at(JANUARY, monthly_fee=10.0))

    assert fresh == 5
    assert charge(store) == 10.0


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def labels(moment: datetime, n: int = 5) -> pd.DataFrame:
    return rows(n).assign(**{TIMESTAMP: pd.Timestamp(moment).as_unit("us")})[[ENTITY, TIMESTAMP, LABEL]]


@pytest.mark.usefixtures("workspace")
def test_a_label_gets_features_of_its_time_or_earlier() -> None:
    history = [at(JANUARY, monthly_fee=10.0), at(MARCH, monthly_fee=30.0)]
    write_parquet(pd.concat(history), paths.FEATURES)

    frame = Store(paths.FEATURES, Settings()).training_frame(pd.concat([labels(FEBRUARY), labels(MARCH)]))

    assert list(frame.monthly_fee) == [10.0] * 5 + [30.0] * 5


@pytest.mark.usefixtures("workspace")
def test_the_join_keeps_every_label_in_order() -> None:
    write_parquet(at(JANUARY, n=300), paths.FEATURES)
    shuffled = labels(JANUARY, n=300).sample(frac=1, random_state=3)

    frame = Store(paths.FEATURES, Settings()).training_frame(shuffled)

    assert list(frame[ENTITY]) == list(shuffled[ENTITY])
    assert list(frame[LABEL]) == list(shuffled[LABEL])


@pytest.mark.usefixtures("workspace")
def test_a_label_without_features_at_its_time_is_refused() -> None:
    write_parquet(at(FEBRUARY), paths.FEATURES)

    with pytest.raises(FeatureStoreError, match=r"5 labels have no features at their time \(first: customer_id-00000\)"):
        Store(paths.FEATURES, Settings()).training_frame(labels(JANUARY))


@pytest.mark.usefixtures("workspace")
def test_a_blank_total_is_a_null_online() -> None:
    store, _ = materialise(Settings(), at(JANUARY, member_months=0))

    assert store.online(["customer_id-00000"])["total_fees"] == [None]


@pytest.mark.usefixtures("workspace")
def test_an_unreachable_online_store_is_an_error_in_one_line() -> None:
    settings = Settings(online_store="redis://127.0.0.1:1/0")

    with pytest.raises(FeatureStoreError, match=r"online store redis://127\.0\.0\.1:1/0: .*check that it is there and reachable"):
        materialise(settings, at(JANUARY))


@pytest.mark.usefixtures("workspace")
def test_an_unsupported_online_store_url_is_refused() -> None:
    with pytest.raises(FeatureStoreError, match="CHURN_ONLINE_STORE = mongo://…: not sqlite:///path nor redis://host:port/db"):
        Store(paths.FEATURES, Settings(online_store="mongo://host"))


def test_the_feast_cli_finds_the_same_store(tmp_path: Path) -> None:
    import yaml

    from churn.adapters.feast.store import CONFIG

    config = yaml.safe_load(CONFIG.read_text())

    registry = CONFIG.parent / config["registry"]["path"].removeprefix("sqlite:///")
    online = CONFIG.parent / config["online_store"]["path"]
    root = Path(__file__).parents[2]
    assert registry.resolve() == (root / Settings().feature_registry.removeprefix("sqlite:///")).resolve()
    assert online.resolve() == (root / Settings().online_store.removeprefix("sqlite:///")).resolve()


def test_features_are_written_to_a_redis_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = RedisServer(tmp_path, "--requirepass", "12345")
    settings = Settings(online_store=server.url.replace("//", "//:12345@"))

    try:
        store, written = materialise(settings, at(JANUARY))
        assert written == 5
        assert charge(store) > 0
    finally:
        server.stop()
