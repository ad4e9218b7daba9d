"""Adapter of Feast: registers the features, joins them to labels as of their time, updates the online store."""

import io
import json
import logging
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile, read_table, write_table

from churn.adapters.files import atomic_path
from churn.adapters.online_store import keys as online_keys
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain.reasons import reason
from churn.errors import FeatureStoreError
from churn.features import FEATURES
from churn.paths import ONLINE_STORE
from churn.settings import Settings, without_password

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)

_POSITION = "position in the labels"
"""A name that no column of a contract can have."""

DIGESTED_ROWS = 500_000

CONFIG = Path(__file__).parent / "feature_store.yaml"


class Store:
    """The feature store over one offline Parquet file of features; opening it registers the contract's definitions.

    Raises:
        FeatureStoreError: the registry or a store is out of reach.
    """

    def __init__(self, offline_file: Path, settings: Settings) -> None:
        with _without_type_checks():
            from churn.adapters.feast.definitions import definitions

        self._settings = settings
        self._offline_file = offline_file
        entity, source, self._view, self._service = definitions(offline_file)
        with _refusals(f"feature registry {without_password(settings.feature_registry)}"):
            self._feast = _connect(settings)
            self._feast.apply([entity, source, self._view, self._service])

    @property
    def _shown(self) -> str:
        return without_password(self._settings.online_store)

    @property
    def service(self) -> str:
        """The name of the feature service that the model reads."""
        return str(self._service.name)

    def training_frame(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Each label with the features that were true at its time: `labels`' rows, in their order.

        `labels` has the entity, the timestamp and the label; the frame adds every feature, as `churn.features` names them.

        Raises:
            FeatureStoreError: a label found no features, or the join changed the number of rows.
        """
        keyed = labels[[ENTITY, TIMESTAMP, LABEL]].assign(**{_POSITION: range(len(labels))})
        with _refusals("point-in-time join"):
            job = self._feast.get_historical_features(entity_df=keyed, features=self._service)
            joined: pd.DataFrame = job.to_df().sort_values(_POSITION, ignore_index=True)
        if list(joined[_POSITION]) != list(keyed[_POSITION]):
            raise FeatureStoreError(f"point-in-time join: {len(keyed)} labels gave {len(joined)} rows; run `dvc repro featurize`")
        if len(missing := joined[joined[_surely_filled()].isna().any(axis=1)]):
            raise FeatureStoreError(
                f"point-in-time join: {len(missing)} labels have no features at their time (first: {missing[ENTITY].iloc[0]}); "
                "run `dvc repro featurize`, or widen FEATURE_TTL in contract.py"
            )
        return joined.drop(columns=_POSITION)

    def materialise(self, *, full: bool = False) -> int:
        """Bring the online store up to date with the offline file; returns how many of its rows were new to it.

        Only what changed since the last time is read and written again: from the earliest row that is new or different, up to the
        latest. What was written is recorded once it has been, so that a run that was killed is made up for; an
        online store that lost customers is filled again.

        Raises:
            FeatureStoreError: the online store is out of reach, drops keys by its policy, or lacks customers afterwards.
        """
        # One record per store and contract: after a swap of the dataset, nothing is known of the new one's rows.
        place = "\n".join((self._settings.online_store, ENTITY, TIMESTAMP))
        record = ONLINE_STORE / f"materialised-{crc32(place.encode()):08x}.parquet"
        rows = _digests(self._offline_file)
        fresh = rows if full or not self._holds(record) else _not_in(rows, read_table(record))
        if len(fresh):
            log.info("materialise: %d of %d rows are new to %s", len(fresh), len(rows), self._shown)
            self._write(pc.min(fresh[TIMESTAMP]).as_py(), pc.max(rows[TIMESTAMP]).as_py())
            self._require_all(rows)
            with atomic_path(record) as temporary:
                write_table(rows, temporary)
        return len(fresh)

    def _write(self, start: datetime, end: datetime) -> None:
        with _refusals(f"online store {self._shown}"):
            if policy := online_keys.eviction_policy(self._settings.online_store):
                raise FeatureStoreError(
                    f"online store {self._shown}: expected the maxmemory-policy noeviction, got {policy}, which drops customers "
                    "when memory is full: `CONFIG SET maxmemory-policy noeviction`, or use another Redis"
                )
            _let_reads_go_on(self._feast.config.online_store)
            self._feast.materialize(start, end)

    def online(self, entities: list[str]) -> dict[str, list[Any]]:
        """Each feature's stored value per entity, as Feast's own reader returns it; None where there is none."""
        with _refusals(f"online store {self._shown}"):
            response = self._feast.get_online_features(
                features=self._service, entity_rows=[{ENTITY: entity} for entity in entities]
            )
            return dict(response.to_dict())

    def _holds(self, record: Path) -> bool:
        """True if the online store still has every customer that the record speaks of."""
        if not record.exists() or not len(known := read_table(record, columns=[ENTITY])):
            return False
        there, customers = self._stored(known)
        return there == customers

    def _require_all(self, rows: pa.Table) -> None:
        there, customers = self._stored(rows)
        if there < customers:
            raise FeatureStoreError(
                f"online store {self._shown}: {there} of {customers} customers are there after "
                "writing all of them; expected all: give it more memory and a maxmemory-policy of noeviction, and run again"
            )

    def _stored(self, rows: pa.Table) -> tuple[int, int]:
        """How many of the rows' customers the online store has, and how many there are."""
        customers = pc.unique(rows[ENTITY]).to_pylist()
        with _refusals(f"online store {self._shown}"):
            return online_keys.count(self._settings.online_store, customers), len(customers)


def _surely_filled() -> list[str]:
    return [each.name for each in FEATURES if each.null_as is None]


def _digests(offline_file: Path) -> pa.Table:
    """The key of every row of the file, and a digest of the row."""
    keyed = []
    for batch in ParquetFile(offline_file).iter_batches(DIGESTED_ROWS):
        digest = pd.util.hash_pandas_object(batch.to_pandas(), index=False).to_numpy()
        keyed.append(pa.table({ENTITY: batch[ENTITY], TIMESTAMP: batch[TIMESTAMP], "digest": digest}))
    return pa.concat_tables(keyed)


def _not_in(rows: pa.Table, known: pa.Table) -> pa.Table:
    return rows.join(known, keys=rows.column_names, join_type="left anti")


@contextmanager
def _without_type_checks() -> Iterator[None]:
    """Import Feast without typeguard, which rewrites twenty of its classes each time: two thirds of the import's time.

    It would check the types of what `definitions` gives them, which the contract has made.
    """
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked


def _connect(settings: Settings) -> "FeatureStore":
    import yaml
    from feast import FeatureStore, RepoConfig

    config = yaml.safe_load(CONFIG.read_text())
    config["registry"]["path"] = settings.feature_registry
    config["online_store"] = _online_store(settings.online_store)
    ONLINE_STORE.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=RepoConfig(**config))


