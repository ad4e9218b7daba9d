"""Optuna: a search over hyperparameters that several processes may share and that goes on where it was stopped."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn.adapters.packages import require
from churn.domain.reasons import reason
from churn.errors import ConfigError
from churn.params import Range
from churn.settings import without_password

if TYPE_CHECKING:
    import optuna

Point = dict[str, int | float]
"""A value for each hyperparameter."""

RANDOM_TRIALS = 8
"""So many trials are drawn at random before the search follows what was good."""
DIGITS = 3
"""Significant digits of a value: more would suggest a precision that no search has."""


@dataclass(frozen=True)
class Trial:
    """A point that was tried. `loss` is that after `folds` folds; `pruned`: the others were left out."""

    number: int
    point: Point
    loss: float
    folds: int
    pruned: bool


class Study:
    """A search in `storage`, a file or a `postgresql://` URL, under a name; made if it is not there.

    Raises:
        ConfigError: Optuna is not installed, or the storage cannot be reached.
    """

    def __init__(self, storage: str, name: str, ranges: dict[str, Range], seed: int) -> None:
        require("tune", "optuna")
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        self._optuna = optuna
        self._ranges = ranges
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(
                storage=_storage(storage), study_name=name, load_if_exists=True, pruner=optuna.pruners.MedianPruner()
            )
        except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            shown = without_password(storage)
            raise ConfigError(f"CHURN_TUNE_STORAGE = {shown}: {reason(error)}; expected a file or postgresql://…") from error

    @property
    def finished(self) -> int:
        """How many trials have a result."""
        return len(self._finished())

    def _finished(self) -> "list[optuna.trial.FrozenTrial]":
        states = self._optuna.trial.TrialState
        found: list[optuna.trial.FrozenTrial] = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        return found

    def enqueue(self, points: Sequence[Point]) -> None:
        """Try these points first, unless the study has them already. A point that failed or was interrupted is tried again."""
        failed = self._optuna.trial.TrialState.FAIL
        trials = [each for each in self._study.get_trials(deepcopy=False) if each.state != failed]
        known = [each.system_attrs.get("fixed_params", each.params) for each in trials]
        for point in points:
            if point not in known:
                self._study.enqueue_trial(point)

    def run(self, trials: int, losses: Callable[[Point], Iterator[float]], on_trial: Callable[[Trial], None]) -> None:
        """Try points until the study has so many results; `losses` yields a point's loss after each fold.

        A trial that is worse after a fold than half of the others were is pruned. Interrupted, what is finished stays.
        """
        while self.finished < trials:
            trial = self._study.ask()
            # Seeded by the number, so that a resumed search draws what an uninterrupted one would have drawn.
            self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + trial.number, n_startup_trials=RANDOM_TRIALS)
            try:
                on_trial(self._tried(trial, losses))
            except BaseException:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)
                raise

    def _tried(self, trial: "optuna.Trial", losses: Callable[[Point], Iterator[float]]) -> Trial:
        point = {name: _suggested(trial, name, limits) for name, limits in self._ranges.items()}
        loss, fold = float("nan"), 0
        for fold, loss in enumerate(losses(point), start=1):
            trial.report(loss, fold)
            if trial.should_prune():
                self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
                return Trial(trial.number, point, loss, fold, pruned=True)
        self._study.tell(trial, loss)
        return Trial(trial.number, point, loss, fold, pruned=False)

    @property
    def best(self) -> Point:
        """The point with the least loss."""
        return {name: _rounded(value) for name, value in self._study.best_params.items()}


def _storage(storage: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in storage:
        from sqlalchemy.pool import NullPool

        return RDBStorage(storage.replace("postgresql://", "postgresql+psycopg://"), engine_kwargs={"poolclass": NullPool})
    Path(storage).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interface of journals is new
        return JournalStorage(JournalFileBackend(storage))


def _suggested(trial: "optuna.Trial", name: str, limits: Range) -> int | float:
    if isinstance(limits.low, int) and isinstance(limits.high, int):
        return int(trial.suggest_int(name, limits.low, limits.high, log=limits.log))
    return _rounded(trial.suggest_float(name, limits.low, limits.high, log=limits.log))


def _rounded(value: int | float) -> int | float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
