"""Why a customer got its score: exact contributions to the log-odds, with NumPy alone.

Models describe themselves in training, `Explainer` runs wherever the version does: the server has neither scikit-learn nor shap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.domain.encoding import Matrix
from churn.errors import ModelError

TOLERANCE = 1e-9
"""How far the explained probability may lie from the model's. Source: measured differences are 1e-15 (both are float64)."""

PROOF_ROWS = 1000

CHUNK = 1 << 15
"""Numbers per array while trees are explained: 256 kB each stay in the processor's cache, and 1 MB took half as long again."""

Contributions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """A regression tree, an entry a node: a row goes left where its feature is at most the threshold; a leaf has left = right.

    `value` is what a leaf adds to the log-odds, `cover` how many training rows came by.
    """

    feature: npt.NDArray[Any]
    threshold: npt.NDArray[Any]
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    value: npt.NDArray[Any]
    cover: npt.NDArray[Any]


def describe_trees(trees: Sequence[Tree], start: float, columns: int) -> dict[str, Any]:
    """What an `Explainer` needs, as JSON has it, for log-odds that are `start` plus a leaf of each tree.

    All leaves, one list entry a leaf, one inner entry a feature on its way, padded to the longest way.
    """
    leaves = [leaf for tree in trees for leaf in _leaves(tree)]
    values, ways = [value for value, _ in leaves], [way for _, way in leaves]
    average = sum(value * float(np.prod([share for *_, share in way])) for value, way in leaves)
    longest = max(len(way) for way in ways)
    padded = [way + [(0, None, None, 1.0)] * (longest - len(way)) for way in ways]
    slots = {name: [[slot[index] for slot in way] for way in padded] for index, name in enumerate(_Trees.SLOTS)}
    return {"kind": "trees", "columns": int(columns), "base": float(start + average), "value": values, **slots}


Slot = tuple[int, float | None, float | None, float]
"""A feature on the way to a leaf: its column, the bounds of lower < x ≤ upper, and the share of rows that keep to them."""


def _leaves(tree: Tree) -> list[tuple[float, list[Slot]]]:
    """(value, way) per leaf; several splits on one feature are one slot."""
    leaves: list[tuple[float, list[Slot]]] = []
    stack: list[tuple[int, dict[int, Slot]]] = [(0, {})]
    while stack:
        node, way = stack.pop()
        left, right = int(tree.left[node]), int(tree.right[node])
        if left == right:
            leaves.append((float(tree.value[node]), list(way.values())))
            continue
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        _, lower, upper, share = way.get(feature, (feature, None, None, 1.0))
        below = (feature, lower, threshold if upper is None else min(upper, threshold))
        above = (feature, threshold if lower is None else max(lower, threshold), upper)
        stack.append((right, way | {feature: (*above, share * float(tree.cover[right] / tree.cover[node]))}))
        stack.append((left, way | {feature: (*below, share * float(tree.cover[left] / tree.cover[node]))}))
    return leaves


def describe_linear(slope: npt.NDArray[Any], mean: npt.NDArray[Any], base: float) -> dict[str, Any]:
    """What an `Explainer` needs, as JSON has it, for log-odds that are `base` at the `mean` (k,) and rise by `slope` (k,)."""
    return {"kind": "linear", "columns": len(slope), "base": float(base), "mean": mean.tolist(), "slope": slope.tolist()}


