"""Looks at the stack from outside: `python3 -m ops.stack wait|where|smoke`. It needs Docker's client and nothing else.

`COMPOSE` says how Compose is called (`docker compose`), with the options that name the project.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

from ops.outside import Failed, ask, basic, eventually, example, print_done, run_command, status_of

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
WAIT_S = 1800
PAGES = (
    ("API and page", "api", 8000, "/", "password: API_KEY of `make secrets`; outcomes: OUTCOMES_KEY"),
    ("API's documentation", "api", 8000, "/docs", ""),
    ("MLflow", "mlflow", 5000, "/#/experiments?workflowType=machine_learning", ""),
    ("Grafana", "grafana", 3000, "/", "user admin, password: GRAFANA_PASSWORD of `make secrets`"),
    ("Prometheus", "prometheus", 9090, "/", ""),
    ("Alertmanager", "alertmanager", 9093, "/", ""),
    ("drift reports", "watcher", 8001, "/", ""),
    ("Evidently", "evidently", 8003, "/", "`docker compose --profile tools up --detach` starts it"),
)
DASHBOARDS = {"churn-service", "churn-model", "churn-drift"}


def main() -> int:
    """Wait, tell or prove."""
    return run_command("stack", {"wait": wait, "where": where, "smoke": smoke}, __doc__)


def wait() -> None:
    """Wait until every server is healthy and every job has ended well."""
    end, shown = time.monotonic() + WAIT_S, ""
    while waited_for := dict(unready()):
        now = ", ".join(f"{name} ({state})" for name, state in waited_for.items())
        if failed := [name for name, state in waited_for.items() if state.startswith("exited")]:
            raise Failed(f"{now}; read its log: {' '.join(COMPOSE)} logs {' '.join(failed)}")
        if time.monotonic() > end:
            raise Failed(f"waited {WAIT_S} s for {now}; read the logs: {' '.join(COMPOSE)} logs")
        if now != shown:
            print(f"waiting for {now}", flush=True)
            shown = now
        time.sleep(2)


def unready() -> Iterator[tuple[str, str]]:
    """Each container that is not as it should be, and its state."""
    containers = compose("ps", "--all", "--quiet").split() if is_new() else compose("ps", "--quiet").split()
    if not containers:
        raise Failed("there is no container; start the stack: make up")
    for found in json.loads(run("docker", "inspect", *containers)):
        name = found["Config"]["Labels"]["com.docker.compose.service"]
        state = found["State"]
        health = state.get("Health", {}).get("Status", "")
        is_job = found["HostConfig"]["RestartPolicy"]["Name"] != "unless-stopped"
        if is_job and state["Status"] == "exited" and state["ExitCode"] == 0:
            continue
        if state["Status"] == "running" and health in ("healthy", "none"):
            continue
        yield name, f"exited with {state['ExitCode']}" if state["Status"] == "exited" else health or state["Status"]


def where() -> None:
    """Tell which page is at which address."""
    for what, service, port, path, note in PAGES:
        if address := published(service, port):
            print(f"{what:<20} http://{address}{path:<6} {note}".rstrip())
        else:
            print(f"{what:<20} not up: {note}".rstrip())


def smoke() -> None:
    """Prove the whole from outside, a line each."""
    names = ("API_KEY", "OUTCOMES_KEY", "GRAFANA_PASSWORD")
    key, outcomes_key, password = (compose("run", "--rm", "-T", "secrets", "show", name).split()[-1] for name in names)
    api, known = f"http://{address('api', 8000)}", {"X-API-Key": key}

    refused = status_of(f"{api}/model", {})
    if refused != 401:
        raise Failed(f"{api}/model answers {refused} without a key, not 401")
    model = ask(f"{api}/model", known)
    print_done(f"version {model['model_version']} serves; without the key it is refused")

    by_id = ask(f"{api}/predict/by-id", known, {"customer_ids": ["7590-VHVEG"]})["predictions"][0]
    print_done(f"by id: {by_id['customer_id']} leaves with probability {by_id['churn_probability']:.4f}")
    inline = ask(f"{api}/predict", known, {"customers": [example(ask(f"{api}/openapi.json", known))]})["predictions"][0]
    print_done(f"inline: probability {inline['churn_probability']:.4f}, {inline['risk']} risk")
    outcome = {"prediction_id": by_id["prediction_id"], "churned": True, "observed_at": "2026-01-01T00:00:00Z"}
    refused = status_of(f"{api}/outcomes", known, {"outcomes": [outcome]})
    if refused != 403:
        raise Failed(f"{api}/outcomes answers {refused} to the key that may only predict, not 403")
    ask(f"{api}/outcomes", {"X-API-Key": outcomes_key}, {"outcomes": [outcome]})
    print_done("an outcome is kept from the key that may report it, and refused from the other")

    prometheus = f"http://{address('prometheus', 9090)}/api/v1"
    eventually(lambda: up(prometheus) == {"churn-api", "churn-watcher", "prometheus"}, "Prometheus to see every target up")
    counted = 'sum(churn_predictions_total{job="churn-api"})'
    eventually(lambda: value(prometheus, counted) >= 2, "Prometheus to count the predictions")
    print_done("Prometheus scrapes the API and the watcher, and counts predictions")

    grafana = f"http://{address('grafana', 3000)}"
    shown = {each["uid"] for each in ask(f"{grafana}/api/search?type=dash-db", basic("admin", password))}
    if not shown >= DASHBOARDS:
        raise Failed(f"{grafana} has the dashboards {sorted(shown)}, not all of {sorted(DASHBOARDS)}")
    print_done(f"Grafana shows {', '.join(sorted(shown))}")

    mlflow = f"http://{address('mlflow', 5000)}/api/2.0/mlflow"
    registered = ask(f"{mlflow}/registered-models/alias?name=churn&alias=production", {})["model_version"]
    eventually(
        lambda: ask(f"{api}/model", known)["model_version"] == registered["version"],
        f"the API to serve version {registered['version']}, which MLflow calls production",
    )
    print_done(f"MLflow calls version {registered['version']} production, which is what serves")

    missing = compose("exec", "-T", "runner", "dvc", "status", "--cloud", "--json")
    if json.loads(missing):
        raise Failed(f"the DVC remote lacks what the workspace has: {missing.strip()[:200]}")
    print_done("the DVC remote holds everything that the workspace has")


def up(prometheus: str) -> set[str]:
    """The jobs whose targets are up."""
    targets = ask(f"{prometheus}/targets?state=active", {})["data"]["activeTargets"]
    return {each["labels"]["job"] for each in targets if each["health"] == "up"}


def value(prometheus: str, query: str) -> float:
    """What a query gives; 0 without an answer."""
    found = ask(f"{prometheus}/query?query={quote(query)}", {})["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def published(service: str, port: int) -> str:
    """The address of a service's port on this machine; empty if it does not run."""
    done = subprocess.run([*COMPOSE, "port", service, str(port)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def address(service: str, port: int) -> str:
    """The same.

    Raises:
        Failed: it does not run.
    """
    if not (found := published(service, port)):
        raise Failed(f"{service} is not up; start the stack: make up")
    return found


def is_new() -> bool:
    """True for Compose 2 and newer, which lists ended containers only with --all."""
    return COMPOSE[0] == "docker"


def compose(*words: str) -> str:
    """What Compose prints."""
    return run(*COMPOSE, *words)


def run(*words: str) -> str:
    """What a command prints.

    Raises:
        Failed: it ended with an error.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{' '.join(words)}` ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
