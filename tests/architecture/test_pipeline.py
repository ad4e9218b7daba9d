"""dvc.yaml, the stages as data, params.yaml, the import graph and the command line agree."""

from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from churn.cli import app
from churn.params import Params
from churn.pipeline import STAGES, Stage

ROOT = Path(__file__).parents[2]

PLACES = {"churn.domain.access", "churn.errors", "churn.params", "churn.paths", "churn.settings", "churn.pipeline.lineage"}
"""Modules that say where and how, not what: a change there cannot change a figure. (The values of params.yaml are watched.)"""

MODELS = "churn.models"

DATA = {
    "prepare": {"src/churn/adapters/templates/validation.html"},
    "featurize": {"src/churn/adapters/feast/feature_store.yaml"},
    "train": {"src/churn/adapters/feast/feature_store.yaml", "src/churn/adapters/mlflow/pyfunc.py"},
    "evaluate": {"src/churn/pipeline/templates/model_card.md"},
}
"""What a stage reads of the package that no import shows."""


@pytest.fixture(scope="module")
def dvc() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def names(entries: list[Any]) -> set[str]:
    return {next(iter(each)) if isinstance(each, dict) else each for each in entries}


def file_of(module: str) -> str:
    """The file that DVC watches; of the models the folder, as a model is imported by its name."""
    if module.startswith(MODELS):
        return "src/churn/models"
    path = Path("src", *module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def has_code(module: str) -> bool:
    """False for a package that is only a folder: its file has a docstring and nothing else."""
    path = ROOT / file_of(module)
    return path.is_dir() or "import" in path.read_text()


def test_dvc_runs_the_pipeline_stages_in_order(dvc: dict[str, Any]) -> None:
    assert list(dvc) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
class TestStage:
    def test_a_stage_name_is_its_module_and_command_name(self, dvc: dict[str, Any], stage: Stage) -> None:
        assert (ROOT / f"src/churn/pipeline/{stage.name}.py").exists()
        assert dvc[stage.name]["cmd"] == f"churn {stage.name}"
        assert stage.name in {command.callback.__name__ for command in app.registered_commands if command.callback}

    def test_dvc_deps_list_the_data_that_a_stage_reads(self, dvc: dict[str, Any], stage: Stage) -> None:
        watched = {name for name in names(dvc[stage.name]["deps"]) if not name.startswith("src/")}

        assert watched == {str(path) for path in stage.reads}

    def test_dvc_deps_list_the_code_that_a_stage_imports(self, dvc: dict[str, Any], stage: Stage) -> None:
        graph = grimp.build_graph("churn")
        module = f"churn.pipeline.{stage.name}"

        imported = {module, *graph.find_upstream_modules(module)}
        for model in graph.find_children(MODELS) if MODELS in imported else ():
            imported |= {model, *graph.find_upstream_modules(model)}
        imported -= PLACES

        watched = {name for name in names(dvc[stage.name]["deps"]) if name.startswith("src/")}
        assert watched == {file_of(name) for name in imported if has_code(name)} | DATA[stage.name]

    def test_dvc_outs_list_the_files_that_a_stage_writes(self, dvc: dict[str, Any], stage: Stage) -> None:
        kept = set().union(*(names(dvc[stage.name].get(kind, [])) for kind in ("outs", "metrics", "plots")))

        assert kept == {str(path) for path in stage.writes}

    def test_a_stage_depends_on_its_own_params_section_only(self, dvc: dict[str, Any], stage: Stage) -> None:
        section = [stage.name] if stage.name in Params.model_fields else []

        assert dvc[stage.name].get("params", []) == section

    def test_a_stage_with_side_effects_is_rerun_instead_of_restored_from_cache(self, dvc: dict[str, Any], stage: Stage) -> None:
        persistent = any(isinstance(each, dict) and next(iter(each.values())).get("persist") for each in dvc[stage.name]["outs"])

        assert persistent == bool(stage.touches)


def test_every_params_section_belongs_to_a_stage_or_the_search() -> None:
    assert set(Params.model_fields) <= {*STAGES, "tune"}
