"""The production version with what it brings for its own watching: reference rows, importance, test figures, costs."""

import io
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from churn.adapters import bundle
from churn.adapters.mlflow.model_store import RestStore, SqliteStore
from churn.contract import LABEL
from churn.domain.reasons import reason
from churn.domain.version import Version
from churn.errors import ChurnError, MonitorError, RegistryError
from churn.features import FEATURES
from churn.params import Costs, Params
from churn.paths import MODEL, PRODUCTION
from monitoring.drift import SCORE
from monitoring.performance import promised_auc


@dataclass(frozen=True)
class Watched:
    """What a version is held to.

    `inputs` are the names of the model's inputs; `importance` has the features, the most important first; `test` the figures of
    its test rows.
    """

    number: str
    created_at: datetime
    threshold: float
    reference: pd.DataFrame
    inputs: tuple[str, ...]
    importance: tuple[str, ...]
    promised_auc: float
    test: dict[str, float]
    costs: Costs


class Versions:
    """Production versions, each fetched once."""

    def __init__(self, store: RestStore | SqliteStore) -> None:
        self._store = store
        self._known: Watched | None = None

    def production(self) -> Watched | None:
        """The version that is production now; None if there is none.

        Raises:
            RegistryError: the registry is out of reach.
            MonitorError: the version lacks what it needs to be watched.
        """
        released = self.released(PRODUCTION)
        if not released:
            return None
        if not self._known or (self._known.number, self._known.created_at) != (released.number, released.created_at):
            self._known = self._fetched(released)
        return self._known

    def released(self, alias: str) -> Version | None:
        """The version at an alias."""
        return self._store.of_alias(MODEL, alias)

    def tag(self, number: str, key: str, value: str) -> None:
        """Note something on a version."""
        self._store.set_tag(MODEL, number, key, value)

    def _fetched(self, released: Version) -> Watched:
        names = (bundle.REFERENCE, bundle.IMPORTANCE, bundle.INPUTS)
        with TemporaryDirectory() as folder:
            try:
                bundle.fetch(partial(self._store.fetch, released), Path(folder), released.digest, names)
                return self._watched(released, bundle.read(Path(folder), names))
            except RegistryError:
                raise
            except (KeyError, TypeError, ValueError, ChurnError) as error:  # ValueError: JSON's and Arrow's too
                raise MonitorError(
                    f"version {released.number}: {reason(error)[:200]}: what it brings to be watched is missing, "
                    "malformed, or of another contract; train again, or deploy the code that made it"
                ) from error

    def _watched(self, released: Version, files: dict[str, bytes]) -> Watched:
        if missing := {bundle.REFERENCE, bundle.IMPORTANCE} - files.keys():
            raise MonitorError(f"no {min(missing)} in its files")
        reference = pd.read_parquet(io.BytesIO(files[bundle.REFERENCE]))
        threshold = float(released.tags["threshold"])
        costs = Params.model_validate_json(released.tags["params"]).evaluate.costs
        return Watched(
            number=released.number,
            created_at=released.created_at,
            threshold=threshold,
            reference=reference[[*(each.name for each in FEATURES), SCORE, LABEL]],
            inputs=bundle.inputs_of(files[bundle.INPUTS]),
            importance=important(bundle.parse_json(bundle.IMPORTANCE, files[bundle.IMPORTANCE])),
            promised_auc=promised_auc(reference[SCORE].to_numpy()),
            test={name.removeprefix("test."): value for name, value in released.metrics.items() if name.startswith("test.")},
            costs=costs,
        )


def important(importance: dict[str, Any]) -> tuple[str, ...]:
    """The features by their importance, largest first."""
    shares = {each.name: float(importance[each.name]) for each in FEATURES}
    return tuple(sorted(shares, key=lambda name: -shares[name]))
