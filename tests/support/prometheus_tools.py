"""Prometheus' own programs, the metrics of its queries, and the metrics that the code exports."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx2
import yaml
from prometheus_client.metrics import MetricWrapperBase

import monitoring.metrics
import serving.metrics
from ports import free_port
from requirements import need

CONFIG = Path(__file__).parents[2] / "monitoring/prometheus"

MODULES = {"churn-api": serving.metrics, "churn-watcher": monitoring.metrics}
"""Whose metrics each of Prometheus' jobs finds."""
TARGET = frozenset({"job", "instance"})
"""The labels that Prometheus adds to all that it reads."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


@contextmanager
def daemon(command: list[str], url: str, log: Path, seconds: float = 60) -> Iterator[None]:
    """Prometheus or Alertmanager, from when it is ready until the end of the block."""
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            end = time.monotonic() + seconds
            while not _is_ready(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def scraping(folder: Path, targets: dict[str, str]) -> Iterator[httpx2.Client]:
    """A client of a Prometheus with the committed rules and jobs that scrapes `targets` (job → address) every second."""
    address = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(CONFIG / each) for each in config["rule_files"]]
    del config["alerting"]
    for job in config["scrape_configs"]:
        del job["file_sd_configs"]
        job["static_configs"] = [{"targets": [(targets | {"prometheus": address})[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        need("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address={address}",
    ]
    with (
        daemon(command, f"http://{address}", folder / "prometheus.log"),
        httpx2.Client(base_url=f"http://{address}/api/v1") as client,
    ):
        yield client


def metrics_of(module: ModuleType) -> list[MetricWrapperBase]:
    return [each for each in vars(module).values() if isinstance(each, MetricWrapperBase)]


def exported() -> dict[str, frozenset[str]]:
    """Every series that the server, the watcher and Prometheus itself make, with its labels."""
    found = {"up": TARGET, "process_start_time_seconds": TARGET}
    for module in MODULES.values():
        for metric in metrics_of(module):
            for family in metric.describe():
                for suffix in SUFFIXES[family.type]:
                    own = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
                    found[family.name + suffix] = TARGET | own
    return found


@dataclass(frozen=True)
class Query:
    """What a query reads: each metric with its matchers (label → value), and the labels that it groups or joins by."""

    metrics: tuple[tuple[str, dict[str, str]], ...]
    grouped: frozenset[str]


GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?![\w:])\s*(\{[^}]*\})?(\s*\()?")
OPERATORS = frozenset({"and", "or", "unless", "bool", "offset"})


def parsed(query: str) -> Query:
    """The query's metrics and labels: names that are neither called nor operators."""
    groups = [name.strip() for each in GROUPING.findall(query) for name in each.split(",") if name.strip()]
    rest = re.sub(r"\[[^\]]*\]", "", GROUPING.sub("", query))
    metrics = [
        (name, dict(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers)))
        for name, matchers, call in SELECTOR.findall(rest)
        if not call and name not in OPERATORS
    ]
    return Query(tuple(metrics), frozenset(groups))


def unknown(query: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Metrics and labels that the query names and no process exports."""
    query_parts = parsed(query)
    missing = [name for name, _ in query_parts.metrics if name not in known]
    missing += [
        f"{name}{{{label}}}" for name, matchers in query_parts.metrics for label in matchers if label not in known.get(name, ())
    ]
    labels = {label for name, _ in query_parts.metrics for label in known.get(name, ())}
    return missing + sorted(query_parts.grouped - labels)
