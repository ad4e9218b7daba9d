"""The files of the event log, and how one is opened."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa

from churn.domain.reasons import reason

T = TypeVar("T")

SUFFIX = ".parquet"
COMPACTED = "compacted-"
"""How the name of a compacted part begins."""
SMALL_BYTES = 4 * 2**20
"""Parts up to this size are fetched at once, larger ones by the ranges that are needed."""
READERS = 8
"""How many parts are fetched at the same time."""
DECODING = (OSError, ValueError, pa.ArrowException)
"""What pyarrow raises for a file that is no Parquet, or whose pages are damaged: the latter is an OSError, as an outage is."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Damaged:
    """A part that is skipped: where it is, and why."""

    place: str
    reason: str


class DamagedPartError(Exception):
    """A part, or one of its row groups, cannot be used."""


class ChangedError(Exception):
    """A part disappeared between the listing and the reading: it was compacted or deleted meanwhile."""


@dataclass(frozen=True)
class PartKind:
    """What the parts of one kind hold: the schema, the column of the time that they are filed by, the columns none may lack."""

    name: str
    schema: pa.Schema
    time: str
    required: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A file of one UTC day; `modified` is the storage's time."""

    path: str
    day: date
    size: int
    modified: datetime | None

    @property
    def name(self) -> str:
        """The file's name without the suffix."""
        return self.path.rpartition("/")[2].removesuffix(SUFFIX)

    @property
    def is_compacted(self) -> bool:
        """Whether other parts were merged into it."""
        return self.path.rpartition("/")[2].startswith(COMPACTED)


@dataclass
class PartFile:
    """An opened part. `content` has all of its bytes, or they are read when they are needed."""

    filesystem: Any
    part: Part
    content: pa.Buffer | None = None
    schema: pa.Schema | None = None
    """Once it was decoded: pyarrow makes another at every access."""
    _parquet: Any = field(default=None, repr=False)

    @classmethod
    def opened(cls, filesystem: Any, part: Part) -> "PartFile":
        """The part, with its bytes if it is small; of a compacted one, single row groups are read.

        Raises:
            ChangedError: it is gone.
            OSError: the storage is out of reach.
        """
        file = cls(filesystem, part)
        if part.size <= SMALL_BYTES and not part.is_compacted:
            file.load()
        return file

    def load(self) -> None:
        """Fetch all bytes."""
        try:
            with self.filesystem.open_input_stream(self.part.path) as stream:
                self.content, self._parquet = pa.py_buffer(stream.read()), None
        except OSError as error:
            if self._is_gone(error):
                raise ChangedError(self.part.path) from error
            raise

    def release(self) -> None:
        """Drop the bytes; what is needed later is read again."""
        self.content, self._parquet = None, None

    def _is_gone(self, error: OSError) -> bool:
        """Whether the part is gone: S3 has an error of its own where that happens between two requests."""
        from pyarrow.fs import FileType

        if isinstance(error, FileNotFoundError):
            return True
        return bool(self.filesystem.get_file_info(self.part.path).type == FileType.NotFound)

    def decoded(self, action: Callable[[Any], T]) -> T:
        """What the action returns for the part's `pyarrow.parquet.ParquetFile`.

        A failure may mean damaged bytes or a storage that is out of reach. So the bytes are fetched and decoded in memory: what
        fails then is damage.

        Raises:
            DamagedPartError, ChangedError, OSError: as said.
        """
        while True:
            try:
                return action(self._opened())
            except ChangedError:
                raise
            except DECODING as error:
                if self.content is not None:
                    raise DamagedPartError(reason(error)[:200]) from None
            self.load()

    def _opened(self) -> Any:
        from pyarrow.parquet import ParquetFile

        if self._parquet is None:
            if self.content is None:
                try:
                    source = self.filesystem.open_input_file(self.part.path)
                except FileNotFoundError as error:
                    raise ChangedError(self.part.path) from error
            else:
                source = pa.BufferReader(self.content)
            self._parquet = ParquetFile(source, pre_buffer=self.content is None)
            if self.part.is_compacted and (coded := _coded_texts(self._parquet)):
                # Rows by the hundred thousand: codes are read in half of the time.
                about = self._parquet.metadata
                self._parquet = ParquetFile(source, metadata=about, read_dictionary=coded, pre_buffer=self.content is None)
            self.schema = self._parquet.schema_arrow
        return self._parquet


def _coded_texts(parquet: Any) -> list[str]:
    """The columns of texts that the file has as codes."""
    if not parquet.num_row_groups:
        return []
    texts = {column.name for column in parquet.schema_arrow if pa.types.is_string(column.type)}
    about = parquet.metadata.row_group(0)
    leaves = map(about.column, range(about.num_columns))
    return [leaf.path_in_schema for leaf in leaves if leaf.has_dictionary_page and leaf.path_in_schema in texts]


def opened(filesystem: Any, parts: Iterable[Part]) -> Iterator[PartFile]:
    """The parts in their order, opened; some are fetched ahead.

    Raises:
        ChangedError, OSError: as `PartFile.opened`.
    """
    waiting: deque[Future[PartFile]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="event-log")
    try:
        for part in parts:
            waiting.append(pool.submit(PartFile.opened, filesystem, part))
            if len(waiting) > READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def microseconds(moment: datetime) -> int:
    """Microseconds from 1970 to a time with a zone."""
    return (moment - EPOCH) // MICROSECOND
