"""How often the promotion gate refuses a good model, and a bad one: `make bench-gate`.

On each of twelve public tables, a recipe is chosen by cross-validation and every row is scored by a model that has not seen it.
Test sets are drawn from these rows without replacement. The good model's scores are used as they are; each fault changes them, or
what was learned from, in a known way. The gate of release 0.1.0 is measured beside this one on the same draws.
"""

import argparse
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gate_tables import TABLES
from peers import fixed_bounds
from public_tables import Table, tables

from churn.adapters.files import write_json
from churn.domain import evidence, gate, metrics
from churn.domain.encoding import Matrix
from churn.domain.metrics import Labels, Probabilities
from churn.params import load_params

RESULT = Path(__file__).parent / "results" / "gate.json"
SEED = 7
SIZES = (1400, 500)
SLICES = {"40 %": 0.4, "25 %": 0.25, "20 %": 0.2, "10 %": 0.1, "5 %": 0.05}
DAMAGED = "20 %"
FOLDS, INNER_FOLDS, STEPS, STEP = 5, 3, 200, 10
BOOTSTRAP_SAMPLES = 400
EQUAL = 4
"""Models of the same recipe, each fitted on nine tenths of the rows: any of them is candidate, any other champion."""

Random = np.random.Generator
Change = Callable[[Probabilities, Random], Probabilities]


def _logits(factor: float, shift: float = 0.0) -> Change:
    def changed(p: Probabilities, _: Random) -> Probabilities:
        clipped = np.clip(p, 1e-6, 1 - 1e-6)
        moved: Probabilities = 1 / (1 + np.exp(-(factor * np.log(clipped / (1 - clipped)) + shift)))
        return moved

    return changed


FAULTS: dict[str, Change] = {
    "logits × 1.3": _logits(1.3),
    "logits × 1.6": _logits(1.6),
    "logits × 0.75": _logits(0.75),
    "logits × 0.6": _logits(0.6),
    "logits + 0.5": _logits(1, 0.5),
    "scores permuted": lambda p, random: random.permutation(p),
}
GOOD = "good model"
FLIPPED = "20 % of training labels flipped"


@dataclass(frozen=True)
class Scored:
    """(n,) probabilities of models that had not seen the row: some equal ones, one that learned flipped labels, the baseline.

    `leaks`: what the leak rules say of the table's columns, without and with one that leaks.
    """

    table: Table
    recipe: "Recipe"
    good: list[Probabilities]
    flipped: Probabilities
    baseline: Probabilities
    leaks: list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """An estimator and, for boosting, how many steps of it."""

    name: str
    steps: int = 0

    def fit(self, X: Matrix, y: Labels, seed: int) -> Any:
        """The estimator, fitted."""
        from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        histogram: dict[str, Any] = {
            "max_iter": self.steps,
            "min_samples_leaf": 30,
            "early_stopping": False,
            "random_state": seed,
        }
        match self.name:
            case "logistic":
                model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            case "boosting, depth 2":
                model = GradientBoostingClassifier(
                    n_estimators=self.steps, max_depth=2, max_features=0.1, min_samples_leaf=30, random_state=seed
                )
            case "histogram, depth 3":
                model = HistGradientBoostingClassifier(max_depth=3, max_features=0.3, **histogram)
            case _:
                model = HistGradientBoostingClassifier(max_leaf_nodes=15, max_features=0.5, **histogram)
        return model.fit(X, y)


BOOSTED = ("boosting, depth 2", "histogram, depth 3", "histogram, 15 leaves")


def choose(table: Table) -> Recipe:
    """The recipe with the least log loss in cross-validation."""
    losses: defaultdict[Recipe, float] = defaultdict(float)
    for train, test in _folds(table.y, INNER_FOLDS):
        logistic = Recipe("logistic")
        p = logistic.fit(table.X[train], table.y[train], SEED).predict_proba(table.X[test])[:, 1]
        losses[logistic] += metrics.log_loss(table.y[test], p)
        for name in BOOSTED:
            fitted = Recipe(name, STEPS).fit(table.X[train], table.y[train], SEED)
            for step, staged in enumerate(fitted.staged_predict_proba(table.X[test]), start=1):
                if step % STEP == 0:
                    losses[Recipe(name, step)] += metrics.log_loss(table.y[test], staged[:, 1])
    return min(losses, key=losses.__getitem__)


def _folds(y: Labels, count: int) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedKFold

    yield from StratifiedKFold(count, shuffle=True, random_state=SEED).split(y, y)


