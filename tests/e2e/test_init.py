"""`churn init` drafts contracts of tables of several shapes, and `churn check` accepts each draft."""

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest

import tables
from project import SMALL, Project, clone
from s3_server import new_bucket

Table = Callable[[Path], Path]

SHAPES: dict[str, tuple[Table, tuple[str, ...]]] = {
    "monthly": (tables.monthly, ()),
    "many categories": (tables.many_categories, ("--label", "Status")),
    "dates and nulls": (tables.dates_and_nulls, ()),
    "three percent": (tables.three_percent, ()),
    "german": (tables.german, ("--entity", "Kunden-Nr.", "--timestamp", "Stichtag", "--label", "gekündigt")),
    "hostile names": (tables.hostile_names, ("--entity", "Customer ID")),
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("shipped")
    yield clone(folder / "churn", folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(shipped: Project) -> Iterator[Project]:
    """The clone as committed."""
    yield shipped
    shipped.run("git", "reset", "--quiet", "--hard")
    shipped.run("git", "clean", "--quiet", "--force", "-d", "-x")


def contract(project: Project) -> str:
    return project.read("src/churn/contract.py")


@pytest.mark.parametrize(("table", "options"), SHAPES.values(), ids=SHAPES)
def test_a_draft_has_no_mistakes_and_is_formatted(
    project: Project, tmp_path: Path, table: Table, options: tuple[str, ...]
) -> None:
    project.run("churn", "init", str(table(tmp_path)), *options, "--yes")

    assert "no mistakes" in project.run("churn", "check")
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--check", "src/churn/contract.py", "src/churn/features.py"]
    subprocess.run(ruff, cwd=project.folder, check=True)
    assert "DECIDE:" in contract(project)
    assert "docs/contract.md says how to write a rule" in contract(project)


def test_the_table_takes_the_place_of_the_shipped_one_and_of_its_results(project: Project, tmp_path: Path) -> None:
    (project.folder / "mlflow.db").touch()
    (project.folder / "data/online").mkdir()

    printed = project.run("churn", "init", str(tables.monthly(tmp_path)), "--yes")

    assert [each.name for each in (project.folder / "data/raw").iterdir()] == ["accounts.csv"]
    assert not (project.folder / "mlflow.db").exists()
    assert not (project.folder / "data/online").exists()
    assert "deletes: data/raw/customers.csv, mlflow.db, data/online" in printed


def test_nothing_changes_without_a_confirmation(project: Project, tmp_path: Path) -> None:
    printed = project.run("churn", "init", str(tables.monthly(tmp_path)), exit_code=1)

    assert "expected --yes" in printed
    assert project.run("git", "status", "--porcelain") == ""


def test_uncommitted_changes_are_not_overwritten(project: Project, tmp_path: Path) -> None:
    path = project.folder / "src/churn/features.py"
    path.write_text(path.read_text() + "# mine\n")

    printed = project.run("churn", "init", str(tables.monthly(tmp_path)), "--yes", exit_code=1)

    assert printed.count("\n") == 1
    assert "src/churn/features.py" in printed
    assert path.read_text().endswith("# mine\n")


def test_one_line_names_the_missing_options_and_the_likely_columns(project: Project, tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": range(100), "b": [0, 1] * 50, "c": ["x", "y"] * 50})
    rows.to_csv(tmp_path / "plain.csv", index=False)

    printed = project.run("churn", "init", str(tmp_path / "plain.csv"), "--yes", exit_code=1)

    assert printed.count("\n") == 1
    assert "--label" in printed
    assert "likely: b, c" in printed
    assert "--entity" in printed


def test_a_person_at_a_terminal_is_asked_for_what_is_not_obvious(project: Project, tmp_path: Path) -> None:
    rows = pd.read_csv(tables.hostile_names(tmp_path)).rename(columns={"Customer ID": "who", "Churn": "gone"})
    rows.assign(gone=rows.gone.map({"Yes": "A", "No": "B"})).to_csv(tmp_path / "asked.csv", index=False)
    person, terminal = pty.openpty()

    os.write(person, b"gone\nwho\nA\ny\n")
    command = ["churn", "init", str(tmp_path / "asked.csv")]
    subprocess.run(command, cwd=project.folder, env=project.environment, stdin=terminal, check=True, capture_output=True)

    assert 'Flag("A", "B")' in contract(project)
    assert 'name="who", kind=Text()' in contract(project)


def test_a_column_named_like_the_missing_timestamp_is_not_taken_for_it(project: Project, tmp_path: Path) -> None:
    rows = pd.read_csv(tables.hostile_names(tmp_path)).assign(event_timestamp=7)
    rows.to_csv(tmp_path / "odd.csv", index=False)

    project.run("churn", "init", str(tmp_path / "odd.csv"), "--entity", "Customer ID", "--yes")

    assert 'name="snapshot_time"' in contract(project)
    assert "no mistakes" in project.run("churn", "check")


def test_a_database_stays_where_it_is_and_is_checked_there(project: Project, tmp_path: Path) -> None:
    source = f"sqlite:///{tables.database(tmp_path)}"

    printed = project.run("churn", "init", source, "--yes")

    assert f"CHURN_SOURCE={source}" in printed
    assert list((project.folder / "data/raw").iterdir()) == []
    assert "no mistakes" in project.run("churn", "check", environment={"CHURN_SOURCE": source})


def test_a_table_in_object_storage_stays_there_and_is_checked_there(project: Project, tmp_path: Path, s3: str) -> None:
    bucket = new_bucket(s3)
    rows = pd.read_parquet(tables.dates_and_nulls(tmp_path))
    for name, part in (("1", rows.head(1000)), ("2", rows.tail(1500))):
        part.to_parquet(tmp_path / f"{name}.parquet", index=False)
        boto3.client("s3", endpoint_url=s3).upload_file(tmp_path / f"{name}.parquet", bucket, f"crm/{name}.parquet")
    source = f"s3://{bucket}/crm"
    storage = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    printed = project.run("churn", "init", source, "--yes", environment=storage)

    assert f"CHURN_SOURCE={source}" in printed
    assert list((project.folder / "data/raw").iterdir()) == []
    assert "no mistakes" in project.run("churn", "check", environment=storage | {"CHURN_SOURCE": source})


def test_a_column_that_gives_the_label_away_is_left_out_with_its_auc(project: Project, tmp_path: Path) -> None:
    project.run("churn", "init", str(tables.dates_and_nulls(tmp_path)), "--yes")

    line = next(line for line in contract(project).splitlines() if "closed_on" in line)
    assert line.startswith("    # DECIDE: left out closed_on")
    assert "ROC-AUC 1.000" in line


def test_dates_nulls_and_texts_with_many_values_get_the_kinds_that_they_need(project: Project, tmp_path: Path) -> None:
    project.run("churn", "init", str(tables.dates_and_nulls(tmp_path)), "--yes")
    dates = contract(project)
    project.run("git", "reset", "--quiet", "--hard")
    project.run("churn", "init", str(tables.many_categories(tmp_path)), "--label", "Status", "--yes")

    assert 'Column(name="joined", kind=Date(), description="Joined")' in dates
    assert 'kind=Category(("android", "ios", "web")), null_as="missing"' in dates
    assert 'Column(name="push", kind=Flag(), null_as="missing", description="Push")' in dates
    assert 'Column(name="rating", kind=Integer(0, 20), null_as=-1, description="Rating")' in dates
    assert 'Column(name="model", kind=Grouped(commonest=20), source="Model", description="Model")' in contract(project)


def test_several_columns_can_be_the_key(project: Project, tmp_path: Path) -> None:
    rows = pd.concat(map(pd.read_csv, sorted(tables.three_percent(tmp_path).iterdir())))
    rows = rows.assign(account=rows.id // 2, line=rows.id % 2).drop(columns="id")
    rows.to_csv(tmp_path / "lines.csv", index=False)

    project.run("churn", "init", str(tmp_path / "lines.csv"), "--entity", "account,line", "--yes")

    assert 'source=("account", "line")' in contract(project)
    assert "no mistakes" in project.run("churn", "check")


@pytest.mark.slow
def test_a_draft_trains_a_model(project: Project, tmp_path: Path) -> None:
    project.run("churn", "init", str(tables.dates_and_nulls(tmp_path)), "--yes")
    for key, value in SMALL.items():
        project.set(key, value)

    project.run("churn", "repro")

    assert "1 " in project.run("churn", "models")


def test_identifiers_texts_constants_and_copies_are_left_out_with_the_reason(project: Project, tmp_path: Path) -> None:
    project.run("churn", "init", str(tables.many_categories(tmp_path)), "--label", "Status", "--yes")

    text = contract(project)
    for left_out in (
        "InvoiceNo: another identifier",
        "Notes: free text",
        "Country: constant",
        "UsageGB copy: the same values as",
    ):
        assert f"left out {left_out}" in text
    assert 'name="postcode", kind=Category' in " ".join(text.split()).replace("( name", "(name")
    assert 'Flag("churned", "stayed")' in text


def test_a_file_that_the_pipeline_cannot_read_is_rewritten(project: Project, tmp_path: Path) -> None:
    table = tables.german(tmp_path)

    project.run("churn", "init", str(table), "--entity", "Kunden-Nr.", "--timestamp", "Stichtag", "--label", "gekündigt", "--yes")

    rows = pd.read_csv(project.folder / "data/raw/kunden.csv")
    original = pd.read_csv(table, sep=";", encoding="cp1252", decimal=",")
    assert list(rows["Umsatz €"]) == list(original["Umsatz €"])
    assert rows["Anrufe_2"].isna().sum() == original["Anrufe.1"].isna().sum() > 0
    assert set(rows["Stichtag"]) == {"2026-06-30T00:00:00Z"}
    assert 'name="groesse_m2"' in contract(project)


def test_the_draft_of_a_table_without_a_date_runs_through_the_first_stage(project: Project, tmp_path: Path) -> None:
    shutil.copy(project.folder / "data/raw/customers.csv", tmp_path / "members.csv")
    project.run("churn", "init", str(tmp_path / "members.csv"), "--yes")

    project.run("churn", "prepare")

    assert (project.folder / "data/prepared/train.parquet").exists()


def test_a_run_stops_before_its_first_stage_if_the_contract_has_mistakes(project: Project) -> None:
    path = project.folder / "src/churn/contract.py"
    path.write_text(
        path.read_text().replace("Integer(0, 720)", "Integer(720, 0)").replace('Slice("commitment")', 'Slice("terms")')
    )

    printed = project.run("churn", "repro", exit_code=1)

    assert "Running stage" not in printed
    assert "member_months: expected the lower bound first" in printed
    assert "terms: expected a feature" in printed
    assert "Traceback" not in printed


def test_wrong_values_are_left_to_the_first_stage_which_keeps_their_rows(project: Project) -> None:
    path = project.folder / "data/raw/customers.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[:2, "MonthlyFee"] = ""
    rows.to_csv(path, index=False)

    printed = project.run("churn", "repro", exit_code=1)

    assert "Running stage 'prepare'" in printed
    assert len(pd.read_csv(project.folder / "data/quarantine/rows.csv")) == 3


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [("train.model", "xgb", "train.model"), ("evaluate.gate.trusted_columns", ["tenor"], "trusted_columns")],
)
def test_parameters_that_fit_no_model_or_feature_stop_a_run_before_its_first_stage(
    project: Project, key: str, value: object, named: str
) -> None:
    project.set(key, value)

    checked = project.run("churn", "check", exit_code=1)
    printed = project.run("churn", "repro", exit_code=1)

    assert named in checked
    assert named in printed
    assert "Running stage" not in printed


def test_a_contract_that_does_not_run_is_one_line(project: Project, tmp_path: Path) -> None:
    path = project.folder / "src/churn/contract.py"
    path.write_text(path.read_text().replace("SNAPSHOT = ", "SNAPSHOT = ("))

    printed = project.run("churn", "init", str(tables.monthly(tmp_path)), "--yes", exit_code=1)

    assert printed.count("\n") == 1
    assert "churn check" in printed


def test_a_folder_that_is_no_project_is_one_line(project: Project, tmp_path: Path) -> None:
    (project.folder / "params.yaml").unlink()
    project.run("git", "commit", "--quiet", "--all", "--message", "Remove the parameters")

    printed = project.run("churn", "init", str(tables.monthly(tmp_path)), "--yes", exit_code=1)
    project.run("git", "reset", "--quiet", "--hard", "HEAD~1")

    assert printed.count("\n") == 1
    assert "params.yaml" in printed
