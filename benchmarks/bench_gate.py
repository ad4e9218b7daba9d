"""How often the promotion gate refuses a model that is as good as the champion: `make bench-gate`, after `make repro`.

Each trial splits the shipped customers again by a hash of their id, as `prepare` does. Champion and challenger are fitted by
the same recipe, each on its own bootstrap sample of the training customers with its own seed: neither is better but by chance.
The gate judges the challenger on the test rows by the bounds of params.yaml. With `--flipped`, the challenger is worse and should
fail.
"""

import argparse
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churn import models, paths
from churn.contract import ENTITY, LABEL, TIMESTAMP
from churn.domain.encoding import Matrix, encode
from churn.domain.metrics import Labels, Probabilities
from churn.params import Params, load_params
from churn.pipeline.evaluate import evaluate
from churn.pipeline.train import BASELINE

DEPTH = 2
"""The depth that `train` chooses on the shipped rows; choosing it in every trial would take an hour."""


@dataclass(frozen=True)
class Trial:
    """The names of the checks that refused the challenger, and what the 95 % interval of the ROC-AUC difference says."""

    refused: tuple[str, ...]
    is_called_better: bool
    is_called_worse: bool


def main() -> None:
    """Run the trials and print how many passed, and what refused the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--flipped", type=float, default=0, help="share of the challenger's training labels that are flipped")
    wanted = parser.parse_args()
    labels = pd.concat(
        [pd.read_parquet(path, columns=[ENTITY, TIMESTAMP, LABEL]) for path in (paths.TRAIN_ROWS, paths.TEST_ROWS)]
    )
    frame = labels.merge(pd.read_parquet(paths.FEATURES), on=[ENTITY, TIMESTAMP])
    params = load_params()
    trials = [trial(frame, params, wanted.seed + number, flipped=wanted.flipped) for number in range(wanted.trials)]
    print("\n".join(lines(trials)))


def trial(frame: pd.DataFrame, params: Params, seed: int, *, flipped: float) -> Trial:
    """One split, a champion and a challenger, one judgement; the challenger learned from a share of flipped labels."""
    random = np.random.default_rng(seed)
    is_test = frame[ENTITY].map(lambda entity: _share(f"{seed} {entity}") < params.prepare.test_fraction).to_numpy(dtype=bool)
    X, y = encode(frame), frame[LABEL].to_numpy(dtype=bool)
    known, labels = X[~is_test], y[~is_test]
    baseline = models.build(params.train, BASELINE).unfitted().fit(known.astype(np.float64), labels)
    probabilities = {
        "champion": _fitted(known, labels, params, random).predict_proba(X[is_test])[:, 1],
        "candidate": _fitted(known, labels ^ (random.random(len(labels)) < flipped), params, random).predict_proba(X[is_test])[
            :, 1
        ],
        "baseline": baseline.predict_proba(X[is_test].astype(np.float64))[:, 1],
    }
    return _judged(frame[is_test].reset_index(drop=True), probabilities, params)


def _fitted(X: Matrix, y: Labels, params: Params, random: np.random.Generator) -> Any:
    rows = random.integers(0, len(y), len(y))
    train = params.train.model_copy(update={"seed": int(random.integers(2**31))})
    return (
        models.build(train, "gradient_boosting")
        .unfitted(max_depth=DEPTH, max_features=0.1, n_estimators=100)
        .fit(X[rows], y[rows])
    )


def _judged(frame: pd.DataFrame, probabilities: dict[str, Probabilities], params: Params) -> Trial:
    found = evaluate(frame, probabilities, params.evaluate)
    gap = found.differences["roc_auc"]
    return Trial(tuple(check.name for check in found.failed), gap.low > 0, gap.high < 0)


def lines(trials: list[Trial]) -> list[str]:
    """What the trials say, a line each."""
    of = f"of {len(trials)}"
    by_slice = sum(any(" where " in name for name in each.refused) for each in trials)
    only_slice = sum(bool(each.refused) and all(" where " in name for name in each.refused) for each in trials)
    summary = [
        f"{sum(not each.refused for each in trials)} {of} challengers pass the gate",
        f"{by_slice} {of} are refused by some slice, {only_slice} by slices alone",
        f"{sum(each.is_called_better for each in trials)} {of} are called better, "
        f"{sum(each.is_called_worse for each in trials)} worse, by the 95 % interval of the ROC-AUC difference",
        "refused by:",
    ]
    counts = Counter(name for each in trials for name in each.refused)
    return summary + [f"  {count:>3} × {name}" for name, count in counts.most_common()]


def _share(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


if __name__ == "__main__":
    main()
