"""The recipe of params.yaml against each of its candidates alone, on nine public tables: `make bench-recipe`.

Nested cross-validation: for each of five folds, inner folds of the other four choose every candidate's number of trees and, for
`auto`, the candidate. The shortfall is what `auto` loses to the candidate that turned out best on the table, which no
rule can know beforehand.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from public_tables import tables

from churn import models
from churn.domain import metrics
from churn.domain.encoding import Matrix
from churn.domain.metrics import Interval, Labels, Probabilities
from churn.models import Model
from churn.params import Train, load_params
from churn.pipeline import selection

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "recipe.json"
RIVALS = ("gradient_boosting", "hist_gradient_boosting", "logistic_regression")
"""Whose candidates `auto` is compared with: also those that it takes on large tables only."""
SAMPLES = 400
MEAN = {"auc": 0.004, "log_loss": 0.002}
"""The most that `auto` may fall short on average over the tables …"""
CERTAIN = {"auc": 0.010, "log_loss": 0.006}
"""… and the most that the whole 95 % interval of its shortfall on one table may lie above."""
SLOPES = 0.95, 1.2
"""The range of its calibration slopes."""


NAMES = ("telco", "lending_club", "Caravan", "Default", "charity", "HealthInsurance", "HMDA", "nassCDS", "SmokeBan")
"""The tables whose figures are promised: without `mlc_churn` and `attrition`, which are simulated, and `credit_data`."""


def out_of_fold(X: Matrix, y: Labels, train: Train, folds: int) -> tuple[dict[str, Probabilities], list[str]]:
    """(n,) probabilities of each candidate and of `auto` on rows that they did not learn from; what `auto` chose in each fold."""
    rivals = [models.build(train, name) for name in RIVALS]
    names = [_key(model, shape) for model in rivals for shape in model.choices()]
    portfolio = {_key(model, shape) for model in models.candidates(train, len(y)) for shape in model.choices()}
    found = {name: np.empty(len(y)) for name in (*names, "auto")}
    chosen: list[str] = []
    for learned, held_out in selection.folds_of(y, None, folds, train.seed):
        inner = selection.folds_of(y[learned], None, train.inner_folds, train.seed)
        choices = dict(zip(names, selection.compare(rivals, X[learned], y[learned], inner), strict=True))
        for name, choice in choices.items():
            estimator = selection.fit_estimator(choice.unfitted(), X[learned], y[learned])
            found[name][held_out] = selection.predict(estimator, X[held_out])
        taken = selection.first_as_good([choices[name] for name in names if name in portfolio])
        best = next(name for name in names if choices[name] is taken)
        found["auto"][held_out] = found[best][held_out]
        chosen.append(best)
    return found, chosen


def _key(model: Model, shape: dict[str, Any]) -> str:
    return " ".join((model.name, *(f"{name}={value}" for name, value in shape.items())))


def shortfall(y: Labels, found: dict[str, Probabilities]) -> dict[str, dict[str, Any]]:
    """What `auto` loses to the best single candidate, by ROC-AUC and by log loss, with a 95 % interval."""
    single = {name: p for name, p in found.items() if name != "auto"}
    best = {
        "auc": max(single, key=lambda name: metrics.roc_auc(y, single[name])),
        "log_loss": min(single, key=lambda name: metrics.log_loss(y, single[name])),
    }
    lost: dict[str, dict[str, Any]] = {}
    for measure, name in best.items():
        gaps = metrics.paired_bootstrap(y, found["auto"], single[name], samples=SAMPLES, seed=7)
        gap = gaps["roc_auc"] if measure == "auc" else gaps["log_loss"]
        # A higher ROC-AUC is better, a higher log loss is worse.
        turned = Interval(-gap.value, -gap.high, -gap.low) if measure == "auc" else gap
        lost[measure] = {"best": name, "value": turned.value, "low": turned.low, "high": turned.high}
    return lost


def measured(X: Matrix, y: Labels, train: Train, folds: int) -> dict[str, Any]:
    """A table's figures."""
    start = time.process_time()
    found, chosen = out_of_fold(X, y, train, folds)
    return {
        "rows": len(y),
        "inputs": X.shape[1],
        "churn_rate": float(y.mean()),
        "roc_auc": metrics.roc_auc(y, found["auto"]),
        "log_loss": metrics.log_loss(y, found["auto"]),
        "slope": metrics.calibration_slope(y, found["auto"]),
        "shortfall": shortfall(y, found),
        "chosen": {name: chosen.count(name) for name in dict.fromkeys(chosen)},
        "cpu_s": round(time.process_time() - start, 1),
    }


def bars(tables: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each promise with its figure, and whether it was held."""
    found: list[dict[str, Any]] = []
    for name, mean in MEAN.items():
        lost = [each["shortfall"][name] for each in tables.values()]
        for bar, value, most in (
            (f"mean shortfall, {name}", float(np.mean([each["value"] for each in lost])), mean),
            (f"largest certain shortfall, {name}", max(each["low"] for each in lost), CERTAIN[name]),
        ):
            found.append({"bar": bar, "measured": round(value, 4), "promised": f"≤ {most}", "held": value <= most})
    low, high = (extreme(each["slope"] for each in tables.values()) for extreme in (min, max))
    promised = f"{SLOPES[0]} to {SLOPES[1]}"
    held = SLOPES[0] <= low <= high <= SLOPES[1]
    return [*found, {"bar": "slopes", "measured": f"{low:.3f} to {high:.3f}", "promised": promised, "held": held}]


def lines(result: dict[str, Any]) -> list[str]:
    """The result as Markdown."""
    table = [
        "| table | rows | ROC-AUC | log loss | slope | shortfall, ROC-AUC | shortfall, log loss | chosen |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, each in result["tables"].items():
        lost = (f"{_four(gap['value'])} [{_four(gap['low'])}, {_four(gap['high'])}]" for gap in each["shortfall"].values())
        chosen = ", ".join(f"{count} × {choice}" for choice, count in each["chosen"].items())
        figures = f"{each['roc_auc']:.4f} | {each['log_loss']:.4f} | {each['slope']:.2f}"
        table.append(f"| {name} | {each['rows']} | {figures} | {' | '.join(lost)} | {chosen} |")
    table += ["", "| bar | measured | promised | |", "|---|---:|---:|---|"]
    for each in result["bars"]:
        table.append(f"| {each['bar']} | {each['measured']} | {each['promised']} | {'held' if each['held'] else '**missed**'} |")
    return table


def _four(value: float) -> str:
    return f"{round(value, 4) + 0:.4f}"  # + 0: no minus before a zero


def main() -> None:
    """Measure the tables, print them, write benchmarks/results/recipe.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000, help="rows of a table, at most")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--tables", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path, default=OUT)
    wanted = parser.parse_args()
    train = load_params(ROOT / "params.yaml").train
    result: dict[str, Any] = {"folds": wanted.folds, "tables": {}}
    for table in tables(wanted.tables, wanted.rows):
        result["tables"][table.name] = measured(table.X, table.y, train, wanted.folds)
        print(f"{table.name}: {result['tables'][table.name]['cpu_s']} CPU s", flush=True)
    result["bars"] = bars(result["tables"])
    print("\n".join(lines(result)))
    wanted.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
