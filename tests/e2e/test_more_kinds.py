"""A monthly table of telephone lines with the kinds that the tests' company lacks: the pipeline, every way in, both splits."""

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest

from more_kinds import REFUSED, TEXTS, TYPED
from project import SMALL, Project, clone, replace_between
from redis_server import RedisServer
from served import address

pytestmark = pytest.mark.slow

KINDS = Path(__file__).parent / "kinds"
LINES = 500
MONTHS = pd.date_range("2026-01-31", periods=7, freq="ME")
CITIES = ("Aden", "Basel", "a=b", "Chur", "Davos", "Elm", "Flums")


def monthly(months: pd.DatetimeIndex, seed: int = 5) -> pd.DataFrame:
    """A row per line and month; lines close over time."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(LINES)
    joined = pd.Timestamp("2026-01-31") - pd.to_timedelta(rng.integers(0, 900, LINES), unit="D")
    plan = rng.choice(["Basic", "Plus", ""], LINES, p=[0.5, 0.3, 0.2])
    city = rng.choice(CITIES, LINES, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    device = rng.choice(["phone", "tablet", "watch", "modem", ""], LINES, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    app = rng.choice(["Y", "N", ""], LINES, p=[0.4, 0.4, 0.2])
    is_there = np.ones(LINES, dtype=bool)
    parts = []
    for end in months:
        who = numbers[is_there]
        ago = np.minimum(rng.exponential(20, len(who)).astype(int), (end - joined[who]).days)
        call = (end - pd.to_timedelta(ago, unit="D")).strftime("%Y-%m-%d").to_numpy(dtype=object)
        call[rng.random(len(who)) < 0.1] = ""
        odds = -2.2 + 1.5 * (plan[who] == "") + 1.2 * (app[who] == "") + 0.05 * ago + 0.9 * (city[who] == "Aden")
        leaves = rng.random(len(who)) < 1 / (1 + np.exp(-odds))
        parts.append(
            pd.DataFrame(
                {
                    "account": [f"A{each // 2:04d}" for each in who],
                    "line": who % 2 + 1,
                    "as_of": end.strftime("%Y-%m-%d"),
                    "plan": plan[who],
                    "has_app": app[who],
                    "city": city[who],
                    "device": device[who],
                    "JoinedOn": joined[who].strftime("%Y-%m-%d"),
                    "last_call": call,
                    "monthly_fee": np.round(10 + 30 * rng.random(len(who)), 2),
                    "churned": leaves.astype(int),
                }
            )
        )
        is_there[who[leaves & (rng.random(len(who)) < 0.3)]] = False
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone with that contract, in which the small pipeline ran on six months."""
    folder = tmp_path_factory.mktemp("kinds")
    project = clone(folder / "churn", folder / "home")
    replace_between("FEATURE_TTL = ", "def of_role", in_=project.folder / "src/churn/contract.py", by=KINDS / "tables.py")
    features = project.folder / "src/churn/features.py"
    replace_between("@feature(", "FEATURES: ", in_=features, by=KINDS / "derived.py")
    raw = project.folder / "data/raw"
    (raw / "customers.csv").unlink()
    rows = monthly(MONTHS[:6])
    is_early = rows.as_of < "2026-05"
    rows[is_early].to_csv(raw / "1.csv", index=False)
    later = rows[~is_early].assign(**{name: pd.to_datetime(rows[name]).dt.date for name in ("JoinedOn", "last_call")})
    texts = later[["plan", "has_app", "device"]]
    later.assign(**texts.where(texts != "", None)).to_parquet(raw / "2.parquet", index=False)
    # Of these invented lines, all that were silent for long left.
    for key, value in (SMALL | {"evaluate.gate.trusted_columns": ["last_call"]}).items():
        project.set(key, value)
    project.environment["PYTHONPATH"] += f":{project.folder}"
    project.first_output = project.run("dvc", "repro")
    yield project
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def url(project: Project) -> Iterator[str]:
    """A server on the project's version and online store."""
    log = project.folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["python", "-m", "serving"],
            cwd=project.folder,
            env=project.environment
            | {"CHURN_PORT": "0", "CHURN_LOG_FLUSH_S": "0.2", "CHURN_POLL_S": "0.2", "CHURN_DRAIN_S": "0"},
            stdout=out,
            stderr=out,
            text=True,
        )
    found = address(process, log)
    wait_until_ready(found, log)
    yield found
    process.terminate()
    process.wait()


