"""Everything that the manifests name exists: files of monitoring/, ConfigMaps, Secrets, volumes, settings, programs."""

import re
from pathlib import Path

import boto3
import pytest
import yaml

from churn.adapters.object_storage import s3
from churn.cli import app
from churn.settings import FILE, KINDS, PREFIX, Monitoring, Serving
from manifests import (
    OURS,
    OVERLAYS,
    PODS,
    ROOT,
    Pod,
    config_maps,
    every_overlay,
    every_pod,
    find,
    local,
    mounted_files,
    named,
    of_kind,
    pods,
    rendered,
    secrets_of,
    table,
    variables,
)

HASH = r"-[bcdfghkmt24-9]{10}"
"""What kustomize writes behind a ConfigMap's name."""
SETTINGS = {
    f"{PREFIX}{name}".upper() for kind in KINDS for name, field in kind.model_fields.items() if not field.validation_alias
}
REGIONS = {"local": "us-east-1", "prod": "eu-central-1"}
SECRETS = table("| Secret | file | what | needed by | overlay |")
OUR_PODS = [pod for pod in PODS if OURS.match(pod.spec["containers"][0]["image"])]
every_pod_of_ours = pytest.mark.parametrize("pod", OUR_PODS, ids=str)


def documented(overlay: str) -> dict[str, set[str]]:
    """Secret → its files, as docs/kubernetes.md lists them."""
    found: dict[str, set[str]] = {}
    for secret, file, _, _, where in SECRETS:
        if where in ("both", overlay):
            found.setdefault(named(secret)[0], set()).update(named(file))
    return found


def dockerfile(pod: Pod) -> str:
    image = OURS.match(pod.spec["containers"][0]["image"])
    assert image
    return (ROOT / f"Dockerfile.{image[1]}").read_text()


def data(overlay: str, prefix: str) -> dict[str, str]:
    """The files of the ConfigMap whose name is this, and a hash if it has one."""
    (found,) = [each for each in of_kind(overlay, "ConfigMap") if re.fullmatch(f"{prefix}({HASH})?", each["metadata"]["name"])]
    return dict(found["data"])


@every_pod
def test_every_referenced_config_map_exists_with_its_keys(pod: Pod) -> None:
    for name, keys in config_maps(pod.spec):
        assert set(keys) <= set(find(pod.overlay, "ConfigMap", name)["data"])


@every_overlay
def test_every_config_map_is_used(overlay: str) -> None:
    read = {name for pod in pods(overlay) for name, _ in config_maps(pod.spec)}
    shown = {
        each["metadata"]["name"] for each in of_kind(overlay, "ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]
    }

    assert {each["metadata"]["name"] for each in of_kind(overlay, "ConfigMap")} - shown <= read


@every_overlay
def test_config_maps_have_a_content_hash_except_dashboards(overlay: str) -> None:
    names = {each["metadata"]["name"]: each["metadata"]["labels"] for each in of_kind(overlay, "ConfigMap")}

    fixed = {name for name in names if not re.search(f"{HASH}$", name)}

    assert fixed == {name for name, labels in names.items() if "grafana_dashboard" in labels} == {"grafana-dashboards"}


@every_pod
def test_every_secret_that_is_mounted_is_documented(pod: Pod) -> None:
    assert set(secrets_of(pod.spec).values()) <= set(documented(pod.overlay))


@every_overlay
def test_every_documented_secret_is_used(overlay: str) -> None:
    mounted = {secret for pod in pods(overlay) for secret in secrets_of(pod.spec).values()}
    certificates = {tls["secretName"] for each in of_kind(overlay, "Ingress") for tls in each["spec"]["tls"]}
    pulls = {secret["name"] for each in of_kind(overlay, "ServiceAccount") for secret in each.get("imagePullSecrets", ())}

    assert mounted | certificates | pulls == set(documented(overlay))


@every_pod
def test_every_referenced_secret_file_is_documented(pod: Pod) -> None:
    known, folders = documented(pod.overlay), secrets_of(pod.spec)

    for container in pod.spec["containers"]:
        words = [*variables(pod.overlay, container).values(), *container.get("command", ()), *container.get("args", ())]
        for folder, secret in folders.items():
            requested = set(re.findall(rf"{folder}/([\w.]+)", " ".join(words)))
            assert requested <= known[secret]


@every_overlay
def test_the_table_lists_the_components_that_mount_each_secret(overlay: str) -> None:
    mounting: dict[str, set[str]] = {}
    for pod in pods(overlay):
        for secret in secrets_of(pod.spec).values():
            mounting.setdefault(secret, set()).add(pod.labels["app.kubernetes.io/name"])

    declared: dict[str, set[str]] = {}
    for secret, _, _, who, where in SECRETS:
        if where in ("both", overlay) and named(secret)[0] in mounting:
            declared.setdefault(named(secret)[0], set()).update(who.split(", "))
    assert declared == mounting


@every_pod
def test_no_variable_has_a_password(pod: Pod) -> None:
    for container in pod.containers:
        for name, value in variables(pod.overlay, container).items():
            assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEYS?)$", name)
            assert not re.search(r"://[^/\s@]*:[^/\s@]+@", value)


