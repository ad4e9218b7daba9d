"""The compose file: images pinned, servers watched and bounded, nothing published to other machines, no password in it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import stack
from ops.outside import Failed

ROOT = Path(__file__).parents[2]
STACK: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DEVELOPMENT: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.dev.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
FILES = ("docker-compose.yml", "docker-compose.dev.yml")
JOBS = {name for name, service in SERVICES.items() if service["restart"] != "unless-stopped"}
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("churn-")}
OTHERS = set(SERVICES) - OURS
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")

every_service = pytest.mark.parametrize("name", SERVICES)
every_server = pytest.mark.parametrize("name", sorted(set(SERVICES) - JOBS))
every_image_of_ours = pytest.mark.parametrize("name", sorted(OURS))


def published(file: dict[str, Any]) -> dict[str, list[str]]:
    return {name: service["ports"] for name, service in file["services"].items() if "ports" in service}


def needs(name: str) -> set[str]:
    """The services that must be there before this one, however far."""
    direct = set(SERVICES[name].get("depends_on", {}))
    return direct.union(*map(needs, direct))


def dockerfile_of(name: str) -> str:
    """The text of the Dockerfile of one of our own images."""
    image = SERVICES[name]["image"].partition(":")[0]
    return (ROOT / f"Dockerfile.{image.removeprefix('churn-')}").read_text()


def volumes(name: str) -> dict[str, str]:
    """Source → how it is mounted."""
    return {volume.split(":")[0]: volume.split(":", 1)[1] for volume in SERVICES[name].get("volumes", [])}


@every_service
def test_every_image_is_pinned_to_a_version(name: str) -> None:
    image = SERVICES[name]["image"]

    if name in OURS:
        assert re.fullmatch(r"churn-(serve|train|monitor):\$\{IMAGE_TAG:-local\}", image)
    else:
        assert re.search(r":v?\d+\.\d+", image)


@pytest.mark.parametrize("image", ["serve", "train", "monitor"])
def test_one_service_builds_an_image_and_the_others_wait_for_it_without_asking_a_registry(image: str) -> None:
    users = {name for name in OURS if SERVICES[name]["image"].startswith(f"churn-{image}:")}
    (builder,) = (name for name in users if "build" in SERVICES[name])

    assert SERVICES[builder]["build"]["dockerfile"] == f"Dockerfile.{image}"
    for name in users - {builder}:
        assert SERVICES[name]["pull_policy"] == "never"
        assert builder in needs(name), "Compose 1 looks for images in the order of what depends on what"


@every_server
def test_every_server_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    own = service.get("healthcheck", {})
    inherited = name in OURS and "HEALTHCHECK" in dockerfile_of(name)

    assert not own.get("disable")
    assert own.get("test") or inherited


@pytest.mark.parametrize("name", sorted(JOBS - {"demo"}))
def test_every_job_is_waited_for_by_somebody(name: str) -> None:
    waiting = [each for each in SERVICES.values() if name in each.get("depends_on", {})]

    assert waiting, "`up --wait` fails on a job that nobody waits for"
    assert {each["depends_on"][name]["condition"] for each in waiting} == {"service_completed_successfully"}


@every_service
def test_whoever_is_depended_on_is_waited_for_by_condition(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in JOBS else "service_healthy")


def test_the_trainer_does_not_race_its_database_nor_the_tracking_server() -> None:
    assert {"secrets", "postgres", "object-store", "seed", "mlflow", "valkey"} <= needs("trainer")


def test_a_training_that_fails_does_not_keep_the_api_from_serving_what_it_has() -> None:
    assert "trainer" not in needs("api")


@every_service
def test_every_service_is_bounded_in_memory_processes_and_log(name: str) -> None:
    service = SERVICES[name]

    assert service["mem_limit"]
    assert service["pids_limit"] <= 512
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_the_limits_of_all_servers_fit_a_machine_of_16_gb() -> None:
    def megabytes(text: str) -> int:
        return int(text[:-1]) * (1024 if text.endswith("g") else 1)

    usual = [each["mem_limit"] for name, each in SERVICES.items() if "profiles" not in each and name not in JOBS]

    assert sum(map(megabytes, usual)) <= 12 * 1024


@every_service
def test_every_service_runs_with_the_least_rights(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}


@every_image_of_ours
def test_our_own_file_systems_cannot_be_written_to(name: str) -> None:
    service = SERVICES[name]
    written = {how.split(":")[0] for source, how in volumes(name).items() if not how.endswith(":ro")}

    assert service["read_only"]
    assert written <= {"/var/lib/churn"} or name == "secrets"


@pytest.mark.parametrize("name", sorted(OURS - {"secrets"}))
def test_our_own_images_run_as_their_own_user(name: str) -> None:
    assert "user" not in SERVICES[name]
    assert "cap_add" not in SERVICES[name]


@pytest.mark.parametrize("stack", [STACK, DEVELOPMENT], ids=FILES)
def test_every_port_is_this_machines_alone(stack: dict[str, Any]) -> None:
    ports = [port for each in published(stack).values() for port in each]

    assert ports
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port)] == []


def test_only_pages_for_people_are_published() -> None:
    assert set(published(STACK)) == {"api", "mlflow", "grafana", "prometheus", "alertmanager", "watcher", "evidently"}


def test_the_databases_are_on_a_network_of_those_who_need_them() -> None:
    members = {name for name, service in SERVICES.items() if "backend" in service.get("networks", [])}

    assert STACK["networks"]["backend"] == {"internal": True}
    assert members == {
        *("postgres", "valkey", "object-store"),
        *("seed", "mlflow", "trainer", "runner", "api", "watcher", "demo"),
    }
    assert all(SERVICES[name]["networks"] == ["backend"] for name in ("postgres", "valkey", "object-store"))


def test_no_password_is_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    given = {
        (name, key): value
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if re.search(r"(PASSWORD|SECRET|TOKEN|KEYS?)$", key) and value is not None
    }

    assert given == {}
    assert not re.search(r"://[^/\s@]*:[^/\s@]+@", text)


def test_only_the_services_that_need_them_mount_secrets() -> None:
    for name in SERVICES:
        mounted = {source for source in volumes(name) if source.endswith("secrets")}
        own = {"runner": "trainer"}.get(name, name)
        expected = {each for each in STACK["volumes"] if each.endswith("secrets")} if name == "secrets" else {f"{own}-secrets"}

        assert mounted <= expected
        assert name == "secrets" or all(how == "/run/secrets:ro" for source, how in volumes(name).items() if source in mounted)


@pytest.mark.parametrize("file", FILES)
def test_every_variable_is_in_the_example(file: str) -> None:
    stack = yaml.safe_load((ROOT / file).read_text())
    passed = {
        key
        for service in stack["services"].values()
        for key, value in (service.get("environment") or {}).items()
        if value is None
    }
    named = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert {*VARIABLE.findall((ROOT / file).read_text()), *passed} <= named


@pytest.mark.parametrize("stack", [STACK, DEVELOPMENT], ids=FILES)
def test_every_file_that_is_mounted_is_there(stack: dict[str, Any]) -> None:
    mounted = [each.split(":") for service in stack["services"].values() for each in service.get("volumes", [])]
    files = [(source, how) for source, _, *how in mounted if source.startswith(".")]

    assert [source for source, _ in files if not (ROOT / source).exists()] == []
    assert all(how == ["ro"] for _, how in files)


def test_every_volume_is_declared_and_used() -> None:
    used = {source for name in SERVICES for source in volumes(name) if not source.startswith((".", "/"))}

    assert used == set(STACK["volumes"])


def test_the_mlflow_server_answers_to_the_names_that_its_clients_use() -> None:
    hosts = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    assert {"mlflow", "mlflow:*", "localhost:*", "127.0.0.1:*"} <= set(hosts)
    assert all(
        service["environment"].get("MLFLOW_TRACKING_URI", "http://mlflow:5000") == "http://mlflow:5000"
        for service in SERVICES.values()
        if "environment" in service
    )


def test_prometheus_finds_the_jobs_targets_here_too() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    asked = [each["files"] for job in config["scrape_configs"] for each in job["file_sd_configs"]]
    asked += [each["files"] for each in config["alerting"]["alertmanagers"][0]["file_sd_configs"]]

    for folder in (ROOT / "monitoring/prometheus", ROOT / "compose"):
        for (file,) in asked:
            (group,) = yaml.safe_load((folder / file).read_text())
            assert all(re.fullmatch(r"[\w.-]+:\d+", target) for target in group["targets"])
    for file in (ROOT / "compose/targets").glob("*.yml"):
        (group,) = yaml.safe_load(file.read_text())
        assert {target.split(":")[0] for target in group["targets"]} <= set(SERVICES)


def test_what_is_to_be_proved_before_it_is_up_is_told_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "compose", lambda *words: "key")
    monkeypatch.setattr(stack, "published", lambda service, port: "")

    with pytest.raises(Failed, match="api is not up; start the stack: make up"):
        stack.smoke()


@pytest.mark.parametrize("module", ["ops.stack", "ops.rollout"])
def test_the_old_compose_which_is_a_package_of_the_same_name_is_not_taken_for_ours(module: str, tmp_path: Path) -> None:
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "__init__.py").write_text("")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert f"-m {module}" in done.stderr
