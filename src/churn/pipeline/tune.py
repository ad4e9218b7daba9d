"""tune: a search over a model's hyperparameters, and the score of one point of it. No stage runs it."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import yaml

from churn import models, paths
from churn.adapters import round_trip
from churn.adapters.feast import store as feature_store
from churn.adapters.mlflow.registry import Registry
from churn.adapters.packages import require
from churn.adapters.study import Point, Study, Trial
from churn.contract import ENTITY, LABEL
from churn.domain.encoding import Matrix, encode
from churn.domain.metrics import Labels
from churn.domain.reasons import reason
from churn.errors import ConfigError
from churn.params import Params, Range, Train, parse
from churn.pipeline import selection, train
from churn.pipeline.selection import Customers, Losses
from churn.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """What is learned from: (n, k) inputs, (n,) labels and hashes of the customers."""

    X: Matrix
    y: Labels
    customers: Customers


def table(params: Params, settings: Settings) -> Table:
    """The rows that `train` learns from."""
    frame, _ = train.join(feature_store.Store(paths.FEATURES, settings))
    frame = train.history(frame, params)
    return Table(encode(frame), frame[LABEL].to_numpy(dtype=bool), selection.hash_of(frame[ENTITY]))


def trial(params: Params, settings: Settings, changes: Sequence[str]) -> dict[str, float]:
    """The cross-validated scores of `train` with changed parameters, each written KEY=VALUE.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    changed = parse_changes(params.train, changes)
    return scores(changed, table(params.model_copy(update={"train": changed}), settings))


def scores(params: Train, rows: Table) -> dict[str, float]:
    """`cv_log_loss` and `cv_roc_auc` of what is chosen, over `cv_folds` folds."""
    splits = selection.folds_of(rows.y, rows.customers, params.inner_folds, params.seed)
    choice = selection.choose(models.candidates(params, len(rows.y)), rows.X, rows.y, splits)
    once = params.model_copy(update={"cv_repeats": 1})
    found, _ = selection.cross_validate({"model": choice.unfitted()}, rows.X, rows.y, once, rows.customers)
    return {f"cv_{name}": found["model"][name] for name in ("log_loss", "roc_auc")}


def parse_changes(params: Train, changes: Sequence[str]) -> Train:
    """The parameters with these changes: KEY=VALUE, KEY a key of `train`, of the named model's section, or MODEL.KEY.

    Raises:
        ConfigError: it is written otherwise, or a key or a value is wrong.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not (key and equals):
            raise ConfigError(f"expected KEY=VALUE, got {change!r}; correct it")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{change}: not YAML: {reason(error)}; correct it") from error
    model = values.get("model", params.model)
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if not section and key in Train.model_fields:
            params = _parsed(params, {key: value})
        elif section or model != models.AUTO:
            params = with_point(params, section or model, {name: value})
        else:
            raise ConfigError(f"expected a key of train or MODEL.KEY, as train.model is {model}, got {key!r}; correct it")
    models.check(params)
    return params


def with_point(params: Train, model: str, point: Point) -> Train:
    """The parameters with a point's values in the model's section; those that its shapes have make its only shape."""
    section = dict(params.sections.get(model, {}))
    for key, value in point.items():
        shape = next((shape for shape in section.get("shapes", ()) if key in shape), None)
        section |= {key: value} if shape is None else {"shapes": [{**shape, key: value}]}
    return _parsed(params, {model: section})


def _parsed(params: Train, values: dict[str, Any]) -> Train:
    return parse(Train, params.model_dump() | values, paths.PARAMS, "train")


def points_of(params: Train, model: str, ranges: dict[str, Range]) -> list[Point]:
    """The points that the model's section has now, one for each shape, as far as they lie in the ranges."""
    section = params.sections[model]
    points = [{name: (section | shape).get(name) for name in ranges} for shape in section.get("shapes", [{}])]
    return [point for point in points if all(ranges[name].has(value) for name, value in point.items())]


def losses(params: Train, model: str, rows: Table, splits: selection.Splits, point: Point) -> Iterator[float]:
    """A point's log loss on the rows held out so far, after each fold, with the best number of steps."""
    built = models.build(with_point(params, model, point), model)
    for found in selection.held_out_losses(built, built.choices()[0], rows.X, rows.y, splits):
        yield float(found.min())