@every_pod
def test_every_volume_is_mounted_and_every_volume_claim_exists(pod: Pod) -> None:
    claims = {each["metadata"]["name"] for each in of_kind(pod.overlay, "PersistentVolumeClaim")}
    own = {each["metadata"]["name"] for each in pod.owner["spec"].get("volumeClaimTemplates", ())}
    volumes = {each["name"] for each in pod.spec["volumes"]}
    mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", ())}

    assert mounted == volumes | own
    assert {
        each["persistentVolumeClaim"]["claimName"] for each in pod.spec["volumes"] if "persistentVolumeClaim" in each
    } <= claims


@every_pod_of_ours
def test_every_prefixed_variable_is_a_setting(pod: Pod) -> None:
    for container in pod.containers:
        own = {name for name in variables(pod.overlay, container) if name.startswith(PREFIX)}

        assert {name for name in own if name.removesuffix(FILE) not in SETTINGS} == set()
        assert not {name for name in own if name + FILE in own}, "a value and a file of it are refused"


@every_pod_of_ours
def test_every_file_of_a_setting_is_mounted(pod: Pod) -> None:
    for container in pod.containers:
        mounted = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
        files = {value for name, value in variables(pod.overlay, container).items() if name.endswith(FILE)}

        assert {str(Path(file).parent) for file in files} <= mounted & set(secrets_of(pod.spec))


@every_pod_of_ours
def test_s3_clients_use_the_region_of_the_overlay(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    for container in pod.containers:
        declared = {name: value for name, value in variables(pod.overlay, container).items() if name.startswith("AWS_")}
        if declared:
            for name, value in declared.items():
                monkeypatch.setenv(name, value)

            # MLflow and DVC use boto3, all else uses Arrow.
            assert boto3.session.Session().region_name == s3().region == REGIONS[pod.overlay]


@every_pod_of_ours
def test_container_commands_exist_in_the_image(pod: Pod) -> None:
    text = dockerfile(pod)
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}

    for container in pod.containers:
        command = container.get("command")
        if command is None:
            assert "args" not in container
            assert 'ENTRYPOINT ["python", "-m"' in text, "the image by itself would run something else"
        elif "python" not in command:
            words = " ".join(command)
            assert set(re.findall(r"\bchurn (\w+)", words)) <= known
            assert "churn" not in words or "bin/churn" in text
            assert re.search(r"\b(churn|mlflow) ", words + " ")


@pytest.mark.parametrize(("name", "port"), [("api", Serving().port), ("watcher", Monitoring().monitor_port)])
@every_overlay
def test_container_ports_match_the_settings_and_the_image(overlay: str, name: str, port: int) -> None:
    (pod,) = [pod for pod in pods(overlay) if pod.name == name]

    assert [each["containerPort"] for each in pod.spec["containers"][0]["ports"]] == [port]
    assert f"EXPOSE {port}\n" in dockerfile(pod)


