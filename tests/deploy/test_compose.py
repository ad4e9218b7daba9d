"""The compose file: images pinned, servers with health checks and limits, ports on localhost only, no password in it."""

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
def test_one_service_builds_each_image_and_no_service_pulls_it(image: str) -> None:
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
def test_every_job_has_a_dependent_service(name: str) -> None:
    waiting = [each for each in SERVICES.values() if name in each.get("depends_on", {})]

    assert waiting, "`up --wait` fails on a job that no service waits for"
    assert {each["depends_on"][name]["condition"] for each in waiting} == {"service_completed_successfully"}


@every_service
def test_services_wait_for_their_dependencies_by_health_condition(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in JOBS else "service_healthy")


def test_the_trainer_depends_on_its_databases_and_the_tracking_server() -> None:
    assert {"secrets", "postgres", "object-store", "seed", "mlflow", "valkey"} <= needs("trainer")


def test_the_api_starts_if_training_failed() -> None:
    assert "trainer" not in needs("api")


@every_service
def test_every_service_limits_memory_processes_and_log_size(name: str) -> None:
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
def test_every_service_runs_with_least_privileges(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}


@every_image_of_ours
def test_root_file_systems_of_built_images_are_read_only(name: str) -> None:
    service = SERVICES[name]
    written = {how.split(":")[0] for source, how in volumes(name).items() if not how.endswith(":ro")}

    assert service["read_only"]
    assert written <= {"/var/lib/churn"} or name == "secrets"


@pytest.mark.parametrize("name", sorted(OURS - {"secrets"}))
def test_compose_does_not_override_the_user_of_built_images(name: str) -> None:
    assert "user" not in SERVICES[name]
    assert "cap_add" not in SERVICES[name]


@pytest.mark.parametrize("stack", [STACK, DEVELOPMENT], ids=FILES)
def test_ports_are_published_on_localhost_only(stack: dict[str, Any]) -> None:
    ports = [port for each in published(stack).values() for port in each]

    assert ports
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port)] == []


def test_only_web_pages_are_published() -> None:
    assert set(published(STACK)) == {"api", "mlflow", "grafana", "prometheus", "alertmanager", "watcher", "evidently"}


def test_databases_are_on_an_internal_network_of_their_clients() -> None:
    members = {name for name, service in SERVICES.items() if "backend" in service.get("networks", [])}

    assert STACK["networks"]["backend"] == {"internal": True}
    assert members == {
        *("postgres", "valkey", "object-store"),
        *("seed", "mlflow", "trainer", "runner", "api", "watcher", "demo"),
    }
    assert all(SERVICES[name]["networks"] == ["backend"] for name in ("postgres", "valkey", "object-store"))


def test_the_compose_file_has_no_password() -> None:
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
def test_every_variable_is_in_the_example_env_file(file: str) -> None:
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
def test_every_mounted_file_exists(stack: dict[str, Any]) -> None:
    mounted = [each.split(":") for service in stack["services"].values() for each in service.get("volumes", [])]
    files = [(source, how) for source, _, *how in mounted if source.startswith(".")]

    assert [source for source, _ in files if not (ROOT / source).exists()] == []
    assert all(how == ["ro"] for _, how in files)


def test_every_declared_volume_is_used() -> None:
    used = {source for name in SERVICES for source in volumes(name) if not source.startswith((".", "/"))}

    assert used == set(STACK["volumes"])


def test_the_mlflow_server_allows_the_host_names_of_its_clients() -> None:
    hosts = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    assert {"mlflow", "mlflow:*", "localhost:*", "127.0.0.1:*"} <= set(hosts)
    assert all(
        service["environment"].get("MLFLOW_TRACKING_URI", "http://mlflow:5000") == "http://mlflow:5000"
        for service in SERVICES.values()
        if "environment" in service
    )


def test_prometheus_target_files_name_compose_services() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    patterns = [each["files"] for job in config["scrape_configs"] for each in job["file_sd_configs"]]
    patterns += [each["files"] for each in config["alerting"]["alertmanagers"][0]["file_sd_configs"]]

    for folder in (ROOT / "monitoring/prometheus", ROOT / "compose"):
        for (file,) in patterns:
            (group,) = yaml.safe_load((folder / file).read_text())
            assert all(re.fullmatch(r"[\w.-]+:\d+", target) for target in group["targets"])
    for file in (ROOT / "compose/targets").glob("*.yml"):
        (group,) = yaml.safe_load(file.read_text())
        assert {target.split(":")[0] for target in group["targets"]} <= set(SERVICES)


def test_a_smoke_check_before_startup_fails_with_the_start_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "compose", lambda *words: "key")
    monkeypatch.setattr(stack, "published", lambda service, port: "")

    with pytest.raises(Failed, match="api is not up; start the stack: make up"):
        stack.smoke()


@pytest.mark.parametrize("module", ["ops.stack", "ops.rollout"])
def test_a_third_party_package_named_compose_does_not_shadow_the_module(module: str, tmp_path: Path) -> None:
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "__init__.py").write_text("")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert f"-m {module}" in done.stderr