def gain(before: Losses, after: Losses, customers: Customers) -> tuple[float, float]:
    """The mean by which (n,) losses fell, and its standard error; the rows of one customer are one observation."""
    fell = before - after
    owner = np.arange(len(fell)) if customers is None else np.unique(customers, return_inverse=True)[1]
    spread = np.bincount(owner, weights=fell - fell.mean())
    return float(fell.mean()), float(np.sqrt((spread**2).sum()) / len(fell))


def run(params: Params, settings: Settings, *, model: str = "", trials: int | None = None) -> str:
    """Search the model's ranges; write the best point to params.yaml if it is better on other folds; returns what was found.

    `model`: empty is the one that `train.model` names, or the first of `train.auto`. `trials`: None is `tune.trials`.

    Raises:
        ConfigError: the model has no ranges, Optuna is not installed, or its storage cannot be reached.
    """
    model = model or next(iter(params.train.auto.models if params.train.model == models.AUTO else (params.train.model,)))
    if model not in params.tune.ranges:
        known = ", ".join(params.tune.ranges)
        raise ConfigError(
            f"{paths.PARAMS}: tune.ranges: expected a model of {known}, got {model!r}; add its ranges, or correct --model"
        )
    require("tune", "optuna", "ruamel.yaml")
    ranges = params.tune.ranges[model]
    if model not in (params.train.model, *params.train.auto.models, *params.train.auto.large_models):
        log.warning("tune: train.model is %s, which does not use %s", params.train.model, model)
    rows, wanted = table(params, settings), trials or params.tune.trials
    study = Study(settings.tune_storage, study_name(params, model, rows), ranges, params.tune.seed)
    study.enqueue(points_of(params.train, model, ranges))
    splits = selection.folds_of(rows.y, rows.customers, params.train.inner_folds, params.tune.seed)
    with Registry(settings).search(f"tune {model}") as log_run:

        def on_trial(done: Trial) -> None:
            result = f"pruned after fold {done.folds}" if done.pruned else f"log loss {done.loss:.4f}"
            log.info("trial %d of %d: %s → %s", study.finished, wanted, _shown(done.point), result)
            log_run(f"trial {done.number}", done.point, {"log_loss": done.loss}, done.pruned)

        try:
            study.run(wanted, partial(losses, params.train, model, rows, splits), on_trial)
        except KeyboardInterrupt:
            log.warning("tune: stopped after %d of %d trials; the same command goes on from there", study.finished, wanted)
            raise
    return conclude(params.train, model, rows, study.best)


def study_name(params: Params, model: str, rows: Table) -> str:
    """Names what makes trials comparable: rows, parameters and ranges."""
    ranges = {name: limits.model_dump() for name, limits in params.tune.ranges[model].items()}
    given = json.dumps([params.train.model_dump(), ranges, params.tune.seed], sort_keys=True)
    return f"{model}-{sha256(given.encode() + rows.X.tobytes() + rows.y.tobytes()).hexdigest()[:12]}"


def conclude(params: Train, model: str, rows: Table, point: Point) -> str:
    """Write the point to params.yaml if training with it is better by one standard error; returns what was found.

    Both are scored by nested cross-validation on folds that the search did not have: its own losses flatter what it chose. The
    model is alone in both: where `auto` also compares others, a useless point would win by letting another model be chosen.
    """
    changed, shown = with_point(params, model, point), f"{model} {_shown(point)}"
    if changed == params:
        return f"tune: the current parameters are the best that was tried: {shown}"
    before, after = (
        selection.nested_losses((models.build(each, model),), rows.X, rows.y, params, rows.customers)
        for each in (params, changed)
    )
    fell, error = gain(before, after, rows.customers)
    found = f"tune: {shown}: log loss {after.mean():.4f}, with the current parameters {before.mean():.4f}"
    if fell <= error:
        return f"{found}; not better by one standard error ({error:.4f}): {paths.PARAMS} stays"
    section = changed.sections[model]
    new = {key: value for key, value in section.items() if value != params.sections[model].get(key)}
    round_trip.replace(paths.PARAMS, ("train", model), new)
    return f"{found}; better by {fell:.4f} ± {error:.4f}: written to {paths.PARAMS}"


def _shown(point: Point) -> str:
    return " ".join(f"{name}={value}" for name, value in point.items())
