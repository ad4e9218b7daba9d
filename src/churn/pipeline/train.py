"""train: point-in-time frame → model and baseline → ONNX → a registered version, alias `candidate`."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from churn import models, paths
from churn.adapters import bundle, onnx
from churn.adapters.feast import store as feature_store
from churn.adapters.files import atomic_path, sha256, write_json, write_parquet
from churn.adapters.mlflow.registry import Registry
from churn.adapters.mlflow.tracking import Training
from churn.adapters.origins import ORIGIN
from churn.adapters.rows import as_sent
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain import golden
from churn.domain.encoding import Matrix, contract_sha256, encode, encoded_names
from churn.domain.metrics import Labels, Probabilities
from churn.features import FEATURES
from churn.params import Params
from churn.pipeline import plots, selection
from churn.pipeline.lineage import lineage
from churn.settings import Settings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)


"""The model that every other must at least equal."""


@dataclass(frozen=True)
class Trained:
    """Everything that training found: the model, its baseline, their scores, and out-of-fold probabilities (n,)."""

    model: selection.Fitted
    baseline: selection.Fitted
    scores: dict[str, Any]
    out_of_fold: Probabilities


def fit(X: Matrix, y: Labels, params: Params, customers: selection.Customers = None) -> Trained:
    """Fit the model and its baseline on (n, k) inputs and (n,) labels, and score both on the same folds.

    `customers` (n,) is a hash of each row's customer; None: every row is another customer's.

    Raises:
        ModelError: the labels do not allow it.
    """
    model, baseline = (
        selection.fit(candidates, X, y, params.train, customers)
        for candidates in (models.candidates(params.train, len(y)), (models.build(params.train, models.BASELINE),))
    )
    both = {"model": model.estimator, "baseline": baseline.estimator}
    log.info("train: cross-validating, %d folds %d times", params.train.cv_folds, params.train.cv_repeats)
    scores, out_of_fold = selection.cross_validate(both, X, y, params.train, customers)
    counts = {"rows": len(y), "churn_rate": float(y.mean())}
    return Trained(model, baseline, counts | {"cv": scores["model"], "baseline_cv": scores["baseline"]}, out_of_fold)


def join(store: feature_store.Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test) labels, each with the features that were true at its time, from one point-in-time join; test with `ORIGIN`.

    Raises:
        FeatureStoreError: a label found no features.
    """
    train, test = (
        pd.read_parquet(path, columns=[ENTITY, TIMESTAMP, LABEL, ORIGIN]) for path in (paths.TRAIN_ROWS, paths.TEST_ROWS)
    )
    frame = store.training_frame(pd.concat([train, test], ignore_index=True))
    return frame.iloc[: len(train)], frame.iloc[len(train) :].reset_index(drop=True).assign(**{ORIGIN: test[ORIGIN]})


def history(frame: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows of the frame that are learned from, in their order."""
    y, customers = frame[LABEL].to_numpy(dtype=bool), selection.hash_of(frame[ENTITY])
    model, *_ = models.candidates(params.train, len(y))
    rows = selection.choose_history(model, encode(frame, encoded_names(frame)), y, frame[TIMESTAMP], params.train, customers)
    return frame.iloc[rows].reset_index(drop=True)


def reference(frame: pd.DataFrame, out_of_fold: Probabilities, rows: int) -> pd.DataFrame:
    """The newest training rows, at most `rows`, with the probability that a model gave them that had not seen them.

    What drift compares to: the newest, so that a version that has learned what drifted no longer calls it drift.
    """
    scored = frame.assign(churn_probability=out_of_fold).sample(frac=1, random_state=0)
    return scored.sort_values(TIMESTAMP, ascending=False, kind="stable").head(rows).sort_index().reset_index(drop=True)


def golden_rows(frame: pd.DataFrame, session: "InferenceSession") -> dict[str, Any]:
    """Rows of the frame without their identifiers, and the probabilities that the version must give them wherever it runs."""
    X = encode(frame, encoded_names(frame))
    rows = golden.choose(X, partial(onnx.predict, session))
    sent = as_sent(frame.iloc[rows]).astype(object)
    customers = [{name: _plain(value) for name, value in row.items()} for _, row in sent.iterrows()]
    return {"customers": customers, "churn_probabilities": onnx.predict(session, X[rows]).tolist()}


def _plain(value: Any) -> Any:
    """A value as JSON has it: null for a missing number."""
    plain = value.item() if hasattr(value, "item") else value
    return None if plain != plain else plain  # noqa: PLR0124 - only NaN differs from itself


def write_bundle(
    folder: Path,
    content: bytes,
    frame: pd.DataFrame,
    watched: pd.DataFrame,
    *,
    explanation: dict[str, Any] | None,
    importance: dict[str, float],
) -> str:
    """Write what travels with a version, and its manifest; returns the bundle's digest.

    `content` is the ONNX model, `frame` the rows that it learned from, `watched` those of `reference`; `explanation` is None for
    a model that has none.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / bundle.MODEL).write_bytes(content)
        write_json({"inputs": encoded_names(frame), "contract_sha256": contract_sha256()}, temporary / bundle.INPUTS)
        write_json(importance, temporary / bundle.IMPORTANCE)
        if explanation:
            # Not rounded: the contributions add up to the log-odds only with every digit.
            (temporary / bundle.EXPLAIN).write_text(json.dumps(explanation, allow_nan=False) + "\n")
        (temporary / bundle.GOLDEN).write_text(json.dumps(golden_rows(frame, onnx.session(content)), allow_nan=False) + "\n")
        write_parquet(watched, temporary / bundle.REFERENCE)
        return bundle.seal(temporary)


