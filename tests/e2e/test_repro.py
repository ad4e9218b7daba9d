"""`make repro` as users run it: real customers, real DVC, MLflow and Feast, in a clone."""

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from project import Project

pytestmark = pytest.mark.slow

STAGES = ("prepare", "featurize", "train", "evaluate")


def read_json(project: Project, path: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((project.folder / path).read_text())
    return found


def ran(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def production(project: Project) -> str:
    return next(line.split()[0] for line in project.run("churn", "models").splitlines() if "production" in line)


def test_repro_in_a_clean_clone_promotes_version_1(reproduced: Project) -> None:
    assert ran(reproduced.first_output) == list(STAGES)
    assert "version 1 is now production" in reproduced.first_output


def test_model_metrics_are_in_the_known_range_of_the_table(reproduced: Project) -> None:
    test = read_json(reproduced, "metrics/evaluate.json")["test"]

    assert 0.83 <= test["roc_auc"] <= 0.87
    assert test["log_loss"] <= 0.43


def test_a_second_run_runs_no_stage(reproduced: Project) -> None:
    output = reproduced.run("dvc", "repro")

    assert ran(output) == []
    assert "up to date" in output


def test_a_second_run_names_the_production_version(reproduced: Project) -> None:
    printed = reproduced.run("churn", "repro")

    assert printed.splitlines()[-1] == "nothing changed since version 1, which is in production"


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("prepare.test_fraction", 0.25, ["prepare", "featurize", "train", "evaluate"]),
        ("train.gradient_boosting.learning_rate", 0.05, ["train", "evaluate"]),
        ("evaluate.costs.offer", 50, ["evaluate"]),
    ],
)
def test_a_changed_parameter_reruns_its_stage_and_downstream_stages(
    reproduced: Project, key: str, value: float, stages: list[str]
) -> None:
    reproduced.set(key, value)

    would_run = ran(reproduced.run("dvc", "repro", "--dry"))

    reproduced.restore()
    assert would_run[0] == stages[0]
    assert set(would_run) <= set(stages)


def test_train_and_test_customers_are_disjoint(reproduced: Project) -> None:
    train, test = (pd.read_parquet(reproduced.folder / f"data/prepared/{side}.parquet") for side in ("train", "test"))

    assert len(train) + len(test) == 7043
    assert set(train.customer_id).isdisjoint(test.customer_id)