@every_pod_of_ours
def test_the_pod_user_matches_the_image_user(pod: Pod) -> None:
    security = pod.spec["securityContext"]

    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in dockerfile(pod)
    written = {mount["mountPath"] for mount in pod.spec["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    assert written - {"/tmp"} <= set(re.findall(r"^VOLUME (\S+)", dockerfile(pod), re.MULTILINE))


@every_overlay
def test_workspace_jobs_use_the_pipeline_lock(overlay: str) -> None:
    for pod in pods(overlay):
        if any(each.get("persistentVolumeClaim", {}).get("claimName") == "workspace" for each in pod.spec["volumes"]):
            command = pod.spec["containers"][0]["command"][-1]
            assert command.startswith("flock . ")
            # These lock by themselves; within a lock they would wait for it for good.
            assert not re.search(r'flock \. sh -c "[^"]*churn (repro|retrain)', command)


@every_overlay
def test_retraining_is_daily_without_overlap_and_keeps_its_history(overlay: str) -> None:
    settings = Monitoring()
    spec = find(overlay, "CronJob", settings.trigger_cronjob)["spec"]
    minute, hour, *rest = spec["schedule"].split()

    assert (minute.isdigit(), hour.isdigit(), rest) == (True, True, ["*", "*", "*"])
    assert spec["timeZone"] == "Etc/UTC"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["suspend"] is False
    assert spec["startingDeadlineSeconds"] >= 100, "with less, the controller may miss it"
    assert spec["successfulJobsHistoryLimit"] > 0
    assert spec["failedJobsHistoryLimit"] > 0
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == settings.retrain_timeout_s


@pytest.mark.parametrize(
    ("name", "folder", "pattern"),
    [
        ("prometheus", "monitoring/prometheus", "prometheus.yml"),
        ("prometheus-rules", "monitoring/prometheus/rules", "*.yml"),
        ("prometheus-targets", "compose/targets", "*.yml"),
        ("alertmanager", "monitoring/alertmanager", "*.yml"),
        ("grafana-datasources", "monitoring/grafana/provisioning/datasources", "*.yml"),
        ("grafana-providers", "monitoring/grafana/provisioning/dashboards", "*.yml"),
        ("grafana-dashboards", "monitoring/grafana/dashboards", "*.json"),
        ("postgres-init", "compose/postgres", "*.sh"),
        ("valkey", "compose/valkey", "*.conf"),
        ("make-secrets", "ops", "make_secrets.py"),
    ],
)
def test_config_map_files_equal_the_project_files(name: str, folder: str, pattern: str) -> None:
    files = {path.name: path.read_bytes() for path in (ROOT / folder).glob(pattern)}

    assert files
    assert {key: text.encode() for key, text in data("local", name).items()} == files


def test_the_grafana_sidecar_config_map_has_the_same_dashboards() -> None:
    assert data("prod", "grafana-dashboards") == data("local", "grafana-dashboards")


def test_sidecar_dashboards_go_into_their_own_folder() -> None:
    annotations = find("prod", "ConfigMap", "grafana-dashboards")["metadata"]["annotations"]

    # As the sidecar calls it where Grafana's chart says nothing else.
    assert annotations == {"k8s-sidecar-target-directory": "churn"}


def test_the_prometheus_rule_object_equals_the_rule_files() -> None:
    files = (ROOT / "monitoring/prometheus/rules").glob("*.yml")

    made = {each["metadata"]["name"]: each["spec"] for each in of_kind("prod", "PrometheusRule")}

    assert made == {f"churn-{path.stem}": yaml.safe_load(path.read_text()) for path in files}


def test_every_file_of_the_prometheus_configuration_is_mounted() -> None:
    files = mounted_files(local("prometheus"), "/etc/prometheus")
    config = yaml.safe_load(files["prometheus.yml"])

    named_files = [file for job in config["scrape_configs"] for each in job["file_sd_configs"] for file in each["files"]]
    named_files += config["alerting"]["alertmanagers"][0]["file_sd_configs"][0]["files"]
    assert set(named_files) <= set(files)
    assert {path for path in files if path.startswith("rules/")} == {"rules/alerts.yml", "rules/recording.yml"}


def test_every_scrape_target_is_a_service_port() -> None:
    files = mounted_files(local("prometheus"), "/etc/prometheus")
    targets = {
        target for path, text in files.items() if path.startswith("targets/") for target in yaml.safe_load(text)[0]["targets"]
    }

    services = {
        f"{each['metadata']['name']}:{port['port']}" for each in of_kind("local", "Service") for port in each["spec"]["ports"]
    }

    assert len(targets) == 4
    assert targets <= services


def test_grafana_provisioning_files_are_at_the_expected_paths() -> None:
    provisioning = mounted_files(local("grafana"), "/etc/grafana/provisioning")
    provider = yaml.safe_load(provisioning["dashboards/churn.yml"])["providers"][0]

    assert set(provisioning) == {"datasources/prometheus.yml", "dashboards/churn.yml"}
    assert set(mounted_files(local("grafana"), provider["options"]["path"])) == {"drift.json", "model.json", "service.json"}


def test_service_monitors_use_the_job_names_of_the_rules() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    known = {job["job_name"] for job in config["scrape_configs"]} - {"prometheus"}

    jobs = {}
    for monitor in of_kind("prod", "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        (service,) = [
            each
            for each in of_kind("prod", "Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        ]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        jobs[service["metadata"]["name"]] = relabeling["replacement"]

    assert set(jobs.values()) == known


def test_production_pods_have_image_pull_secrets() -> None:
    accounts = {each["metadata"]["name"]: each.get("imagePullSecrets") for each in of_kind("prod", "ServiceAccount")}

    assert {pod.spec["serviceAccountName"] for pod in pods("prod")} <= set(accounts)
    assert all(secrets == [{"name": "registry"}] for secrets in accounts.values())


def test_every_object_named_in_a_documented_command_exists() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    known = {f"{each['kind'].lower()}/{each['metadata']['name']}" for overlay in OVERLAYS for each in rendered(overlay)}
    requested = set(re.findall(r"\b(?:deployment|service|cronjob|job|statefulset)/[a-z][a-z-]*", page))

    assert len(requested) > 5
    assert requested <= known


@every_overlay
def test_the_documented_reset_deletes_every_job_that_mounts_the_claim(overlay: str) -> None:
    """A claim stays while a pod has it, and those of Jobs that have ended are pods."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    requested = re.search(r"delete pvc workspace --wait=false\n.* delete job --selector (\S+)=(\S+)", page)
    assert requested
    key, value = requested.groups()

    for pod in pods(overlay):
        if any(each.get("persistentVolumeClaim", {}).get("claimName") == "workspace" for each in pod.spec["volumes"]):
            job = pod.owner if pod.owner["kind"] == "Job" else pod.owner["spec"]["jobTemplate"]
            assert job["metadata"]["labels"][key] == value


@every_overlay
def test_the_documented_wait_exceeds_the_termination_grace_period(overlay: str) -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    requested = re.search(r"wait --for=delete pvc/workspace --timeout=(\d+)m", page)
    assert requested

    for pod in pods(overlay):
        if any("persistentVolumeClaim" in each for each in pod.spec["volumes"]):
            # Kubernetes' default, where the pod says nothing.
            assert pod.spec.get("terminationGracePeriodSeconds", 30) <= int(requested[1]) * 60 / 2


def test_every_cluster_host_name_is_a_service() -> None:
    for overlay in OVERLAYS:
        services = {
            f"{each['metadata']['name']}:{port['port']}" for each in of_kind(overlay, "Service") for port in each["spec"]["ports"]
        }
        for pod in pods(overlay):
            for container in pod.containers:
                addresses = re.findall(r"https?://([^/\s]+)", " ".join(variables(overlay, container).values()))
                assert {each for each in addresses if "." not in each} <= services
