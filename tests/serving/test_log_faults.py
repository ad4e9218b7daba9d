"""Predictions are logged or counted if the sink fails; logged rows score again; outcomes are stored once."""

import itertools
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pytest

from churn.adapters import bundle, onnx
from churn.adapters.events.log import open_sink
from churn.domain.encoding import encode
from served import CUSTOMERS, Releases, Running, Serve, customers

pytestmark = pytest.mark.slow

FLUSH_S = 0.5


def logged(folder: Path) -> list[str]:
    """The ids of the rows in the log, in its order."""
    return list(open_sink(folder).read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist())


def made(answer: httpx2.Response) -> list[str]:
    """The ids of an answer's predictions."""
    assert answer.status_code == 200, answer.text
    return [each["prediction_id"] for each in answer.json()["predictions"]]


def rows(server: Running) -> tuple[float, float, float]:
    """How many scored rows wait, are written, are dropped."""
    name = "churn_prediction_log"
    waiting, written = server.metric(f"{name}_queued_rows"), server.metric(f"{name}_written_rows_total")
    return waiting, written, server.metric(f"{name}_dropped_rows_total")


def test_a_failing_sink_fails_no_prediction_and_queued_rows_are_written_later(
    releases: Releases, serve: Serve, tmp_path: Path
) -> None:
    releases.release()
    in_the_way = tmp_path / "sink"
    in_the_way.write_text("a regular file")
    server = serve(events=str(in_the_way / "events"), log_capacity_rows="50", log_part_rows="20").ready()

    before = list(itertools.chain.from_iterable(made(server.predict(customers(10))) for _ in range(20)))

    assert len({*before}) == 200
    server.wait(lambda: server.metric("churn_prediction_log_failed_flushes_total") >= 2)
    assert rows(server) == (50, 0, 150)

    in_the_way.unlink()
    server.wait(lambda: rows(server) == (0, 50, 150))
    after = made(server.predict(customers(10)))
    server.wait(lambda: rows(server) == (0, 60, 150))
    assert logged(in_the_way / "events") == before[:50] + after