def _online_store(url: str) -> dict[str, Any]:
    """Feast's configuration of an online store from its URL."""
    kind, _, rest = url.partition("://")
    match kind:
        case "sqlite":
            return {"type": "sqlite", "path": str(Path(rest.removeprefix("/")).absolute())}
        case "redis" | "rediss":
            address = urlsplit(url)
            options = {"db": address.path.strip("/") or "0", "username": address.username, "password": address.password}
            # Feast reads each value as JSON: a password of digits would become a number.
            given = [f"{name}={json.dumps(unquote(value))}" for name, value in options.items() if value]
            secure = ["ssl=true"] if kind == "rediss" else []
            place = f"{address.hostname}:{address.port or 6379}"
            # Without skip_dedup, Redis keeps the old values of a row that was corrected under the same timestamp.
            return {"type": "redis", "connection_string": ",".join([place, *given, *secure]), "skip_dedup": True}
        case _:
            raise FeatureStoreError(f"CHURN_ONLINE_STORE = {kind}://…: not sqlite:///path nor redis://host:port/db; correct it")


def _let_reads_go_on(online_store: Any) -> None:
    """In SQLite's default mode, readers wait until Feast has written a whole batch; the mode stays with the file."""
    if online_store.type == "sqlite":
        with closing(sqlite3.connect(online_store.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Foreign errors become one line; Feast's progress goes to the debug log instead of the terminal."""
    import duckdb
    import redis
    import sqlalchemy.exc

    chatter = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(chatter), redirect_stderr(chatter):
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, redis.RedisError, duckdb.Error, OSError) as error:
        raise FeatureStoreError(f"{what}: {reason(error)}; check that it is there and reachable") from None
    finally:
        log.debug("%s", chatter.getvalue())
