"""Grafana's dashboards as files, and their queries put to a Prometheus."""

import json
import math
import re
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring/prometheus"
GRAFANA = ROOT / "monitoring/grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}


def queries(dashboard: dict[str, Any]) -> list[str]:
    """The dashboard's queries as Grafana sends them: with each variable's value in its place."""
    values = {each["name"]: each["current"]["value"] for each in dashboard["templating"]["list"]} | {"__rate_interval": "1m"}
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [re.sub(r"\$(\w+)", lambda name: values[name[1]], each) for each in found]


def has_data(prometheus: httpx2.Client, query: str) -> bool:
    """True if the query gives a number."""
    answer = prometheus.get("/query", params={"query": query}).raise_for_status().json()
    return any(not math.isnan(float(each["value"][1])) for each in answer["data"]["result"])