def test_offline_online_and_derived_features_are_the_same_for_a_thousand_customers(
    reproduced: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from churn.adapters.feast.store import Store
    from churn.domain.encoding import derive
    from churn.features import FEATURES
    from churn.settings import Settings

    monkeypatch.chdir(reproduced.folder)
    rows = pd.concat([pd.read_parquet(f"data/prepared/{side}.parquet") for side in ("train", "test")])
    rows = pd.concat([rows[rows.member_months == 0], rows.sample(1000, random_state=1)]).drop_duplicates("customer_id")
    offline = pd.read_parquet("data/features/customers.parquet").set_index("customer_id").loc[rows.customer_id]
    derived = pd.DataFrame(derive(rows)).set_index("customer_id")
    stored = Store(Path("data/features/customers.parquet"), Settings()).online(list(rows.customer_id))
    online = pd.DataFrame(stored).set_index("customer_id").loc[rows.customer_id]

    for name in (each.name for each in FEATURES):
        assert (
            offline[name].astype(object).where(offline[name].notna(), None).tolist()
            == online[name].astype(object).where(online[name].notna(), None).tolist()
        ), name
        pd.testing.assert_series_equal(offline[name], derived[name], check_categorical=False, check_dtype=False)


def test_the_mlflow_run_has_every_artifact_of_the_version(reproduced: Project) -> None:
    with sqlite3.connect(reproduced.folder / "mlflow.db") as database:
        metrics = dict(database.execute("SELECT key, COUNT(*) FROM metrics GROUP BY key"))
        params = {key for (key,) in database.execute("SELECT key FROM params")}
        datasets = list(database.execute("SELECT name, digest FROM datasets"))
        tags = dict(database.execute("SELECT key, value FROM model_version_tags"))
    artifacts = {path.name for path in (reproduced.folder / "mlruns").rglob("*") if path.is_file()}

    chosen = json.loads((reproduced.folder / "metrics/train.json").read_text())["hyperparameters"]
    assert metrics["log_loss.train"] == metrics["log_loss.held_out"] == chosen["n_estimators"]
    assert {"cv.roc_auc", "baseline_cv.roc_auc", "test.roc_auc", "test.log_loss", "threshold"} <= metrics.keys()
    assert {"model", "seed", "algorithm", "max_depth", "gradient_boosting.learning_rate"} <= params
    assert [name for name, _ in datasets] == ["train"]
    assert {"git_sha", "train_rows_sha256", "params", "uv_lock_sha256", "feast_service", "bundle_sha256", "gate"} <= tags.keys()
    prepared = pd.read_parquet(reproduced.folder / "data/prepared/train.parquet")
    assert tags["newest_row"] == prepared["event_timestamp"].max().isoformat()
    assert {"model.onnx", "manifest.json", "golden.json", "reference.parquet", "input_example.json", "MLmodel"} <= artifacts
    assert {"importance.png", "loss.png", "roc.png", "calibration.png", "model_card.md"} <= artifacts


def test_mlflow_loads_the_production_model_and_accepts_raw_columns(reproduced: Project) -> None:
    script = """
import json, mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/churn@production")
golden = json.load(open("models/candidate/golden.json"))
found = model.predict(pd.DataFrame(golden["customers"])).churn_probability
print(max(abs(found - golden["churn_probabilities"])) < 1e-6)
"""

    assert reproduced.run("python", "-W", "ignore", "-c", script).splitlines()[-1] == "True"


def test_lineage_prints_the_origin_of_a_version(reproduced: Project) -> None:
    commit = reproduced.run("git", "rev-parse", "HEAD").strip()

    printed = reproduced.run("churn", "lineage", "1")

    assert f"git_sha: {commit}\n" in printed
    assert all(
        name in printed for name in ("train_rows_sha256:", "uv_lock_sha256:", "feast_service: churn", "learning_rate: 0.1")
    )


def test_the_card_describes_the_requested_version(reproduced: Project) -> None:
    assert reproduced.run("churn", "card", "1").startswith("# Model card: churn\n\n**Promoted**")


def test_score_writes_a_probability_and_a_decision_per_customer(reproduced: Project) -> None:
    reproduced.run("churn", "score", "data/raw/customers.csv", "scored.csv")

    scored = pd.read_csv(reproduced.folder / "scored.csv")
    (reproduced.folder / "scored.csv").unlink()
    assert list(scored) == ["customer_id", "churn_probability", "churn", "model_version"]
    assert len(scored) == 7043
    assert scored.churn_probability.between(0, 1).all()


def test_a_refused_candidate_leaves_production_unchanged(reproduced: Project) -> None:
    champion = production(reproduced)
    reproduced.set("evaluate.gate.min_auc", 0.99)

    output = reproduced.run("dvc", "repro")

    assert ran(output) == ["evaluate"]
    assert "was not promoted" in output
    assert "roc_auc: 0.8" in output
    assert "≥ 0.99" in output
    assert production(reproduced) == champion
    assert "up to date" in reproduced.run("dvc", "status")
    reproduced.restore()
    reproduced.run("dvc", "repro")


def test_a_worse_model_does_not_replace_the_champion(reproduced: Project) -> None:
    champion = production(reproduced)
    reproduced.set("train.model", "gradient_boosting")
    reproduced.set("train.gradient_boosting.n_estimators", 8)

    output = reproduced.run("dvc", "repro")

    assert ran(output) == ["train", "evaluate"]
    assert "log_loss − champion's" in output
    assert production(reproduced) == champion
    reproduced.restore()
    assert ran(reproduced.run("dvc", "repro")) == ["evaluate"], "train comes back from the run cache"
    assert "up to date" in reproduced.run("dvc", "status")


def test_promote_and_rollback_move_the_alias_and_keep_its_history(reproduced: Project) -> None:
    champion = production(reproduced)
    other = next(line.split()[0] for line in reproduced.run("churn", "models").splitlines()[1:] if line.split()[0] != champion)

    reproduced.run("churn", "promote", other)
    promoted = production(reproduced)
    message = reproduced.run("churn", "rollback")

    assert promoted == other
    assert message == f"version {champion} is production again; {other} is not\n"
    assert production(reproduced) == champion
    assert "promoted_because: by hand" in reproduced.run("churn", "lineage", other)


def test_help_imports_no_heavy_library(reproduced: Project) -> None:
    message = reproduced.run("python", "-X", "importtime", "-m", "churn", "--help")

    loaded = {line.split("|")[-1].strip() for line in message.splitlines() if line.startswith("import time")}
    assert loaded.isdisjoint({"numpy", "pandas", "pyarrow", "sklearn", "mlflow", "feast", "great_expectations", "onnxruntime"})


def test_unlabelled_rows_can_be_scored(reproduced: Project) -> None:
    rows = pd.read_csv(reproduced.folder / "data/raw/customers.csv", dtype=str, keep_default_na=False)
    rows.drop(columns="Cancelled").head(50).to_csv(reproduced.folder / "unlabelled.csv", index=False)

    message = reproduced.run("churn", "score", "unlabelled.csv", "scored.parquet")

    assert "50 rows scored" in message
