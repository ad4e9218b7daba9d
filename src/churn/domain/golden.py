"""The golden rows of a version: real rows whose predictions, stored with it, it must repeat wherever it runs.

They are chosen so that a model that gets any two of its inputs in the wrong order gives some of them another probability.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt

from churn.domain.encoding import Matrix

TOLERANCE = 1e-6
"""How far a prediction may lie from the stored one. Source: float32 arithmetic of two processors differs by 1e-7."""
ROWS = 32
"""How many rows are stored at least, if there are so many."""
POOL_ROWS = 300
"""From how many rows they are chosen, at most."""
MAX_SCORED = 2_000_000
"""How many rows are scored to choose them; with very many inputs the pool is smaller."""
SCORED_AT_ONCE = 20_000
CLEAR = 1e-3
"""A swap that changes a prediction by this is clear; where no row shows it so clearly, half of the largest change must do."""

Predict = Callable[[Matrix], npt.NDArray[np.float64]]
"""(n,) probabilities of (n, k) inputs."""


def choose(X: Matrix, predict: Predict) -> list[int]:
    """The numbers of the rows of `X` (n, k) to store.

    Swapping two inputs changes the prediction of one of them by more than `TOLERANCE`, wherever it changes that of any row by ten
    times as much (of many rows and inputs: of any row in a sample). A swap of inputs that the model ignores, or that are always
    equal, changes nothing and cannot be seen.
    """
    pairs = np.array(list(combinations(range(X.shape[1]), 2)), dtype=np.intp).reshape(-1, 2)
    pool = _pool(X, len(pairs))
    gaps = _gaps(X[pool], pairs, predict)
    largest = gaps.max(axis=1, initial=0)
    is_visible = largest > 10 * TOLERANCE
    shows = gaps[is_visible] >= np.minimum(CLEAR, largest[is_visible, np.newaxis] / 2)
    rows = [int(row) for row in pool[_cover(shows)]]
    rows += _rare(X, pairs[~is_visible], predict)
    rows = list(dict.fromkeys(rows))
    others = [int(row) for row in pool if row not in set(rows)]
    return sorted(rows + others[: max(0, ROWS - len(rows))])


def _cover(shows: npt.NDArray[np.bool_]) -> list[int]:
    """Columns of `shows` (m, n) such that every row is true in one of them: greedily, the one with the most first."""
    chosen: list[int] = []
    left = np.ones(len(shows), dtype=bool)
    while left.any():
        best = int(shows[left].sum(axis=0).argmax())
        chosen.append(best)
        left &= ~shows[:, best]
    return chosen


def _rare(X: Matrix, pairs: npt.NDArray[np.intp], predict: Predict) -> list[int]:
    """For each pair that the pool does not show, the row that shows it best, if one does."""
    if not len(pairs):
        return []
    sample = np.unique(np.linspace(0, len(X) - 1, max(1, min(len(X), MAX_SCORED // len(pairs)))).astype(np.intp))
    gaps = _gaps(X[sample], pairs, predict)
    return [int(sample[gap.argmax()]) for gap in gaps if gap.max() > 10 * TOLERANCE]


def _pool(X: Matrix, pairs: int) -> npt.NDArray[np.intp]:
    """Row numbers: evenly spread ones, and those with the least and the largest value of every input."""
    size = min(len(X), max(ROWS, min(POOL_ROWS, MAX_SCORED // max(1, pairs))))
    spread = np.linspace(0, len(X) - 1, size).astype(np.intp)
    return np.array(list(dict.fromkeys([*X.argmin(axis=0), *X.argmax(axis=0), *spread])), dtype=np.intp)


def _gaps(X: Matrix, pairs: npt.NDArray[np.intp], predict: Predict) -> npt.NDArray[np.float32]:
    """By how much swapping each pair (m, 2) of inputs changes each row's prediction: (m, n)."""
    before = predict(X)
    gaps = np.zeros((len(pairs), len(X)), dtype=np.float32)
    step = max(1, SCORED_AT_ONCE // len(X))
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        swapped = np.repeat(X[np.newaxis], len(some), axis=0)
        for number, (first, second) in enumerate(some):
            swapped[number][:, [first, second]] = X[:, [second, first]]
        after = predict(swapped.reshape(-1, X.shape[1]))
        gaps[start : start + step] = np.abs(after.reshape(len(some), len(X)) - before)
    return gaps