def run(params: Params, settings: Settings) -> None:
    """Write models/, metrics/train.json and two plots; log a run and register its model as the candidate.

    Raises:
        ModelError: the rows do not allow a model, or ONNX does not agree with it.
        FeatureStoreError, RegistryError: out of reach.
    """
    registry = Registry(settings)
    store = feature_store.Store(paths.FEATURES, settings)
    frame, test_frame = join(store)
    newest = max(each[TIMESTAMP].max() for each in (frame, test_frame) if len(each))
    frame = history(frame, params)
    inputs = encoded_names(frame)
    X, y, customers = encode(frame, inputs), frame[LABEL].to_numpy(dtype=bool), selection.hash_of(frame[ENTITY])

    log.info("train: %d rows, %d inputs of %d features: choosing and fitting the model", *X.shape, len(FEATURES))
    trained = fit(X, y, params, customers)
    importance = selection.importance(trained.model, inputs, X, y, params.train, customers)
    log.info("train: exporting and registering the model")

    metadata = {"contract_sha256": contract_sha256(), "inputs": "\n".join(inputs)}
    model, baseline = (
        fitted.choice.model.export(fitted.estimator, X, metadata=metadata) for fitted in (trained.model, trained.baseline)
    )
    watched = reference(frame, trained.out_of_fold, params.train.reference_rows)
    explanation = trained.model.explanation
    digest = write_bundle(paths.CANDIDATE, model, frame, watched, explanation=explanation, importance=importance)
    with atomic_path(paths.BASELINE) as path:
        path.write_bytes(baseline)
    write_parquet(test_frame, paths.TEST_FRAME)
    algorithm, hyperparameters = trained.model.choice.model.name, trained.model.choice.hyperparameters
    recipe = {"algorithm": algorithm, "hyperparameters": hyperparameters, "candidates": trained.model.candidates}
    write_json(recipe | trained.scores, paths.TRAIN_METRICS)
    pictures = _draw(importance, trained.model.loss)

    tags = lineage(params.model_dump_json(), settings) | {
        "feast_service": store.service,
        "newest_row": newest.isoformat(),
        bundle.TAG: digest,
        "onnx_sha256": sha256(paths.CANDIDATE / bundle.MODEL),
    }
    training = Training(
        params=_flat(params.train.model_dump()) | {"algorithm": algorithm} | hyperparameters,
        metrics=_flat(trained.scores),
        loss=trained.model.loss,
        tags=tags,
        rows=frame,
        source=paths.FEATURES,
        bundle=paths.CANDIDATE,
        plots=pictures,
    )
    version = registry.register(training)
    cv = trained.scores["cv"]
    log.info(
        "train: version %s, CV ROC-AUC %.4f ± %.4f, log loss %.4f",
        version.number,
        cv["roc_auc"],
        cv["roc_auc_sd"],
        cv["log_loss"],
    )


def _draw(importance: dict[str, float], loss: Any) -> tuple[Path, ...]:
    pictures = paths.TRAIN_REPORTS / "importance.png", paths.TRAIN_REPORTS / "loss.png"
    plots.importance(tuple(importance), list(importance.values()), png=pictures[0], csv=paths.PLOTS / "importance.csv")
    plots.loss(loss, png=pictures[1], csv=paths.PLOTS / "loss.csv")
    return pictures


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"cv": {"roc_auc": 1}} → {"cv.roc_auc": 1}"""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