def prove(description: dict[str, Any], X: Matrix, predict: Callable[[Any], npt.NDArray[Any]]) -> None:
    """Check on rows of `X` (n, k) that what is explained is what the model gives; `predict` is its `predict_proba`.

    Raises:
        ModelError: some probability differs by more than `TOLERANCE`.
    """
    rows, explainer = X[:: len(X) // PROOF_ROWS + 1], Explainer(description)
    log_odds = explainer.base + explainer.contributions(rows).sum(axis=1)
    # In double precision, as it was fitted; and tanh, because exp overflows.
    gap = np.abs((1 + np.tanh(log_odds / 2)) / 2 - predict(rows.astype(np.float64))[:, 1]).max()
    if not gap <= TOLERANCE:
        raise ModelError(
            f"explanation: probabilities differ by {gap:.2g} from the model's, more than {TOLERANCE:g}; return None instead"
        )


class Explainer:
    """Explains a version's scores.

    `base` is the average customer's log-odds: of trees the mean over the rows that they were grown on, of a regression the
    log-odds at the mean of its rows. `columns` is k, the number of encoded columns.

    Raises:
        ModelError: the description is not what `describe_trees` or `describe_linear` returned.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        kind = description.get("kind") if isinstance(description, dict) else None
        match kind:
            case "trees":
                self._model: _Trees | _Linear = _Trees(description)
            case "linear":
                self._model = _Linear(description)
            case _:
                raise _malformed("kind", f"{kind!r:.40}; it is trees or linear")
        self.columns = self._model.columns
        self.base = float(_numbers(description, "base", ()))

    def contributions(self, X: Matrix) -> Contributions:
        """What each encoded column adds to the log-odds of each row of `X` (n, k), all finite: (n, k).

        A row's contributions and `base` sum to the model's log-odds. Of trees they are Shapley values, the same as
        `shap.TreeExplainer`'s with `feature_perturbation="tree_path_dependent"`.
        Source: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9.

        Raises:
            ModelError: `X` has another number of columns.
        """
        if X.ndim != 2 or X.shape[1] != self.columns:
            raise ModelError(f"explanation: inputs of shape {X.shape}, not (n, {self.columns}); encode the model's own inputs")
        return self._model.contributions(X.astype(np.float64))


class _Linear:
    """Slope times the distance from the mean."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._slope = _numbers(description, "slope", (None,))
        self._mean = _numbers(description, "mean", self._slope.shape)
        self.columns = _columns(description)
        if self.columns != len(self._slope):
            raise _malformed("columns", f"{self.columns}, and {len(self._slope)} slopes")

    def contributions(self, X: Contributions) -> Contributions:
        """(n, k) of (n, k) float64."""
        return (X - self._mean) * self._slope


class _Trees:
    """Shapley values of a sum of trees, all leaves at once.

    On its way to a leaf of value v, a row keeps to the bounds on feature i (o = 1) or not (o = 0), and a share z of the training
    rows does. The leaf gives feature i

        v · (o_i − z_i) · Σ_S |S|! (m − |S| − 1)! / m! · Π_{j ∈ S} o_j · Π_{j ∉ S} z_j      S ⊆ the way's m features without i

    and as the factorials are ∫ t^|S| (1 − t)^(m − |S| − 1) dt over [0, 1], the sum is ∫ Π_{j ≠ i} (t·o_j + (1 − t)·z_j) dt:
    a polynomial of degree m − 1, which ⌈m / 2⌉ Gauss-Legendre points integrate exactly. The padding has o = z = 1, a factor of 1.
    """

    SLOTS = ("feature", "lower", "upper", "share")

    def __init__(self, description: dict[str, Any]) -> None:
        self.columns = _columns(description)
        value = _numbers(description, "value", (None,))
        feature = _numbers(description, "feature", (len(value), None))
        if not ((feature >= 0) & (feature < self.columns) & (feature % 1 == 0)).all():
            raise _malformed("feature", f"a number that is none of the {self.columns} columns'")
        share = _numbers(description, "share", feature.shape)
        if not ((share > 0) & (share <= 1)).all():
            raise _malformed("share", "a number outside of (0, 1]")
        bounds = (_numbers(description, name, feature.shape, null=null) for name, null in (("lower", -np.inf), ("upper", np.inf)))

        # (features on the way, leaves): NumPy multiplies along the first axis ten times faster than along the last.
        self._lower, self._upper = (np.ascontiguousarray(each.T) for each in bounds)
        self._feature, self._share = np.ascontiguousarray(feature.T.astype(np.intp)), np.ascontiguousarray(share.T)
        self._value = value
        points, weights = np.polynomial.legendre.leggauss(max(1, (len(self._share) + 1) // 2))
        self._quadrature = [(t, (1 - t) * self._share, w) for t, w in zip((points + 1) / 2, weights / 2, strict=True)]

    def contributions(self, X: Contributions) -> Contributions:
        """(n, k) of (n, k) float64."""
        rows = max(1, CHUNK // max(1, self._feature.size))
        chunks = [self._chunk(X[start : start + rows]) for start in range(0, len(X), rows)]
        return np.concatenate(chunks) if chunks else np.zeros(X.shape)

    def _chunk(self, X: Contributions) -> Contributions:
        x = X.take(self._feature, axis=1)
        kept = (x > self._lower) & (x <= self._upper)
        integral = np.zeros(x.shape)
        for t, shares, weight in self._quadrature:
            factors = kept * t
            factors += shares
            # Never 0 / 0: shares are positive, and no point lies at 1.
            integral += weight * factors.prod(axis=1, keepdims=True) / factors
        shapley = (kept - self._share) * self._value * integral
        bins = np.arange(len(X))[:, np.newaxis, np.newaxis] * self.columns + self._feature
        summed = np.bincount(bins.ravel(), weights=shapley.ravel(), minlength=X.size)
        return np.asarray(summed, dtype=np.float64).reshape(X.shape)


def by_feature(contributions: Contributions, names: Sequence[str]) -> Contributions:
    """One contribution per feature, (n, number of features) of (n, k): those of a category's values are added up.

    `names` are the k encoded columns (`features.encoded_names`); the features come in their order of first appearance.
    """
    features = [name.partition("=")[0] for name in names]
    index = {feature: number for number, feature in enumerate(dict.fromkeys(features))}
    belongs = np.eye(len(index))[[index[each] for each in features]]
    return contributions @ belongs


def _columns(description: dict[str, Any]) -> int:
    columns = float(_numbers(description, "columns", ()))
    if not (columns >= 1 and columns.is_integer()):
        raise _malformed("columns", f"{columns:g} is not a number of columns")
    return int(columns)


def _numbers(
    description: dict[str, Any], name: str, shape: tuple[int | None, ...], *, null: float | None = None
) -> Contributions:
    """The description's numbers of that name in that shape (None: any length); `null` is what a null stands for.

    Raises:
        ModelError: it is missing, not of numbers, not finite, or of another shape.
    """
    try:
        values = np.array(description[name], dtype=np.float64)
    except KeyError as error:
        raise _malformed(name, "missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed(name, "not numbers in rows of one length") from error
    if values.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, values.shape, strict=True)):
        wanted = " × ".join("any" if each is None else str(each) for each in shape) or "one number"
        raise _malformed(name, f"shape {values.shape}, not {wanted}")
    nulls = np.isnan(values)
    if np.isinf(values).any() or (null is None and nulls.any()):
        raise _malformed(name, "null, or not finite")
    if null is not None:
        values[nulls] = null
    return values


def _malformed(name: str, problem: str) -> ModelError:
    return ModelError(f"explain.json: {name}: {problem}; write it with `churn train`")