def out_of_fold(recipe: Recipe, X: Matrix, y: Labels, seed: int, *, share: float = 1.0, flipped: float = 0.0) -> Probabilities:
    """(n,) probabilities of models that had not seen the row: each learned from a share of the others, some labels flipped."""
    random = np.random.default_rng(seed)
    labels = y ^ (random.random(len(y)) < flipped)
    p = np.empty(len(y))
    for train, test in _folds(y, FOLDS):
        rows = random.permutation(train)[: round(share * len(train))]
        p[test] = recipe.fit(X[rows], labels[rows], seed).predict_proba(X[test])[:, 1]
    return p


def score(table: Table) -> Scored:
    """Every model's scores on the table, and what the leak rules say of it, honest and with a leaking column."""
    recipe = choose(table)
    good = [out_of_fold(recipe, table.X, table.y, seed, share=0.9) for seed in range(EQUAL)]
    return Scored(
        table,
        recipe,
        good,
        flipped=out_of_fold(recipe, table.X, table.y, SEED, flipped=0.2),
        baseline=out_of_fold(Recipe("logistic"), table.X, table.y, SEED),
        leaks=[leaking(table, "none", table.X, good[0]), *(_planted(table, kind) for kind in LEAKS)],
    )


def _column(y: Labels, churned: npt.ArrayLike, others: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.where(y, churned, others).astype(np.float32)


LEAKS: dict[str, Callable[[Labels, Random], npt.NDArray[np.float32]]] = {
    "the label itself": lambda y, _: _column(y, 1, 0),
    "flag on 90 % of churned, 2 % of others": lambda y, random: _column(
        y, random.random(len(y)) < 0.9, random.random(len(y)) < 0.02
    ),
    "number, 2 standard deviations apart": lambda y, random: _column(y, random.normal(2, 1, len(y)), random.normal(0, 1, len(y))),
    "flag on half of churned, no others": lambda y, random: _column(y, random.random(len(y)) < 0.5, 0),
}


def _planted(table: Table, kind: str) -> dict[str, Any]:
    X = np.column_stack([table.X, LEAKS[kind](table.y, np.random.default_rng(SEED))])
    return leaking(table, kind, X, out_of_fold(Recipe("histogram, depth 3", 100), X, table.y, SEED))


def leaking(table: Table, kind: str, X: Matrix, p: Probabilities) -> dict[str, Any]:
    """Which gate calls a column of the table a leak."""
    found = evidence.columns(X, table.y, p, tuple(map(str, range(X.shape[1]))))
    checks = gate.evaluate(_some_evidence(found), BOUNDS)
    is_refused = any(check.name.startswith("leak") and not check.passed for check in checks)
    return {"table": table.name, "leak": kind, "old": bool(found.roc_auc > fixed_bounds.MAX_AUC), "new": is_refused}


def _some_evidence(columns: evidence.Columns) -> evidence.Evidence:
    zero = metrics.Interval(0.0, 0.0, 0.0)
    return evidence.Evidence(100, 100, 0.8, zero, zero, zero, zero, 0.0, 0.0, columns=columns)


BOUNDS = load_params().evaluate.gate


def draws(scored: Scored, n: int, count: int) -> Iterator[dict[str, Any]]:
    """What both gates say of the good model and of each fault, as the first version ever."""
    random = np.random.default_rng(SEED)
    for _ in range(count):
        rows = random.permutation(len(scored.table.y))[:n]
        y, baseline, good = scored.table.y[rows], scored.baseline[rows], random.choice(scored.good)[rows]
        cases = {GOOD: good, FLIPPED: scored.flipped[rows]}
        cases |= {name: change(good, random) for name, change in FAULTS.items()}
        for case, p in cases.items():
            probabilities = {"candidate": p, "baseline": baseline}
            checks = gate.evaluate(_gathered(y, probabilities, {}), BOUNDS)
            yield {
                "table": scored.table.name,
                "rows": n,
                "case": case,
                "old": fixed_bounds.refuses(y, p, baseline),
                "too_few": gate.has_too_few(checks),
                "refused_by": [check.name for check in checks if not check.passed],
            }


def _gathered(y: Labels, probabilities: dict[str, Probabilities], masks: dict[str, evidence.Mask]) -> evidence.Evidence:
    customers = np.arange(len(y))
    return evidence.gather(y, probabilities, customers=customers, masks=masks, samples=BOOTSTRAP_SAMPLES, seed=SEED)


def beside_champion(scored: Scored, n: int, count: int) -> Iterator[dict[str, Any]]:
    """What both gates say of a candidate that is as good as the champion, and of one that is worse in one slice."""
    random = np.random.default_rng(SEED)
    for _ in range(count):
        rows = random.permutation(len(scored.table.y))[:n]
        good, champion = (scored.good[number][rows] for number in random.permutation(EQUAL)[:2])
        y, baseline = scored.table.y[rows], scored.baseline[rows]
        masks = {name: random.random(len(y)) < share for name, share in SLICES.items()}
        where = masks[DAMAGED]
        shuffled, shifted = good.copy(), good.copy()
        shuffled[where] = random.permutation(good[where])
        shifted[where] = _logits(1, 1.0)(good[where], random)
        for case, p in {"equal": good, "scores shuffled in a slice": shuffled, "logits + 1 in a slice": shifted}.items():
            found = _gathered(y, {"candidate": p, "champion": champion, "baseline": baseline}, masks)
            names = [check.name for check in gate.evaluate(found, BOUNDS) if not check.passed and "champion" in check.name]
            yield {
                "table": scored.table.name,
                "rows": n,
                "case": case,
                "old_whole": fixed_bounds.refuses_beside(y, p, champion),
                "old_slices": fixed_bounds.refuses_slices(y, p, champion, list(masks.values())),
                "new_whole": any(" where " not in name for name in names),
                "new_slices": any(" where " in name for name in names),
                "slices": len(found.slices or {}),
            }


def measure(count: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Every table of the result, from `count` test sets of each size for each public table."""
    drawn, beside, leaks, listed = [], [], [], []
    for table in tables(names):
        scored = score(table)
        print(f"{table.name}: {scored.recipe.name} {scored.recipe.steps or ''}", file=sys.stderr)
        drawn += [row for n in SIZES for row in draws(scored, n, count)]
        beside += list(beside_champion(scored, SIZES[0], count))
        leaks += scored.leaks
        good = [row for row in drawn if row["table"] == table.name and row["case"] == GOOD and row["rows"] == SIZES[0]]
        listed.append(
            {
                "table": table.name,
                "rows": len(table.y),
                "inputs": table.X.shape[1],
                "churn_rate": float(table.y.mean()),
                "roc_auc": metrics.roc_auc(table.y, scored.good[0]),
                "recipe": f"{scored.recipe.name}, {scored.recipe.steps} steps" if scored.recipe.steps else scored.recipe.name,
            }
            | _shares(good)
        )
    refused = [{"case": case, "rows": n} | _shares(rows) for (n, case), rows in _grouped(drawn, "rows", "case")]
    return {
        "how": {"draws": count, "seed": SEED, "tables": len(listed)},
        "refused": refused,
        "champion": [
            {"case": case} | {key: _mean(rows, key) for key in ("old_whole", "old_slices", "new_whole", "new_slices", "slices")}
            for (case,), rows in _grouped(beside, "case")
        ],
        "leaks": [
            {"leak": leak, "tables": len(rows)} | {key: sum(row[key] for row in rows) for key in ("old", "new")}
            for (leak,), rows in _grouped(leaks, "leak")
        ],
        "rules": list(_rules(drawn)),
        "tables": listed,
        "leaks_by_table": leaks,
        "by_table": [
            {"table": name, "rows": n, "case": case} | _shares(rows)
            for (name, n, case), rows in _grouped(drawn, "table", "rows", "case")
        ],
        "champion_by_table": [
            {"table": name, "case": case}
            | {key: _mean(rows, key) for key in ("old_whole", "new_whole", "old_slices", "new_slices")}
            for (name, case), rows in _grouped(beside, "table", "case")
        ],
    }


def _shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    new = [bool(row["refused_by"]) and not row["too_few"] for row in rows]
    return {"old": _mean(rows, "old"), "new": round(float(np.mean(new)), 4), "too_few": _mean(rows, "too_few")}


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows])), 4)


def _grouped(rows: list[dict[str, Any]], *keys: str) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def _rules(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """How often each check refuses the good model where there are rows enough to decide."""
    for n in SIZES:
        good = [row for row in rows if row["case"] == GOOD and row["rows"] == n]
        counts = Counter(name for row in good if not row["too_few"] for name in row["refused_by"])
        yield from ({"check": name, "rows": n, "share": round(times / len(good), 4)} for name, times in counts.most_common())


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=60, help="test sets of each size for each table")
    parser.add_argument("--tables", nargs="*", default=[], metavar="NAME", help="these alone")
    parser.add_argument("--out", type=Path, default=RESULT)
    wanted = parser.parse_args()
    started = time.process_time()
    found = measure(wanted.draws, tuple(wanted.tables))
    found["how"] |= {"cpu_s": round(time.process_time() - started), "python": platform.python_version()}
    write_json(found, wanted.out)
    print("\n\n".join(f"{name}\n\n{table(found[name])}" for name, table in TABLES.items()))


if __name__ == "__main__":
    main()