def wait_until_ready(url: str, log: Path) -> None:
    end = time.monotonic() + 60
    while httpx2.get(f"{url}/readyz").status_code != 200:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def verdicts(project: Project, url: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each value became at each way in."""
    folder = tmp_path_factory.mktemp("entrances")
    project.run("python", str(KINDS / "doors.py"), url, str(folder), str(folder / "out.json"))
    verdicts: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())
    return verdicts


@pytest.fixture(scope="module")
def found(project: Project, url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What probe.py finds."""
    out = tmp_path_factory.mktemp("probe") / "out.json"
    project.run("python", str(KINDS / "probe.py"), url, str(out))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


OF_TEXTS = ("csv", "score_csv", "invocations_csv", "page")
OF_TYPED = ("parquet", "sqlite", "score_parquet", "predict", "predict_left_out", "invocations", "tensors", "pyfunc")
TABLES = ("csv", "parquet", "sqlite")


@pytest.mark.parametrize(
    ("entrance", "case"),
    [
        pytest.param(entrance, case, id=f"{entrance}-{case[0]}-{case[1]!r:.40}")
        for names, cases in ((OF_TEXTS, TEXTS), (OF_TYPED, TYPED))
        for entrance in names
        for case in cases
    ],
)
def test_every_interface_accepts_or_refuses_the_same_values(
    entrance: str, case: tuple[str, Any, Any], verdicts: list[dict[str, Any]]
) -> None:
    column, value, _ = case
    [verdict] = [
        each
        for each in verdicts
        if (each["entrance"], each["column"], each["value"]) == (entrance, column, value) and type(each["value"]) is type(value)
    ]
    # MLflow's signature has text alone for a text.
    expected = REFUSED if entrance == "pyfunc" and type(value) is int and column == "city" else verdict["expected"]

    if expected == REFUSED or entrance in TABLES:
        assert verdict["found"] == expected
    else:
        assert verdict["found"] == pytest.approx(expected, abs=6e-4 if entrance == "page" else 1e-7)


def test_the_inputs_are_the_contracts_and_the_commonest_values_of_the_training_rows(
    project: Project, found: dict[str, Any]
) -> None:
    rows = pd.read_parquet(project.folder / "data/prepared/train.parquet")

    def commonest(name: str, count: int) -> list[str]:
        counts = Counter(rows[name].dropna())
        return [f"{name}={text}" for text in sorted(counts, key=lambda text: (-counts[text], text))[:count]]

    plan, app = ["plan=Basic", "plan=Plus", "plan=missing"], ["has_app", "has_app=missing"]
    city, device = commonest("city", 4), [*commonest("device", 3), "device=missing"]
    derived = ["is_new", "share_silent", "is_silent_user", "is_silent_user=missing"]
    assert found["inputs"] == [*plan, *app, *city, *device, "joined", "last_call", "monthly_fee", *derived]


def test_a_row_scores_as_in_training_inline_and_from_the_online_store(found: dict[str, Any]) -> None:
    assert found["with_timestamp"] == pytest.approx(found["training"], abs=1e-6)
    assert found["by_id"] == pytest.approx(found["training"], abs=1e-6)
    assert len(set(found["training"])) > 50


def test_a_request_without_a_timestamp_is_of_the_present(found: dict[str, Any]) -> None:
    assert found["without_timestamp"] == pytest.approx(found["with_todays"], abs=1e-9)


def test_the_online_store_keeps_nulls_and_days(project: Project, found: dict[str, Any]) -> None:
    stored, row = found["stored"], found["row"]

    assert stored["plan"] == row.get("plan")
    assert stored["has_app"] == row.get("has_app")
    assert stored["device"] == row.get("device")
    assert stored["joined"] == (pd.Timestamp(row["as_of"]) - pd.Timestamp(row["joined"])).days


def test_an_explanation_shows_days(found: dict[str, Any]) -> None:
    row = found["row"]
    days = (pd.Timestamp(row["as_of"]) - pd.Timestamp(row["joined"])).days

    value, text = found["reasons"]["joined"]

    assert value == days
    assert f"joined is {days} days ago" in text


def test_logged_rows_keep_the_contract_and_score_again_the_same(found: dict[str, Any]) -> None:
    assert found["log_violations"] == []
    assert found["log_gap"] <= 1e-6
    assert found["log_types"]["has_app"] == found["log_types"]["is_silent_user"] == "bool"
    assert all(count > 0 for count in found["log_nulls"].values())


def test_what_became_of_logged_rows_is_learned_from_with_the_same_days(project: Project, found: dict[str, Any], url: str) -> None:
    outcomes = [
        {"prediction_id": each, "churned": True, "observed_at": pd.Timestamp.now("UTC").isoformat()} for each in found["scored"]
    ]
    assert httpx2.post(f"{url}/outcomes", json={"outcomes": outcomes}).status_code == 200
    time.sleep(1.5)

    project.run("churn", "ingest", environment={"CHURN_LABEL_HORIZON_S": "1"})

    [part] = (project.folder / "data/raw").glob("ingested-*.parquet")
    rows = pd.read_parquet(part).set_index("customer_id")
    part.unlink()
    days = {name: (rows.as_of.dt.normalize() - rows[name]).dt.days for name in ("joined", "last_call")}
    logged = pd.DataFrame(found["logged"]).set_index("customer_id").loc[rows.index]
    assert len(rows) == len(found["scored"]) > 50
    for name, each in days.items():
        np.testing.assert_array_equal(each.to_numpy(dtype=float), logged[name].to_numpy(dtype=float))
    assert rows.has_app.isna().sum() == logged.has_app.isna().sum() > 0


def test_the_watcher_compares_rare_values_as_one_group(found: dict[str, Any]) -> None:
    assert {"plan", "has_app", "city", "device", "joined", "last_call"} <= set(found["drift"])
    assert found["rare"] > 50
    assert found["renamed_drift"]["city"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("part", ["1.csv", "2.parquet"])
def test_raw_rows_with_their_timestamp_score_as_in_training(project: Project, found: dict[str, Any], part: str) -> None:
    project.run("churn", "score", f"data/raw/{part}", "scores.csv")

    scores = pd.read_csv(project.folder / "scores.csv")
    source = project.folder / "data/raw" / part
    raw = pd.read_csv(source, dtype=str) if part.endswith("csv") else pd.read_parquet(source)
    keys = raw.account + ":" + raw.line.astype(str)
    assert list(scores.customer_id) == list(keys)
    expected = [found["all"][key] for key in keys + " " + raw.as_of]
    np.testing.assert_allclose(scores.churn_probability, expected, atol=1e-6)


def test_a_redis_store_answers_as_the_sqlite_one(project: Project, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        code = (
            "from churn.adapters.online_store.reader import connect; import json, pandas as pd\n"
            "ids = sorted(set(pd.read_parquet('data/features/customers.parquet').customer_id))[:200]\n"
            f"stores = [connect(url, timeout_s=5) for url in ('sqlite:///data/online/features.db', '{server.url}')]\n"
            "print(len(ids), stores[0].read(ids) == stores[1].read(ids))\n"
        )
        project.run("churn", "featurize", "--full", environment={"CHURN_ONLINE_STORE": server.url})
        assert project.run("python", "-c", code).split() == ["200", "True"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("account", "A:1", "account: expected a part of customer_id without ':'"),
        ("account", "", "account: expected a part of customer_id without ':'"),
        ("JoinedOn", "2026-02-01", "joined: expected date, not after the row's timestamp"),
        ("churned", "2", "churned: expected a value readable as 1 or 0"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused_in_one_line(
    project: Project, tmp_path: Path, column: str, value: str, message: str
) -> None:
    rows = monthly(MONTHS[:1]).astype(str)
    rows.loc[3, column] = value
    rows.to_csv(tmp_path / "new.csv", index=False)

    output = project.run("churn", "ingest", exit_code=1, environment={"CHURN_SOURCE": str(tmp_path / "new.csv")})

    assert message in output
    assert "Traceback" not in output


def test_by_customer_no_line_is_on_both_sides(project: Project) -> None:
    train, test = sides(project)

    assert not set(train.customer_id) & set(test.customer_id)
    assert "of other customers" in project.read("reports/evaluate/model_card.md")


def test_by_time_the_newest_months_are_the_test_rows_and_a_new_month_moves_them(project: Project) -> None:
    project.set("prepare.split", "time")
    project.run("dvc", "repro")
    train, test = sides(project)
    assert train.as_of.max() < test.as_of.min()
    assert len(test) >= 0.2 * (len(train) + len(test))
    assert set(train.customer_id) & set(test.customer_id)
    assert "newer than every row that it learned from" in project.read("reports/evaluate/model_card.md")

    project.run("churn", "ingest", environment={"CHURN_SOURCE": str(_new_month(project))})
    project.run("dvc", "repro")

    later, newest = sides(project)
    assert newest.as_of.max() == pd.Timestamp(MONTHS[6], tz="UTC") > test.as_of.max()
    assert later.as_of.max() < newest.as_of.min()
    assert json.loads(project.read("reports/evaluate/decision.json"))["reason"]


def sides(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    train, test = (pd.read_parquet(project.folder / f"data/prepared/{side}.parquet") for side in ("train", "test"))
    return train, test


def _new_month(project: Project) -> Path:
    rows = monthly(MONTHS)
    path = project.folder / "month.csv"
    rows[rows.as_of >= "2026-07"].to_csv(path, index=False)
    return path
