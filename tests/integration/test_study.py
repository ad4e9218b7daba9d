"""The search itself, where Optuna is installed: `make test-tune`."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from churn.adapters.study import Point, Study, Trial
from churn.errors import ConfigError
from churn.params import Range

pytest.importorskip("optuna", reason="needs the group tune: make test-tune")

RANGES = {"depth": Range(low=1, high=6), "rate": Range(low=0.01, high=1.0, log=True)}


def losses(point: Point) -> Iterator[float]:
    """Three folds; the best is depth 3 and rate 0.1."""
    for fold in range(3):
        yield abs(point["depth"] - 3) + abs(point["rate"] - 0.1) + 0.001 * fold


def searched(path: Path, trials: int, *, seed: int = 7, points: list[Point] | None = None) -> list[Trial]:
    found: list[Trial] = []
    study = Study(str(path), "search", RANGES, seed)
    study.enqueue(points or [])
    study.run(trials, losses, found.append)
    return found


def interrupting(after: int) -> Callable[[Point], Iterator[float]]:
    tried = count()

    def until_interrupted(point: Point) -> Iterator[float]:
        if next(tried) == after:
            raise KeyboardInterrupt
        yield from losses(point)

    return until_interrupted


def test_values_lie_in_their_ranges_and_whole_numbers_stay_whole(tmp_path: Path) -> None:
    found = searched(tmp_path / "study.journal", 12)

    assert all(isinstance(each.point["depth"], int) and 1 <= each.point["depth"] <= 6 for each in found)
    assert all(0.01 <= each.point["rate"] <= 1 for each in found)


def test_the_best_point_is_the_one_with_the_least_loss(tmp_path: Path) -> None:
    found = searched(tmp_path / "study.journal", 20)

    best = min((each for each in found if not each.pruned), key=lambda each: each.loss)
    assert Study(str(tmp_path / "study.journal"), "search", RANGES, 7).best == best.point


def test_the_current_points_are_tried_first(tmp_path: Path) -> None:
    points: list[Point] = [{"depth": 2, "rate": 0.3}, {"depth": 5, "rate": 0.02}]

    found = searched(tmp_path / "study.journal", 3, points=points)

    assert [each.point for each in found[:2]] == points


def test_the_same_seed_tries_the_same_points(tmp_path: Path) -> None:
    one, same, other = (searched(tmp_path / name, 12, seed=seed) for name, seed in (("a", 7), ("b", 7), ("c", 8)))

    assert one == same
    assert one != other


def test_a_hopeless_point_is_pruned_before_its_last_fold(tmp_path: Path) -> None:
    found = searched(tmp_path / "study.journal", 20)

    assert any(each.pruned and each.folds < 3 for each in found)
    assert all(each.folds == 3 for each in found if not each.pruned)


def test_an_interrupted_search_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep/study.journal"
    study = Study(str(path), "search", RANGES, 7)
    with pytest.raises(KeyboardInterrupt):
        study.run(10, interrupting(4), lambda _: None)
    assert study.finished == 4

    rest = searched(path, 10)

    assert len(rest) == 6
    assert Study(str(path), "search", RANGES, 7).finished == 10


def test_a_current_point_that_was_interrupted_is_tried_again(tmp_path: Path) -> None:
    path, current = tmp_path / "study.journal", {"depth": 2, "rate": 0.3}
    study = Study(str(path), "search", RANGES, 7)
    study.enqueue([current])
    with pytest.raises(KeyboardInterrupt):
        study.run(3, interrupting(0), lambda _: None)

    found = searched(path, 3, points=[current])

    assert [each.point for each in found].count(current) == 1


def test_a_finished_search_tries_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    searched(path, 3)

    assert searched(path, 3) == []
    assert len(searched(path, 5)) == 2


def test_two_names_in_one_file_are_two_searches(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    searched(path, 3)

    assert Study(str(path), "another", RANGES, 7).finished == 0


@pytest.mark.parametrize("storage", ["postgresql://nobody:secret@127.0.0.1:1/none", "nosuch://place"])
def test_a_storage_out_of_reach_is_one_line_without_the_password(storage: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Study(storage, "search", RANGES, 7)

    assert str(refused.value).startswith("CHURN_TUNE_STORAGE = ")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_workers_share_a_search_in_postgresql(postgres_url: str) -> None:
    found: list[Trial] = []
    first, second = (Study(postgres_url, "search", RANGES, 7) for _ in range(2))

    first.run(3, losses, found.append)
    second.run(5, losses, found.append)

    assert [each.number for each in found] == list(range(5))
    assert first.finished == second.finished == 5
