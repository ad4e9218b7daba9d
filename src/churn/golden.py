"""The golden rows of a version: real rows whose predictions, stored with it, it must repeat wherever it runs.

They are chosen so that a model that gets any two of its inputs in the wrong order gives some of them another probability.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from churn.features import Matrix

TOLERANCE = 1e-6
"""How far a prediction may lie from the stored one. Source: float32 arithmetic of two processors differs by 1e-7."""
ROWS = 32
"""How many rows are stored at least, if there are so many."""
POOL_ROWS = 300
"""From how many rows they are chosen, at most."""
MAX_SCORED = 2_000_000
"""How many rows are scored to choose them; with very many inputs the pool is smaller."""
CLEAR = 1e-3
"""A swap that changes a prediction by this is clear; where no row shows it so clearly, half of the largest change must do."""

Predict = Callable[[Matrix], npt.NDArray[np.float64]]
"""(n,) probabilities of (n, k) inputs."""


def choose(X: Matrix, predict: Predict) -> list[int]:
    """The numbers of the rows of `X` (n, k) to store.

    Swapping two inputs changes the prediction of one of them by more than `TOLERANCE` wherever it changes any row of the pool by
    ten times that. A swap of inputs that the model ignores, or that are always equal, changes nothing and cannot be seen.
    """
    pool = _pool(X)
    gaps = _gaps(X[pool], predict)
    largest = gaps.max(axis=1, initial=0)
    visible = gaps[largest > 10 * TOLERANCE]
    shows = visible >= np.minimum(CLEAR, visible.max(axis=1, keepdims=True, initial=0) / 2)
    chosen: list[int] = []
    left = np.ones(len(shows), dtype=bool)
    while left.any():  # greedy set cover; every pair is shown by the row with its largest gap
        best = int(shows[left].sum(axis=0).argmax())
        chosen.append(best)
        left &= ~shows[:, best]
    rows = [int(pool[row]) for row in chosen]
    others = [int(row) for row in pool if row not in set(rows)]
    return sorted(rows + others[: max(0, ROWS - len(rows))])


def _pool(X: Matrix) -> npt.NDArray[np.intp]:
    """Row numbers: evenly spread ones, and those with the least and the largest value of every input."""
    pairs = max(1, X.shape[1] * (X.shape[1] - 1) // 2)
    size = min(len(X), max(ROWS, min(POOL_ROWS, MAX_SCORED // pairs)))
    spread = np.linspace(0, len(X) - 1, size).astype(np.intp)
    return np.array(list(dict.fromkeys([*X.argmin(axis=0), *X.argmax(axis=0), *spread])), dtype=np.intp)


def _gaps(X: Matrix, predict: Predict) -> npt.NDArray[np.float32]:
    """By how much swapping each pair of inputs changes each row's prediction: (k·(k − 1) / 2, n)."""
    rows, columns = X.shape
    before = predict(X)
    gaps = [np.zeros((0, rows), dtype=np.float32)]
    for first in range(columns - 1):
        others = range(first + 1, columns)
        swapped = np.repeat(X[np.newaxis], len(others), axis=0)
        for number, other in enumerate(others):
            swapped[number][:, [first, other]] = X[:, [other, first]]
        after = predict(swapped.reshape(-1, columns)).reshape(len(others), rows)
        gaps.append(np.abs(after - before).astype(np.float32))
    return np.concatenate(gaps)
