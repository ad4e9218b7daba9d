"""The tests run on the tables of their own company, whatever the user's contract is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import churn.contract
from churn.contract import COLUMNS
from company import tables
from copied import merged, with_tables
from split_run import parts

ROOT = Path(__file__).parents[2]


def test_the_tests_run_on_the_companys_tables() -> None:
    assert Path(churn.contract.__file__).is_relative_to(ROOT)
    assert [column.name for column in COLUMNS] == [column.name for column in tables.COLUMNS]


@pytest.mark.parametrize("program", [("python", "-m", "churn"), ("churn",)], ids=" ".join)
def test_programs_that_tests_start_have_the_companys_tables(program: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text("shoe_size\n42\n")
    command = [str(Path(sys.executable).with_name(program[0])), *program[1:], "ingest"]

    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CHURN_SOURCE": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert f"missing columns: {tables.COLUMNS[0].source}" in done.stderr


def test_tables_take_the_place_of_others_and_bring_their_imports() -> None:
    contract = (ROOT / "src/churn/contract.py").read_text()
    head, _, rest = contract.partition("FEATURE_TTL = ")
    other = f"{head}# a comment\nFEATURE_TTL = None\nCOLUMNS = ()\n\n\n{rest[rest.index('def of_role') :]}"
    for line in ("from functools import reduce\n", "from datetime import UTC, datetime, timedelta\n"):
        other = other.replace(line, "")
    found: dict[str, object] = {}

    exec(with_tables(other, (ROOT / "tests/support/company/tables.py").read_text()), found)

    assert found["COLUMNS"] == tables.COLUMNS
    assert found["PROTECTED"] == tables.PROTECTED
    assert "of_role" in found


def test_parameters_of_the_company_win_and_others_stay() -> None:
    shipped = {"train": {"model": "mine", "mine": {"trees": 3}}, "tune": {"trials": 1}}

    assert merged(shipped, {"train": {"model": "auto"}}) == {
        "train": {"model": "auto", "mine": {"trees": 3}},
        "tune": {"trials": 1},
    }


@pytest.mark.parametrize(
    ("arguments", "here", "there"),
    [
        (["tests/unit/test_gate.py::test_a"], [], ["tests/unit/test_gate.py::test_a"]),
        (["tests/dataset/test_rows.py::test_a[1]"], ["tests/dataset/test_rows.py::test_a[1]"], []),
        (["tests/dataset", "tests/e2e"], ["tests/dataset"], ["tests/e2e"]),
        (["."], ["tests/dataset", "tests/demo"], ["."]),
    ],
)
def test_tests_of_the_users_table_run_here_and_all_others_in_the_copy(
    arguments: list[str], here: list[str], there: list[str], tmp_path: Path
) -> None:
    folders = [tmp_path / "tests/dataset", tmp_path / "tests/demo"]
    for folder in folders:
        folder.mkdir(parents=True)

    found_here, found_there = parts(arguments, tmp_path, folders)

    assert [argument.removeprefix(f"{tmp_path}/") for argument in found_here] == here
    assert found_there == there
