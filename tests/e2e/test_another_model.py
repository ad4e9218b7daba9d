"""A model that the project does not have takes one file and one section of params.yaml: the example of docs/adopting.md.

It has no explanation, and goes through training, ONNX, gate, batch scoring, server and watcher without one.
"""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier

from churn.contract import ENTITY, LABEL, RAW_FEATURES, TIMESTAMP
from churn.domain import metrics
from churn.domain.encoding import encode
from churn.features import FEATURES
from churn.settings import Monitoring
from monitoring.watcher import Watcher
from project import Project, clone
from served import ROOT, Releases, Running, as_sent, servers
from serving.examples import EXAMPLE

CODE, SECTION = re.findall(
    r"^```(?:python|yaml)\n(.*?)^```", (ROOT / "docs/adopting.md").read_text().partition("## Another model")[2], re.S | re.M
)[:2]
PARAMS = yaml.safe_load(SECTION)["train"]
PARAMS["random_forest"]["n_estimators"] = 40
FASTER = {"histories": [1.0], "inner_folds": 2, "cv_folds": 2, "cv_repeats": 1}
FEWER = {"bootstrap_samples": 100}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone with the file and the section, in which the pipeline ran."""
    folder = tmp_path_factory.mktemp("forest")
    project = clone(folder / "churn", folder / "home")
    (project.folder / "src/churn/models/random_forest.py").write_text(CODE)
    params = yaml.safe_load(project.read("params.yaml"))
    (project.folder / "params.yaml").write_text(
        yaml.safe_dump(
            params | {"train": params["train"] | PARAMS | FASTER, "evaluate": params["evaluate"] | FEWER}, sort_keys=False
        )
    )
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)


def read_json(project: Project, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.read(path))
    return found


@pytest.fixture(scope="module")
def frame_of(project: Project) -> Any:
    """The rows of one side of the split, with their features."""

    @cache
    def joined(side: str) -> pd.DataFrame:
        labels = pd.read_parquet(project.folder / f"data/prepared/{side}.parquet", columns=[ENTITY, TIMESTAMP, LABEL])
        return labels.merge(pd.read_parquet(project.folder / "data/features/customers.parquet"), on=[ENTITY, TIMESTAMP])

    return joined


@pytest.fixture(scope="module")
def forest(project: Project, frame_of: Any) -> Any:
    """The same forest, fitted by scikit-learn alone."""
    rows = read_json(project, "metrics/train.json")["hyperparameters"]["min_samples_leaf"]
    estimator = RandomForestClassifier(PARAMS["random_forest"]["n_estimators"], min_samples_leaf=rows, random_state=7)
    frame = frame_of("train")
    return estimator.fit(encode(frame), frame[LABEL].astype(bool))


def probabilities(forest: Any, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = forest.predict_proba(encode(frame))[:, 1]
    return found


def test_adding_a_model_changes_only_its_file_and_params(project: Project) -> None:
    status = project.run("git", "status", "--porcelain", "--", ".", *(f":!{made}" for made in ("dvc.lock", "metrics", "plots")))

    assert status.splitlines() == [" M params.yaml", "?? src/churn/models/random_forest.py"]


def test_hyperparameters_are_chosen_by_cross_validation(project: Project) -> None:
    chosen = read_json(project, "metrics/train.json")["hyperparameters"]["min_samples_leaf"]

    assert chosen in PARAMS["random_forest"]["leaves"]
    assert re.search(rf"min_samples_leaf=20 → 0\.\d+.*; chosen: random_forest min_samples_leaf={chosen}, ", project.first_output)
    assert f"Algorithm: random_forest, min_samples_leaf {chosen}: of 2 candidates" in project.run("churn", "card", "1")


def test_the_gate_promotes_it_with_scikit_learns_metrics(project: Project, frame_of: Any, forest: Any) -> None:
    tested = frame_of("test")
    y, p = tested[LABEL].to_numpy(dtype=bool), probabilities(forest, tested)
    # evaluate.newest_rows of the same time stay together: all test rows are evaluated.
    found = read_json(project, "metrics/evaluate.json")["test"]

    assert "version 1 is now production" in project.first_output
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc(y, p), abs=1e-5)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), abs=1e-5)
    assert 0.83 < read_json(project, "metrics/train.json")["cv"]["roc_auc"] < 0.86


def test_the_version_has_importance_and_no_explanation(project: Project) -> None:
    folder = project.folder / "models/candidate"
    shares = read_json(project, "models/candidate/importance.json")

    assert not (folder / "explain.json").exists()
    assert "explain.json" not in read_json(project, "models/candidate/manifest.json")["files"]
    assert list(shares) == [each.name for each in FEATURES]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    assert {"commitment", "member_months"} & set(sorted(shares, key=lambda name: -shares[name])[:5])
    assert shares["language"] < 0.02


def test_the_new_model_scores_a_file(project: Project, frame_of: Any, forest: Any) -> None:
    project.run("churn", "score", "data/raw/customers.csv", "scored.parquet")

    scored = pd.read_parquet(project.folder / "scored.parquet").set_index("customer_id").churn_probability
    tested = frame_of("test")
    np.testing.assert_allclose(scored.loc[tested[ENTITY]], probabilities(forest, tested), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server logs its predictions."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(project: Project, events: Path) -> Iterator[Running]:
    with servers(Releases(project.folder), events) as start:
        yield start().ready()


def test_the_server_scores_in_every_protocol_and_refuses_explanations(server: Running, frame_of: Any, forest: Any) -> None:
    some = frame_of("test").head(50)
    given, expected = as_sent(some), probabilities(forest, some)
    names = [each.name for each in RAW_FEATURES]

    own = server.predict(given).json()["predictions"]
    mlflow = server.http.post("/invocations", json={"dataframe_records": [{name: row[name] for name in names} for row in given]})
    refused = server.http.post("/explain", json={"customers": given})

    np.testing.assert_allclose([each["churn_probability"] for each in own], expected, atol=1e-5)
    np.testing.assert_allclose([each["churn_probability"] for each in mlflow.json()["predictions"]], expected, atol=1e-5)
    assert server.http.get("/v2/models/churn/ready").status_code == 200
    assert refused.status_code == 404
    assert refused.json()["detail"].startswith("version 1 has no explanation")


def test_the_page_shows_the_score_without_reasons(server: Running) -> None:
    form = {name: str(EXAMPLE[name]) for name in (each.name for each in RAW_FEATURES)}
    form = {name: value.lower() if value in ("True", "False") else value for name, value in form.items()}
    headers = {"content-type": "application/x-www-form-urlencoded"}

    page = server.http.post("/page/score", content=urlencode(form), headers=headers)

    (scored,) = server.predict([{name: EXAMPLE[name] for name in form}]).json()["predictions"]
    assert page.status_code == 200
    assert f"{100 * scored['churn_probability']:.1f}" in page.text
    assert "reasons" not in re.findall(r'<ol class="(\w+)"', page.text)


def test_the_watcher_compares_its_predictions_with_its_reference(
    project: Project, server: Running, events: Path, frame_of: Any, tmp_path: Path
) -> None:
    everyone = as_sent(pd.concat([frame_of("train"), frame_of("test")]).sample(600, random_state=0))
    for start in range(0, 600, 100):
        assert server.predict(everyone[start : start + 100]).status_code == 200
    settings = Monitoring(
        MLFLOW_TRACKING_URI=f"sqlite:///{project.folder}/mlflow.db",
        events=str(events / "events"),
        monitor=str(tmp_path / "monitoring"),
        reports=tmp_path / "monitoring/reports",
        interval_s=1,
    )
    server.stop()  # which writes what it has logged

    decision = Watcher(settings).check(datetime.now(UTC) + timedelta(seconds=1))

    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "monitoring/checks").glob("*.json"))
    shares = read_json(project, "models/candidate/importance.json")
    assert decision
    assert record["windows"][0]["rows"] >= 600
    assert record["windows"][0]["verdict"] in ("clean", "between")
    marked = {each["name"] for each in record["windows"][0]["drift"]["features"] if each["is_important"]}
    assert marked == set(sorted(shares, key=lambda name: -shares[name])[:5])


def test_a_model_without_a_module_is_refused_in_one_line(project: Project) -> None:
    before = project.read("params.yaml")
    project.set("train.model", "gradient_forest")

    refused = project.run("churn", "train", exit_code=1)

    (project.folder / "params.yaml").write_text(before)
    assert refused == (
        "churn: params.yaml: train.model: expected one of auto, gradient_boosting, hist_gradient_boosting, logistic_regression, "
        "random_forest, got 'gradient_forest'; correct it, or add a file to src/churn/models\n"
    )
