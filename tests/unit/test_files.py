import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from churn.adapters.files import atomic_path, rounded, write_json, write_parquet


def write_half_a_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def write_half_a_folder(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
        raise OSError("disk full")


def test_a_file_is_written_with_its_parent_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"

    with atomic_path(path) as temporary:
        temporary.write_text("whole")

    assert path.read_text() == "whole"


def test_the_old_file_exists_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    with atomic_path(path) as temporary:
        temporary.write_text("new")
        meanwhile = path.read_text()

    assert meanwhile == "old"
    assert path.read_text() == "new"


def test_a_failure_keeps_the_old_file_without_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    with pytest.raises(OSError, match="disk full"):
        write_half_a_file(path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_without_an_old_file_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_half_a_file(tmp_path / "file.txt")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_atomically(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "old.txt").write_text("old")

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")

    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failure_keeps_the_old_folder_without_a_temporary_one(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "old.txt").write_text("old")

    with pytest.raises(OSError, match="disk full"):
        write_half_a_folder(folder)

    assert [path.name for path in folder.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_leftovers_of_a_killed_process_with_the_same_pid_are_replaced(tmp_path: Path) -> None:
    left = tmp_path / f".reports.{os.getpid()}"
    left.mkdir()
    (left / "stale.txt").write_text("stale")

    with atomic_path(tmp_path / "reports") as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")

    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["new.txt"]
    assert not left.exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.123456789, 0.123457),
        (np.float64(2 / 3), 0.666667),
        (float("nan"), None),
        (float("inf"), None),
        (3, 3),
        (True, True),
        ("0.123456789", "0.123456789"),
        (None, None),
        ((0.1234567, [1.0, {"a": 0.9999999}]), [0.123457, [1.0, {"a": 1.0}]]),
    ],
)
def test_floats_are_rounded_wherever_they_are_nested(value: Any, expected: Any) -> None:
    assert rounded(value) == expected


def test_json_keeps_the_order_of_keys_and_ends_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"

    write_json({"b": 1 / 3, "a": float("nan")}, path)

    assert path.read_text() == '{\n  "b": 0.333333,\n  "a": null\n}\n'


def test_json_has_the_requested_number_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"

    write_json({"p": 0.1234567891234}, path, digits=9)

    assert json.loads(path.read_text()) == {"p": 0.123456789}


def test_values_that_json_cannot_store_keep_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json({"a": 1}, path)

    with pytest.raises(TypeError):
        write_json({"a": object()}, path)

    assert json.loads(path.read_text()) == {"a": 1}


def test_parquet_is_written_without_the_index(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"

    write_parquet(pd.DataFrame({"a": [1, 2]}, index=[7, 8]), path)

    pd.testing.assert_frame_equal(pd.read_parquet(path), pd.DataFrame({"a": [1, 2]}))
