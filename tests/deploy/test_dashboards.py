"""Every dashboard is valid for Grafana, has descriptions, and shows data."""

import subprocess
import time
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from churn.adapters.set_aside import STAGES
from dashboards import DASHBOARDS, GRAFANA, PROMETHEUS, has_data, queries
from monitoring.metrics import DECISIONS, RESULTS, STATES, WINDOWS
from prometheus_tools import MODULES, exported, metrics_of, parsed, scraping, unknown
from requirements import need

PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
every_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{name}: {panel['title']}" for name, panel in PANELS]
)


def test_the_three_dashboards_exist() -> None:
    assert {each["title"] for each in DASHBOARDS.values()} == {"Service", "Model", "Drift and retraining"}


def test_dashboard_uids_are_unique() -> None:
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)


@every_dashboard
def test_panel_ids_are_unique(dashboard: dict[str, Any]) -> None:
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@every_dashboard
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]

    assert [(one, other) for one, other in combinations(places, 2) if overlap(one, other)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@every_panel
def test_every_panel_has_a_title_description_and_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@every_dashboard
def test_dashboards_use_the_provisioned_data_source(dashboard: dict[str, Any]) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    asking = [
        *dashboard["panels"],
        *(target for panel in dashboard["panels"] for target in panel["targets"]),
        *(each for each in dashboard["templating"]["list"] if each["type"] == "query"),
    ]

    assert {(each["datasource"]["type"], each["datasource"]["uid"]) for each in asking} == {
        (each["type"], each["uid"]) for each in sources
    }


def test_the_dashboards_are_provisioned_from_files() -> None:
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/churn.yml").read_text())["providers"]

    assert [(each["type"], Path(each["options"]["path"]).name) for each in providers] == [("file", "dashboards")]


@every_dashboard
def test_dashboards_query_exported_or_recorded_metrics_only(dashboard: dict[str, Any]) -> None:
    alerts = {"alertname", "alertstate", "severity", "component", "instance", "window", "feature"}
    records = yaml.safe_load((PROMETHEUS / "rules/recording.yml").read_text())["groups"][0]["rules"]
    recorded = {each["record"]: parsed(each["expr"]).grouped | {"job"} for each in records}

    known = exported() | recorded | {"ALERTS": frozenset(alerts)}

    assert [(query, missing) for query in queries(dashboard) if (missing := unknown(query, known))] == []


VALUES: dict[str, tuple[str, ...]] = {
    "route": ("/predict", "/explain"),
    "method": ("POST",),
    "status": ("200", "503"),
    "reason": ("golden", "overload"),
    "churn": ("true", "false"),
    "version": ("7",),
    "window": WINDOWS,
    "state": STATES,
    "feature": ("member_months", "monthly_fee"),
    "score": ("roc_auc", "log_loss"),
    "bound": ("low", "value", "high"),
    "decision": DECISIONS,
    "result": ("done", *RESULTS),
    "stage": STAGES,
}


def copy(metric: MetricWrapperBase, registry: CollectorRegistry) -> MetricWrapperBase:
    """The same metric elsewhere: what is counted here must not be found by other tests."""
    return type(metric)(metric._name, metric._documentation, metric._labelnames, registry=registry, **metric._kwargs)


class Exporter:
    """Serves every metric of a module, with values that move."""

    def __init__(self, module: ModuleType) -> None:
        registry = CollectorRegistry()
        self._metrics = [copy(each, registry) for each in metrics_of(module)]
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def advance(self) -> None:
        for metric in self._metrics:
            for labels in product(*(VALUES[name] for name in metric._labelnames)):
                match metric.labels(*labels) if labels else metric:
                    case Counter() as counter:
                        counter.inc(3)
                    case Histogram() as histogram:
                        histogram.observe(0.02)
                        histogram.observe(0.3)
                    case Gauge() as gauge:
                        gauge.set(time.time() - 60 if metric._name.endswith("_timestamp_seconds") else 1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def exporters() -> Iterator[dict[str, Exporter]]:
    made = {job: Exporter(module) for job, module in MODULES.items()}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
def prometheus(tmp_path: Path, exporters: dict[str, Exporter]) -> Iterator[httpx2.Client]:
    """A Prometheus with the committed rules and jobs, faster."""
    with scraping(tmp_path, {job: exporter.address for job, exporter in exporters.items()}) as client:
        yield client


def test_every_query_of_every_dashboard_returns_data(prometheus: httpx2.Client, exporters: dict[str, Exporter]) -> None:
    missing = [query for dashboard in DASHBOARDS.values() for query in queries(dashboard)]

    end = time.monotonic() + 90
    while missing and time.monotonic() < end:
        for each in exporters.values():
            each.advance()
        time.sleep(0.5)
        missing = [query for query in missing if not has_data(prometheus, query)]

    assert missing == []


@pytest.mark.parametrize(
    ("stored", "age"),
    [(3600, [6 * 3600]), (8 * 3600, [0]), (0, [])],
    ids=["earlier", "by a clock that is ahead", "never"],
)
def test_an_age_is_never_negative_and_is_missing_where_nothing_happened_yet(stored: int, age: list[int], tmp_path: Path) -> None:
    found = [query for dashboard in DASHBOARDS.values() for query in queries(dashboard) if "time() -" in query]
    names = {name for query in found for name, _ in parsed(query).metrics}
    expected = [{"expr": query, "eval_time": "7h", "exp_samples": [{"value": each} for each in age]} for query in found]
    series = [{"series": name, "values": f"{stored}x420"} for name in sorted(names)]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    (tmp_path / "ages.yml").write_text(yaml.safe_dump({"tests": [case]}))

    done = subprocess.run(
        [need("promtool"), "test", "rules", str(tmp_path / "ages.yml")], capture_output=True, text=True, check=False
    )

    assert found
    assert done.returncode == 0, done.stdout + done.stderr