def test_a_server_with_a_failing_sink_stops(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    (tmp_path / "sink").write_text("a regular file")
    server = serve(events=str(tmp_path / "sink" / "events")).ready()
    made(server.predict(customers(10)))

    assert server.stop() == 0
    assert [each for each in server.logged() if "closed with 10 rows unwritten; they are dropped" in each["message"]]


def test_predictions_are_served_without_logging_if_the_capacity_is_0(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(log_capacity_rows="0").ready()

    made(server.predict(customers(10)))

    assert server.stop() == 0
    assert not (tmp_path / "events" / "predictions").exists()


def test_a_kill_loses_only_rows_of_the_last_flush_interval(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    server = serve(log_flush_s=str(FLUSH_S)).ready()
    served: dict[str, float] = {}
    end = time.monotonic() + 60

    while not served or len({*logged(tmp_path / "events")}) < 100:
        assert time.monotonic() < end
        for _ in range(20):
            served |= dict.fromkeys(made(server.predict(customers(3))), time.monotonic())
    assert rows(server)[2] == 0
    server.stop(signal.SIGKILL)

    found = logged(tmp_path / "events")
    assert len({*found}) == len(found)
    assert {*found} <= {*served}
    missing = [at for prediction, at in served.items() if prediction not in {*found}]
    # One interval, and ample time for a part to be written on a busy machine.
    assert not missing or max(served.values()) - min(missing) < FLUSH_S + 5
    assert [prediction for prediction in served if prediction in {*found}] == found


def test_every_logged_row_scores_again_to_the_same_probability(
    releases: Releases, serve: Serve, filled: Path, tmp_path: Path
) -> None:
    first = releases.release(seed=1)
    server = serve(online_store=f"sqlite:///{filled}", store_timeout_s="10").ready()
    given = customers(200, seed=5, member_months=[0] * 20 + [30] * 180)
    by_id = {"customer_ids": [each["customer_id"] for each in customers(CUSTOMERS)[:100]]}
    answers: dict[str, float] = {}

    def keep(answer: httpx2.Response, key: str = "predictions") -> None:
        assert answer.status_code == 200, answer.text
        answers.update({each["prediction_id"]: each["churn_probability"] for each in answer.json()[key]})

    for start in range(0, 200, 7):
        keep(server.predict(given[start : start + 7]))
    keep(server.http.post("/predict/by-id", json=by_id))
    second = releases.release(seed=2)
    server.wait(lambda: server.version() == second)
    keep(server.predict(given))
    keep(server.http.post("/predict/by-id", json=by_id))
    keep(server.http.post("/explain", json={"customers": given[:50]}), "explanations")
    assert server.stop() == 0

    table = open_sink(tmp_path / "events").read("predictions")

    assert dict(zip(table["prediction_id"].to_pylist(), table["churn_probability"].to_pylist(), strict=True)) == answers
    assert {*table["model_version"].to_pylist()} == {first, second}
    for version in (first, second):
        (kept,) = (tmp_path / "models").glob(f"{version}-*")
        of_version = table.filter(pa.compute.equal(table["model_version"], version)).to_pandas()
        again = onnx.predict(onnx.session((kept / bundle.MODEL).read_bytes()), encode(of_version))
        np.testing.assert_allclose(again, of_version["churn_probability"], atol=1e-6)


def outcome(**fields: Any) -> dict[str, Any]:
    return {"churned": True, "observed_at": "2026-02-01T00:00:00Z"} | fields


def report(server: Running, *outcomes: dict[str, Any]) -> httpx2.Response:
    return server.http.post("/outcomes", json={"outcomes": outcomes})


def test_outcomes_are_stored_once_before_the_response(serve: Serve, tmp_path: Path) -> None:
    server = serve().alive()
    sent = [outcome(customer_id="c-1"), outcome(customer_id="c-2", churned=False), outcome(prediction_id="p-1")]

    first = report(server, *sent)
    kept = open_sink(tmp_path / "events").read("outcomes").to_pylist()
    again = [report(server, *sent), report(server, sent[2]), report(server, *reversed(sent))]

    assert first.status_code == 200
    ids = first.json()["outcome_ids"]
    assert len({*ids}) == 3
    assert [each["outcome_id"] for each in kept] == ids
    assert [(each["customer_id"], each["prediction_id"], each["churned"]) for each in kept] == [
        ("c-1", None, True),
        ("c-2", None, False),
        (None, "p-1", True),
    ]
    assert {each["observed_at"] for each in kept} == {datetime.fromisoformat("2026-02-01T00:00:00Z")}
    assert [each.json()["outcome_ids"] for each in again] == [ids, [ids[2]], ids[::-1]]
    assert sorted(open_sink(tmp_path / "events").read("outcomes")["outcome_id"].to_pylist()) == sorted(ids)


def test_the_same_time_in_another_zone_is_the_same_outcome(serve: Serve) -> None:
    server = serve().alive()

    ids = [
        report(server, outcome(customer_id="c", observed_at=moment)).json()["outcome_ids"]
        for moment in ("2026-02-01T00:00:00Z", "2026-02-01T05:30:00+05:30", "2026-01-31T16:00:00-08:00")
    ]

    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (outcome(customer_id="c", prediction_id="p"), "give either customer_id or prediction_id"),
        (outcome(), "give either customer_id or prediction_id"),
        (outcome(customer_id="c", observed_at="2026-02-01T00:00:00"), "observed_at: Input should have timezone info"),
        (outcome(customer_id="c", observed_at="2026-02-01"), "observed_at: "),
        (outcome(customer_id="c", observed_at="0001-01-01T00:00:00+01:00"), "observed_at: "),
        (outcome(customer_id="c", observed_at="9999-12-31T23:59:59-01:00"), "observed_at: "),
        *(
            pytest.param(outcome(customer_id="c", observed_at=at), "observed_at: it is before", marks=pytest.mark.reported)
            for at in ("1600-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "2000-01-01T00:00:00+00:01")
        ),
        *(
            pytest.param(outcome(customer_id="c", observed_at=bare), "observed_at: expected a time", marks=pytest.mark.reported)
            for bare in (1735689600, 1735689600.5, "1735689600", "1735689600.5", "1e9", True, None, [2026, 2, 1])
        ),
        *(
            pytest.param(outcome(customer_id="c", observed_at=at), "observed_at: it is in the future", marks=pytest.mark.reported)
            for at in ((datetime.now(UTC) + timedelta(days=1)).isoformat(), "2100-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
        ),
        (outcome(customer_id="c", churned="yes"), "churned: Input should be a valid boolean"),
        (outcome(customer_id="c", churned=1), "churned: Input should be a valid boolean"),
        (outcome(customer_id=""), "customer_id: "),
        (outcome(customer_id="c", reason="moved"), "reason: Extra inputs are not permitted"),
    ],
)
def test_an_invalid_outcome_refuses_the_whole_request(wrong: dict[str, Any], reason: str, serve: Serve) -> None:
    server = serve().alive()

    answer = report(server, outcome(customer_id="fine"), wrong)

    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert server.metric("churn_outcomes_total") == 0


@pytest.mark.reported
def test_an_outcome_can_be_ahead_by_the_clock_tolerance(serve: Serve) -> None:
    server = serve()

    answer = report(server, outcome(customer_id="c", observed_at=(datetime.now(UTC) + timedelta(minutes=4)).isoformat()))

    assert answer.status_code == 200


def test_outcomes_are_refused_while_the_sink_fails(serve: Serve, tmp_path: Path) -> None:
    in_the_way = tmp_path / "sink"
    in_the_way.write_text("a regular file")
    server = serve(events=str(in_the_way / "events")).alive()

    refused = report(server, outcome(customer_id="c"))

    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["detail"] == "the outcomes could not be kept; send them again later"
    assert server.metric("churn_outcomes_total") == 0

    in_the_way.unlink()
    assert report(server, outcome(customer_id="c")).status_code == 200
    assert server.metric("churn_outcomes_total") == 1
