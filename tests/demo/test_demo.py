"""The result of the demonstration: success, or what failed and why."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from churn.contract import ENTITY, RAW_FEATURES
from demo.company import Company, Month, sent
from demo.page import summarised, write_page
from demo.story import Compared, Story, failure, gist
from demo.workspace import DemoError, Workspace
from demo.world import World
from http_server import HttpServer, ReceivedRequest, Reply
from serving.schemas import OutcomesRequest


def check(decision: str, reason: str, at: str = "2026-06-01T00:01:00+00:00") -> dict[str, Any]:
    return {"decision": decision, "reason": reason, "at": at, "windows": [{"drift": None}]}


STARTED = {"kind": "started", "name": "retrain-v1", "at": "2026-06-01T00:02:00+00:00", "reason": "short: drift"}
ENDED = {"kind": "ended", "name": "retrain-v1", "at": "2026-06-01T00:03:00+00:00", "result": "promoted", "reason": "passed"}
MONTH = {"number": 1, "at": "2026-06-01T00:00:00+00:00", "rows": 10, "versions": ["1"]}
BETTER = Compared(100, "1", "2", 0.80, 0.82, 0.02, 0.01, 0.03, 0.5, 0.4)
STORY = Story(
    scenario="price-rise",
    months=[MONTH | dict.fromkeys(("left", "roc_auc", "first_roc_auc", "log_loss"))],
    checks=[check("warn", "short: charge PSI 1.06 ≥ 0.50")],
    retrainings=[STARTED, ENDED],
    versions=[],
    compared=BETTER,
)


def test_a_better_version_after_a_retraining_is_a_success() -> None:
    assert failure(STORY, retrains=True) == ""


@pytest.mark.reported
@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (replace(STORY, retrainings=[]), "expected a retraining, got none in 1 months; the watcher's last decision: warn: short"),
        (replace(STORY, retrainings=[STARTED]), "the retraining has not ended"),
        (
            replace(
                STORY, retrainings=[STARTED, ENDED | {"result": "rejected", "reason": "failed roc_auc: 0.8, must be ≥ 0.82"}]
            ),
            "retrain-v1 rejected: failed roc_auc: 0.8, must be ≥ 0.82",
        ),
        (replace(STORY, compared=None), "expected final labels of the new version's months, got none"),
        (replace(STORY, compared=replace(BETTER, low=-0.01)), "got a ROC-AUC difference of +0.0200 [-0.0100, +0.0300]"),
    ],
)
def test_a_failure_has_the_expected_and_the_actual_result(story: Story, reason: str) -> None:
    assert reason in failure(story, retrains=True)


def test_an_unexpected_retraining_is_a_failure() -> None:
    assert failure(STORY, retrains=False) == "expected no retraining, got one: short: drift"
    assert failure(replace(STORY, retrainings=[]), retrains=False) == ""


@pytest.mark.reported
def test_the_page_of_a_failed_demonstration_has_the_reason(tmp_path: Path) -> None:
    write_page(STORY, tmp_path / "failed.html", "the gate refused <version 2>")
    write_page(STORY, tmp_path / "good.html", "")

    failed = (tmp_path / "failed.html").read_text()
    assert "<title>Churn: price-rise: failed</title>" in failed
    assert "the gate refused &lt;version 2&gt;" in failed
    assert "failed" not in (tmp_path / "good.html").read_text()


@pytest.mark.reported
def test_warnings_that_differ_only_in_numbers_are_grouped() -> None:
    reasons = ["short: charge PSI 1.06 ≥ 0.50; ratio PSI 3.72 ≥ 0.50", "short: ratio PSI 2.10 ≥ 0.50; charge PSI 0.99 ≥ 0.50"]
    other = check("warn", "long: charge PSI 0.3 ≥ 0.2")

    story = replace(STORY, checks=[check("warn", reasons[0])] * 20 + [check("warn", reasons[1])] * 25 + [other])

    assert summarised(story, 1) == [(f"warn: {reasons[0]}", 45), ("warn: long: charge PSI 0.3 ≥ 0.2", 1)]
    assert gist(check("retrain", reasons[0])) != gist(check("warn", reasons[0]))


@pytest.mark.reported
def test_a_process_that_fails_to_start_ends_the_demo_with_its_last_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    code = "import sys; print('starting'); sys.exit('churn: port 8000 on 127.0.0.1 is in use: set CHURN_PORT')"

    with workspace.process(sys.executable, "-c", code, log="server.log") as server:
        server.wait()

        with pytest.raises(DemoError, match=r"the server ended by itself: churn: port 8000 on 127\.0\.0\.1 is in use"):
            workspace.require_running("server", server)


def test_a_request_has_the_features_of_a_row_and_dates_as_iso_text() -> None:
    (row,) = World(1, seed=1).step().to_pylist()
    name = RAW_FEATURES[0].name

    request = sent(row | {name: datetime(2026, 3, 31, tzinfo=UTC)})

    assert request == {ENTITY: row[ENTITY]} | {each.name: row[each.name] for each in RAW_FEATURES} | {name: "2026-03-31"}


def test_scoring_is_retried_if_the_server_is_overloaded() -> None:
    statuses = [503, 503, 200]

    def answer(request: ReceivedRequest) -> Reply:
        if (status := statuses.pop(0)) == 503:
            return Reply(status, headers=(("Retry-After", "0"),))
        predictions = [{"prediction_id": row["customer_id"]} for row in request.json()["customers"]]
        return Reply.json(status, {"model_version": "7", "predictions": predictions})

    with HttpServer(answer) as server:
        month = Company(server.url, World(5, seed=1)).play()

    assert (month.versions, len(month.left), statuses) == ({"7"}, 5, [])


def test_scores_and_outcomes_are_sent_with_separate_keys() -> None:
    def answer(request: ReceivedRequest) -> Reply:
        customers = request.json().get("customers", [])
        predictions = [{"prediction_id": row["customer_id"]} for row in customers]
        return Reply.json(200, {"model_version": "7", "predictions": predictions})

    with HttpServer(answer) as server:
        company = Company(server.url, World(5, seed=1), key="reader", outcomes_key="reporter")
        company.tell(company.play())

    assert [(each.path, each.headers["x-api-key"]) for each in server.received] == [
        ("/predict", "reader"),
        ("/outcomes", "reporter"),
    ]


def test_an_outcome_has_the_field_of_the_api_whatever_the_label_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.company.LABEL", "status")
    month = Month(1, 0.0, 1.0, {"7"}, {"p-1": True, "p-2": False})

    with HttpServer(lambda request: Reply.json(202, {"stored": 2})) as server:
        Company(server.url, World(5, seed=1)).tell(month)

    sent_outcomes = server.received[0].json()["outcomes"]
    assert [each | {"observed_at": ""} for each in sent_outcomes] == [
        {"prediction_id": "p-1", "churned": True, "observed_at": ""},
        {"prediction_id": "p-2", "churned": False, "observed_at": ""},
    ]
    OutcomesRequest.model_validate({"outcomes": sent_outcomes})
