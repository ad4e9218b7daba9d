"""Lean reads of the online store that Feast fills: SQLite, Redis or Valkey, without Feast's 500 MB and five seconds of import.

Both stores keep a customer's features under the same entity key, each as a small protobuf `feast.types.Value`. That layout is
Feast's own affair: a test holds these readers equal to Feast's, value by value.
Source: https://github.com/feast-dev/feast/blob/master/docs/specs/online_store_format.md
"""

import sqlite3
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, Protocol
from urllib.parse import urlsplit

from churn.contract import ENTITY
from churn.domain.reasons import reason
from churn.errors import FeatureStoreError
from churn.features import FEATURES
from churn.paths import FEAST_PROJECT, FEAST_VIEW

_NAMES = tuple(each.name for each in FEATURES)
_POSITIONS = {name: position for position, name in enumerate(_NAMES)}

ENTITIES_A_QUERY = 500
"""SQLite takes a limited number of parameters in one statement."""


@dataclass(frozen=True)
class Stored:
    """One customer's features as they were at `as_of`, UTC; `values` has every name of `churn.features.FEATURES`, in order."""

    values: dict[str, Any]
    as_of: datetime


class OnlineStore(Protocol):
    """Reads the newest features of customers; safe to call from several threads."""

    def read(self, entities: Sequence[str]) -> list[Stored | None]:
        """What is stored of each entity, in their order; None for one that is unknown.

        Raises:
            FeatureStoreError: the store is out of reach, too slow, or was never filled.
        """

    def close(self) -> None:
        """Close the connections that no thread is using."""


def connect(url: str, *, timeout_s: float = 0.2) -> OnlineStore:
    """The online store at `sqlite:///path`, `redis://[user:password@]host:port/db` or `rediss://…`; nothing is opened yet.

    Every wait for the store is given up on after `timeout_s`, and so is a read that takes longer altogether: it ends within twice
    that, or three times if it has to connect.

    Raises:
        FeatureStoreError: the URL is of another kind.
    """
    kind, _, rest = url.partition("://")
    match kind:
        case "sqlite":
            return _Sqlite(Path(rest.removeprefix("/")).absolute(), timeout_s)
        case "redis" | "rediss":
            return _Redis(url, timeout_s)
        case _:
            raise FeatureStoreError(f"CHURN_ONLINE_STORE = {kind}://…: not sqlite:///path nor redis://host:port/db; correct it")


class _Sqlite:
    """Feast's SQLite file: one row per entity and feature."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._free: deque[tuple[sqlite3.Connection, tuple[int, int]]] = deque()

    def read(self, entities: Sequence[str]) -> list[Stored | None]:
        keys = [entity_key(entity) for entity in entities]
        found: dict[bytes, tuple[list[bytes | None], list[int]]] = {}
        for key, name, value, stamp in self._rows(keys):
            if (position := _POSITIONS.get(name)) is not None:
                if (row := found.get(key)) is None:
                    row = found[key] = ([None] * len(_NAMES), [])
                row[0][position] = value
                row[1].append(stamp)
        rows = map(found.get, keys)
        return [_stored(row[0], _feasts_local_time(min(row[1]))) if row else None for row in rows]

    def close(self) -> None:
        while used := self._pop():
            used[0].close()

    def _rows(self, keys: list[bytes]) -> list[tuple[bytes, str, bytes, int]]:
        rows = []
        with self._connection() as connection:
            for start in range(0, len(keys), ENTITIES_A_QUERY):
                chunk = keys[start : start + ENTITIES_A_QUERY]
                marks = ",".join("?" * len(chunk))
                rows += connection.execute(f"{_SELECT} ({marks})", chunk).fetchall()
        return rows

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection, not shared with another thread, to the current file."""
        deadline = monotonic() + self._timeout_s
        try:
            connection, file = self._open()
            with ExitStack() as undo:
                undo.callback(connection.close)
                connection.set_progress_handler(lambda: monotonic() > deadline, 10_000)
                yield connection
                undo.pop_all()  # it ended well: the connection is kept
        except (sqlite3.Error, OSError) as error:
            raise FeatureStoreError(f"online store {self._path}: {self._reason(error)}") from None
        self._free.append((connection, file))

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        status = self._path.stat()
        file = (status.st_dev, status.st_ino)
        while used := self._pop():
            if used[1] == file:
                return used
            used[0].close()
        # Not mode=ro: such a connection cannot tidy up after a writer that was killed.
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", self._timeout_s, uri=True, check_same_thread=False)
        connection.execute("PRAGMA query_only=ON")
        return connection, file

    def _pop(self) -> tuple[sqlite3.Connection, tuple[int, int]] | None:
        # No check before the pop: another thread may take the connection in between.
        with suppress(IndexError):
            return self._free.pop()
        return None

    def _reason(self, error: Exception) -> str:
        said = reason(error)
        if isinstance(error, FileNotFoundError):
            return "there is no such file; run `churn featurize`, or correct CHURN_ONLINE_STORE"
        if "no such table" in said:
            return f"{said}: nothing was materialised yet; run `churn featurize`"
        if "locked" in said or said == "interrupted":
            return f"{said}: no answer within {self._timeout_s:g} s; try again, or look at what is writing to it"
        return f"{said}; check that it is there and readable"


