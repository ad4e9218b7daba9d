"""Batch scoring: a table of any size through the production model, in constant memory."""

import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn.adapters import bundle, onnx, sources
from churn.adapters.files import atomic_path
from churn.adapters.mlflow import model_store
from churn.adapters.mlflow.registry import Registry
from churn.adapters.rows import checked, identifiers, violation
from churn.contract import ENTITY
from churn.domain.encoding import Coded, derive, encode
from churn.domain.version import Version
from churn.errors import BundleError, ConfigError, ContractError, RegistryError
from churn.paths import CANDIDATE_ALIAS, PRODUCTION

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH_ROWS = 32_768
SWITCH_INTERVAL_S = 0.0005
SHOWN = 3
"""How many ids a message names."""
REPEATED = ["model_version"]
"""The one column of few texts: a dictionary of the others costs time and saves nothing."""


@dataclass(frozen=True)
class Model:
    """A version ready to score: its number, its ONNX session, the encoded columns that it takes, and its decision threshold.

    `now` is the moment of rows that have no timestamp.
    """

    version: str
    session: "InferenceSession"
    inputs: tuple[str, ...]
    threshold: float
    now: datetime = field(default_factory=partial(datetime.now, UTC))

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The entity as text, `churn_probability`, `churn` (the decision at the threshold) and `model_version` of each row.

        Raises:
            ContractError: a row breaks the contract.
        """
        columns, violations = checked(batch, self.now)
        ids = identifiers(batch[ENTITY])
        if violations:
            raise _refusal([batch])
        probability = self.probability(columns)
        return pa.record_batch(
            {
                ENTITY: ids,
                "churn_probability": probability,
                "churn": probability >= self.threshold,
                "model_version": pa.repeat(self.version, len(batch)),
            }
        )

    def probability(self, columns: dict[str, Any]) -> npt.NDArray[np.float64]:
        """The churn probability (n,) of rows as `churn.adapters.rows.arrays` gives them."""
        order = _alike(columns)
        rows = {name: values[order] for name, values in columns.items()}
        probability = np.empty(len(order))
        probability[order] = onnx.predict(self.session, encode(derive(rows), self.inputs))
        return probability


def _alike(columns: dict[str, Any]) -> npt.NDArray[np.intp]:
    """The order (n,) that puts rows with the same categories and flags side by side.

    Neighbours then take the same branches of most trees, so that the processor foresees them: the model runs twice as fast.
    """
    codes = [values.codes if isinstance(values, Coded) else values for values in columns.values()]
    keys = [each for each in codes if each.dtype.itemsize <= 2]  # what NumPy sorts by radix
    return np.lexsort(keys) if keys else np.arange(len(codes[0]))


def production(registry: Registry) -> Model:
    """The production version, ready to score.

    Raises:
        RegistryError: there is none, or it cannot be fetched.
    """
    version = registry.of_alias(PRODUCTION)
    if not version:
        raise RegistryError(_why_none(registry.of_alias(CANDIDATE_ALIAS)))
    files = registry.read_bundle(version)
    try:
        inputs = bundle.inputs_of(files[bundle.INPUTS])
        threshold = float(version.tags["threshold"])
    except (BundleError, KeyError, ValueError) as error:
        raise RegistryError(
            f"version {version.number}: {error}: it has no inputs or no `threshold`; evaluate it, or promote another version"
        ) from error
    return Model(version.number, onnx.session(files[bundle.MODEL]), inputs, threshold)


def _why_none(candidate: Version | None) -> str:
    """Why there is no production version, and what to do, in one line."""
    return model_store.why_none(candidate.number if candidate else "", candidate.tags if candidate else {})


def score(source: Path, out: Path, model: Model, *, on_rows: Callable[[int], None] = lambda rows: None) -> int:
    """Score the rows of a CSV or Parquet file, or of a folder of them, into `out` (.csv or .parquet); returns how many.

    `on_rows` is called with the number of rows done since the last call. `out` appears when all rows are scored, or not at all.

    Raises:
        ConfigError: `out` is neither, or is the source or a file in its folder.
        SourceError: the source cannot be read.
        ContractError: a row breaks the contract; nothing is written.
    """
    if source.resolve() in (out.resolve(), out.resolve().parent):
        raise ConfigError(f"score: {out}: is the source {source}, or lies in it; name another place: the rows would be lost")
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"score: {out}: is neither .csv nor .parquet; name the file to write by one of them")
    done = 0
    try:
        with atomic_path(out) as temporary, _writer(temporary, out.suffix) as write:
            for scored in _ahead(model.score, sources.batches(source, rows=BATCH_ROWS)):
                write(scored)
                done += len(scored)
                on_rows(len(scored))
    except ContractError as error:
        # It is about the rows of one batch.
        raise _refusal(sources.batches(source, rows=BATCH_ROWS)) from error
    return done


def _refusal(batches: Iterable[pa.RecordBatch]) -> ContractError:
    """Every rule that rows of the batches break, with how many rows and the first ids, as one error."""
    total, counts, first = 0, Counter[tuple[str, str]](), defaultdict[tuple[str, str], list[str]](list)
    for batch in batches:
        total += len(batch)
        for subject, rule, bad in checked(batch)[1]:
            counts[subject, rule] += int(bad.sum())
            if len(found := first[subject, rule]) < SHOWN:
                ids = identifiers(batch[ENTITY]).filter(pa.array(bad))[: SHOWN - len(found)]
                found.extend(each or f"no {ENTITY}" for each in ids.to_pylist())
    violations = [violation(*rule, count, tuple((each, "") for each in first[rule]), of=total) for rule, count in counts.items()]
    return ContractError(f"{'; '.join(map(str, violations))}; correct the rows and run again")


def _ahead(work: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`map` on all cores, in order, at most two items per core ahead."""
    workers = os.cpu_count() or 1
    with _short_turns(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _short_turns() -> Iterator[None]:
    """Threads hand Python over ten times sooner than by default: each is soon back in Arrow, NumPy or the model, without it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[Any], None]]:
    """A function that appends a record batch to the file; the first one gives the schema."""
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter as Writer
    else:
        from pyarrow.parquet import ParquetWriter

        Writer = partial(ParquetWriter, use_dictionary=REPEATED)
    opened: list[Any] = []

    def write(batch: Any) -> None:
        if not opened:
            opened.append(Writer(path, batch.schema))
        (opened[0].write if suffix == ".csv" else opened[0].write_batch)(batch)

    try:
        yield write
    finally:
        for each in opened:
            each.close()
