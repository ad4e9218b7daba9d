"""Final labels of logged predictions. Memory grows with the outcomes and the labels, not with the predictions."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from churn.adapters.events import labels
from churn.adapters.events.labels import Refused
from churn.adapters.events.log import Sink, prediction_schema
from churn.contract import ENTITY, RAW_FEATURES

LABELLED_AT_ONCE = 200_000
"""After so many predictions of customers with an outcome, their labels are computed; at the earliest at the end of a day."""


@dataclass(frozen=True)
class Logged:
    """The part of the event log that is read: predictions with `since` ≤ time < `until`, outcomes received from `since` on."""

    sink: Sink
    since: datetime | None
    until: datetime

    def labelled(self, *, now: datetime, horizon: timedelta) -> pd.DataFrame:
        """The first prediction of each customer in each horizon with a label that is final at `now`.

        It has `labels.PREDICTION_COLUMNS` and the label. Predictions without a customer are left out. Logs which outcomes cannot
        be true.

        Raises:
            EventsError: the storage is out of reach.
        """
        outcomes = self.sink.read("outcomes", since=self.since, columns=labels.OUTCOME_COLUMNS).to_pandas()
        having = {name: set(outcomes[name].dropna()) for name in (ENTITY, "prediction_id")}
        found: list[pd.DataFrame] = []
        refused: list[Refused] = []
        for predictions in _in_chunks(self._days(labels.PREDICTION_COLUMNS, having)):
            named = predictions[predictions[ENTITY].notna()].sort_values("time", kind="stable")
            matured = labels.matured(named, outcomes, now=now, horizon=horizon, on_refused=refused.append)
            found.append(labels.once_per_horizon(matured, horizon))
        if refused:
            labels.log_refused(_joined(refused))
        return labels.once_per_horizon(pd.concat(found, ignore_index=True), horizon)

    def with_features(self, labelled: pd.DataFrame) -> pd.DataFrame:
        """The same predictions with their raw features.

        Raises:
            EventsError: the storage is out of reach.
        """
        columns = [*labels.PREDICTION_COLUMNS, *(each.name for each in RAW_FEATURES)]
        found = _frame(self._days(columns, {"prediction_id": set(labelled["prediction_id"])}), columns)
        key = list(labels.PREDICTION_COLUMNS)
        return labelled.merge(found.drop_duplicates(key), on=key)

    def times(self, customers: Collection[str]) -> pd.DataFrame:
        """Who of the customers was scored when: a row for every prediction.

        Raises:
            EventsError: the storage is out of reach.
        """
        columns = [ENTITY, "time"]
        return _frame(self._days(columns, {ENTITY: customers}), columns)

    def has_predictions(self) -> bool:
        """Whether anything was ever predicted, before `since` and after `until` too.

        Raises:
            EventsError: the storage is out of reach, or the log was compacted meanwhile.
        """
        first, last = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
        return any(map(len, self.sink.stream("predictions", since=first, until=last, columns=["time"])))

    def _days(self, columns: Sequence[str], values: Mapping[str, Collection[str]]) -> Iterator[pa.Table]:
        """A table per day: the predictions that have, in at least one of the columns that `values` names, one of its values."""

        def is_wanted(table: pa.Table) -> pa.Array:
            # Not `pyarrow.compute.is_in`: it hashes the values again for each of many small parts.
            found = [[value in wanted for value in table[name].to_pylist()] for name, wanted in values.items()]
            return pa.array(np.any(found, axis=0))

        if not any(values.values()):
            return
        for day in self.sink.reader.days("predictions"):
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            since, until = max(start, self.since or start), min(start + timedelta(days=1), self.until)
            if since < until:
                yield self.sink.read("predictions", since=since, until=until, columns=columns, where=is_wanted)


def _in_chunks(tables: Iterator[pa.Table]) -> Iterator[pd.DataFrame]:
    """The tables together, in frames of about `LABELLED_AT_ONCE` rows; at least one frame."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= LABELLED_AT_ONCE:
            yield _frame(waiting, labels.PREDICTION_COLUMNS)
            waiting = []
    yield _frame(waiting, labels.PREDICTION_COLUMNS)


def _frame(tables: Iterable[pa.Table], columns: Sequence[str]) -> pd.DataFrame:
    empty = pa.schema([prediction_schema().field(name) for name in columns]).empty_table()
    frame: pd.DataFrame = pa.concat_tables([empty, *tables]).to_pandas()
    return frame


def _joined(refused: Sequence[Refused]) -> Refused:
    """What several chunks refused: an outcome whose time is wrong by itself is refused with each of them."""

    def ids(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for chunk in refused for each in getattr(chunk, name)))

    return Refused(ids("from_the_future"), ids("too_early"), ids("before_the_prediction"))