class _Redis:
    """Feast's Redis layout: one hash per entity."""

    def __init__(self, url: str, timeout_s: float) -> None:
        from redis import Connection, ConnectionPool
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._timeout_s = timeout_s
        fields = _redis_fields()
        # What is the same in every command is packed once.
        self._command_head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields))
        self._command_tail = b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
        # Not redis-py's pool: it checks each connection at each use, which takes a fifth of the time of a read.
        self._free: deque[Connection] = deque()
        try:
            at = urlsplit(url)
            self._shown = f"{at.scheme}://{at.hostname}:{at.port or 6379}{at.path}"
            # One attempt: the caller has a deadline.
            retry = Retry(NoBackoff(), 0)
            self._maker = ConnectionPool.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)
        except ValueError:
            # Not chained: its message may hold the password.
            raise FeatureStoreError("CHURN_ONLINE_STORE: not redis://[user:password@]host:port/db; correct it") from None

    def read(self, entities: Sequence[str]) -> list[Stored | None]:
        import redis

        keys = [entity_key(entity) + FEAST_PROJECT.encode() for entity in entities]
        try:
            replies = self._replies(b"".join(map(self._command, keys)), len(keys))
        except (redis.TimeoutError, TimeoutError) as error:
            raise FeatureStoreError(
                f"online store {self._shown}: no answer within {self._timeout_s:g} s; check that it is there and not overloaded"
            ) from error
        except redis.RedisError as error:
            raise FeatureStoreError(
                f"online store {self._shown}: {reason(error)}; check that it is there and reachable"
            ) from None
        return [
            _stored(values, _proto_timestamp(stamp)) if stamp is not None and any(values) else None for *values, stamp in replies
        ]

    def close(self) -> None:
        while self._free:
            self._free.pop().disconnect()  # type: ignore[no-untyped-call]

    def _command(self, key: bytes) -> bytes:
        return b"%b$%d\r\n%b\r\n%b" % (self._command_head, len(key), key, self._command_tail)

    def _replies(self, commands: bytes, count: int) -> list[Any]:
        """The replies to that many pipelined commands, in less time than redis-py's own pipeline takes.

        Here and below `try`, where contextlib would read better: it took a seventh of a read of one customer.
        """
        import redis

        deadline = monotonic() + self._timeout_s
        while used := self._pop():
            try:
                return self._exchange(used, commands, count, deadline)
            except redis.ConnectionError:
                continue  # Redis closed it meanwhile: the next one, or a new one, will tell
        return self._exchange(self._maker.make_connection(), commands, count, deadline)

    def _exchange(self, connection: Any, commands: bytes, count: int, deadline: float) -> list[Any]:
        replies: list[Any] = []
        complete = False
        try:
            connection.send_packed_command([commands])
            for _ in range(count):
                replies.append(connection.read_response())
                if monotonic() > deadline:
                    raise TimeoutError
            complete = True
        finally:
            if not complete:
                connection.disconnect()  # replies may still arrive; the next reader must not take them for its own
        self._free.append(connection)
        return replies

    def _pop(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            return None


_SELECT = f'SELECT entity_key, feature_name, value, event_ts FROM "{FEAST_PROJECT}_{FEAST_VIEW}" WHERE entity_key IN'

STRING = 2
"""`feast.types.ValueType.STRING`"""

_KEY_HEAD = struct.pack("<III", 1, STRING, len(ENTITY.encode())) + ENTITY.encode() + struct.pack("<I", STRING)


def entity_key(entity: str) -> bytes:
    """Feast's entity key, serialization version 3."""
    # Half a surrogate pair has no UTF-8; spelled like this, no stored customer has it.
    text = entity.encode(errors="surrogatepass")
    return _KEY_HEAD + struct.pack("<I", len(text)) + text


def _redis_fields() -> tuple[bytes, ...]:
    import mmh3

    hashed = (struct.pack("<I", mmh3.hash(f"{FEAST_VIEW}:{name}", signed=False)) for name in _NAMES)
    return (*hashed, f"_ts:{FEAST_VIEW}".encode())


def _stored(values: Any, as_of: datetime) -> Stored:
    # No function for a value: to call it would take as long as what it does.
    decoded = [(_double(value)[0] if value[0] == DOUBLE else _decode(value)) if value else None for value in values]
    return Stored(dict(zip(_NAMES, decoded, strict=True)), as_of)


DOUBLE = 0x29
"""The protobuf tag of `feast.types.Value.double_val`: eight bytes follow."""
_double = struct.Struct("<xd").unpack_from


@lru_cache(maxsize=4096)
def _decode(value: bytes) -> int | bool | str:
    """A protobuf `feast.types.Value` with a whole number, a flag or a text: few different ones, so that most are remembered."""
    number, start = _varint(value, 1)
    match value[0]:
        case 0x12:
            return value[start : start + number].decode()
        case 0x20:
            return number - (1 << 64) if number >> 63 else number
        case 0x38:
            return bool(number)
        case tag:
            raise FeatureStoreError(
                f"online store: protobuf tag {tag:#x}: not a value of the contract's; run `churn featurize --full`"
            )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The protobuf varint at that place, and the place after it."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return number, at + 1
        at, shift = at + 1, shift + 7


@lru_cache(maxsize=1024)
def _proto_timestamp(stamp: bytes) -> datetime:
    """A `google.protobuf.Timestamp`: field 1 is seconds, field 2 nanoseconds; what is 0 is left out."""
    fields = {1: 0, 2: 0}
    at = 0
    while at < len(stamp):
        tag = stamp[at] >> 3
        fields[tag], at = _varint(stamp, at + 1)
    seconds = fields[1] - (1 << 64) if fields[1] >> 63 else fields[1]
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=fields[2] // 1000)


def _feasts_local_time(stamp: int) -> datetime:
    """Feast writes UTC to SQLite as if it were local time, and reads it so: the same zone must be set on both sides."""
    return datetime.fromtimestamp(stamp).replace(tzinfo=UTC)
