"""The manifests are valid, pass checkov, and meet the further rules of a platform team."""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from manifests import (
    CLUSTER,
    COMPONENTS,
    K8S,
    OURS,
    OVERLAYS,
    PODS,
    PROBES,
    ROOT,
    Manifest,
    Pod,
    composed,
    every_overlay,
    every_pod,
    every_server,
    find,
    of_kind,
    pods,
    pods_of,
    quantity,
    rendered,
    selects,
    title,
    with_component,
)
from ops import render
from requirements import need

OF_OTHERS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "InferenceService"}
"""Kinds that Kubernetes itself does not know."""
OF_THE_CLUSTER = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
OF_THE_ADMINISTRATOR = OF_THE_CLUSTER | {"ResourceQuota", "LimitRange"}
PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}
every_rendered = pytest.mark.parametrize("overlay", render.OVERLAYS)
API_SERVER_CLIENTS = {"watcher", "secrets"}
"""The pods that call the API server."""
SCALERS = ("HorizontalPodAutoscaler",)


def invalid(manifests: Iterable[Manifest], version: str) -> list[str]:
    """What the schema of that Kubernetes says against each of its own kinds."""
    checked = [each for each in manifests if each["kind"] not in OF_OTHERS]
    assert checked
    errors = []
    for each in checked:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            errors.append(f"{each['kind']} {each['metadata']['name']}: {error.message}")
    return errors


def test_an_overlay_is_rendered_again_if_an_input_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "k8s/overlays/local"
    folder.mkdir(parents=True)
    resource, kustomization = folder / "one.yaml", folder / "kustomization.yaml"
    kustomization.write_text("resources: [one.yaml]")
    resource.write_text("{apiVersion: v1, kind: ServiceAccount, metadata: {name: first}}")
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "RENDERED", tmp_path / "rendered")

    assert "first" in render.overlay(need("kubectl"), "local").read_text()
    assert "first" in render.overlay("/no/kubectl", "local").read_text(), "nothing is newer"

    later = render.overlay(need("kubectl"), "local").stat().st_mtime + 1
    resource.write_text(resource.read_text().replace("first", "second"))
    os.utime(resource, (later, later))
    assert "second" in render.overlay(need("kubectl"), "local").read_text()


@every_rendered
def test_every_namespaced_object_is_in_the_namespace(overlay: str) -> None:
    assert {each["kind"] for each in rendered(overlay) if "namespace" not in each["metadata"]} <= OF_THE_CLUSTER
    kustomization = yaml.safe_load((K8S / "overlays" / render.OVERLAYS[overlay] / "kustomization.yaml").read_text())
    found = {each["metadata"]["namespace"] for each in rendered(overlay) if "namespace" in each["metadata"]}
    assert found == {kustomization["namespace"]}


@pytest.mark.reported
def test_the_environment_on_the_page_is_prod_with_its_own_values(tmp_path: Path) -> None:
    _, _, section = (ROOT / "docs/kubernetes.md").read_text().partition("## Another environment\n")
    _, example = section.partition("```yaml\n")[2].partition("```")[0].split("kind: Kustomization\n")

    made = composed(tmp_path, example.replace("../prod", "k8s/overlays/prod"))

    assert len(made) == len(rendered("prod"))
    assert {each["metadata"]["namespace"] for each in made} == {"churn-staging"}
    tags = {container["image"].rpartition(":")[2] for pod in pods_of("staging", made) for container in pod.containers}
    assert tags == {"0.2.0"}
    bounds = [each["spec"] for each in made if each["kind"] in SCALERS]
    assert [(each["minReplicas"], each["maxReplicas"]) for each in bounds] == [(3, 3)]
    assert "example-churn" not in str(made)
    assert "churn.example.com" not in str(made)


def test_the_prod_overlay_has_no_object_that_needs_an_administrator() -> None:
    assert of_kind("prod", *OF_THE_ADMINISTRATOR) == []
    assert {each["kind"] for each in rendered("prod-cluster")} == OF_THE_ADMINISTRATOR | {"Role", "RoleBinding"}


@pytest.mark.reported
def test_the_deployer_role_covers_every_object_of_the_prod_overlay() -> None:
    rules = find("prod-cluster", "Role", "deployer")["rules"]
    verbs = {"get", "create", "patch", "update", "delete"}
    allowed = {
        (group, resource)
        for rule in rules
        if verbs <= {*rule["verbs"]}
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }

    used = {
        (each["apiVersion"].rpartition("/")[0], PLURALS.get(each["kind"], f"{each['kind'].lower()}s"))
        for each in rendered("prod")
    }
    # A Job is started from the CronJob `train`.
    assert allowed == used | {("batch", "jobs")}


@pytest.mark.reported
def test_the_deployer_role_includes_the_rights_of_the_watcher() -> None:
    def rights(overlay: str, name: str) -> set[tuple[str, str, str]]:
        return {
            (group, resource, verb)
            for rule in find(overlay, "Role", name)["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    assert rights("prod", "watcher") <= rights("prod-cluster", "deployer")


def test_the_deployer_role_can_read_revisions_for_a_rollback() -> None:
    rules = find("prod-cluster", "Role", "deployer")["rules"]
    verbs = {verb for rule in rules if "replicasets" in rule["resources"] for verb in rule["verbs"]}

    # kubectl lists the ReplicaSets of a Deployment for `rollout undo`; it patches the Deployment alone.
    assert verbs == {"get", "list", "watch"}


@pytest.mark.reported
def test_the_prod_overlay_has_no_immutable_job() -> None:
    assert of_kind("prod", "Job") == []
    (training,) = [each for each in of_kind("prod", "CronJob") if each["metadata"]["name"] == "train"]
    assert training["spec"]["suspend"] is True


def test_the_first_training_job_of_local_matches_its_cronjob() -> None:
    training = find("local", "CronJob", "train")

    assert find("local", "Job", "train")["spec"] == training["spec"]["jobTemplate"]["spec"]


def test_the_generated_prometheus_rules_are_current() -> None:
    assert render.operator_rules() == render.OPERATOR_RULES.read_text(), "run `make render`"


# The oldest that has all that is used, and the newest that is known.
@pytest.mark.parametrize("version", ["1.30", "1.37"])
@every_rendered
def test_every_object_matches_the_kubernetes_schema(overlay: str, version: str) -> None:
    assert invalid(rendered(overlay), version) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_that_no_overlay_uses_is_valid(component: str, tmp_path: Path) -> None:
    assert invalid(with_component(tmp_path, component), "1.30") == []


@every_rendered
def test_checkov_reports_no_problem(overlay: str) -> None:
    command = [need("checkov"), "--config-file=k8s/checkov.yaml", f"--file={render.overlay(need('kubectl'), overlay)}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    passed = re.search(r"Passed checks: (\d+), Failed checks: 0", done.stdout)
    assert passed, done.stdout + done.stderr
    assert int(passed[1]) > (10 if overlay == "prod-cluster" else 500)
    assert done.returncode == 0


def test_every_component_file_is_used() -> None:
    kustomizations = {path.parent: yaml.safe_load(path.read_text()) for path in K8S.rglob("kustomization.yaml")}
    used = {
        (folder / each).resolve()
        for folder, content in kustomizations.items()
        for each in [
            *content.get("resources", ()),
            *content.get("components", ()),
            *content.get("configurations", ()),
            *(patch["path"] for patch in content.get("patches", ()) if "path" in patch),
        ]
    }

    files = {path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files - used == {K8S / "checkov.yaml"}
    folders = set(kustomizations) - used - {K8S / "overlays" / folder for folder in render.OVERLAYS.values()}
    assert folders == {K8S / "components" / each for each in COMPONENTS}


@every_rendered
def test_every_object_has_the_standard_labels(overlay: str) -> None:
    wanted = {f"app.kubernetes.io/{each}" for each in ("name", "component", "part-of", "managed-by")}

    bare = [title(each) for each in rendered(overlay) if not wanted <= set(each["metadata"].get("labels", {}))]
    bare += [str(pod) for pod in pods(overlay) if not wanted <= set(pod.labels)]

    assert bare == []


@every_overlay
def test_the_namespace_enforces_a_pinned_restricted_pod_security_version(overlay: str) -> None:
    (namespace,) = of_kind(CLUSTER[overlay], "Namespace")
    labels = {key.partition("/")[2]: value for key, value in namespace["metadata"]["labels"].items()}

    assert (labels["enforce"], labels["warn"], labels["audit"]) == ("restricted",) * 3
    assert re.fullmatch(r"v1\.\d+", labels["enforce-version"])
    # What an upgrade would refuse shows before the pinned version is moved.
    assert labels["warn-version"] == labels["audit-version"] == "latest"


@every_pod
def test_pods_meet_the_restricted_rules_that_checkov_omits(pod: Pod) -> None:
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}

    assert pod.spec["securityContext"]["runAsNonRoot"] is True
    assert {key for volume in pod.spec["volumes"] for key in volume if key != "name"} <= allowed


@every_pod
def test_built_pods_run_as_the_image_user_and_write_to_their_volume_and_tmp_only(pod: Pod) -> None:
    if not any(OURS.match(each["image"]) for each in pod.containers):
        assert pod.spec["securityContext"]["runAsUser"] > 0
        return

    assert all(pod.spec["securityContext"][key] == 10001 for key in ("runAsUser", "runAsGroup", "fsGroup"))
    mounts = [mount for container in pod.containers for mount in container.get("volumeMounts", ())]
    assert {mount["mountPath"] for mount in mounts if not mount.get("readOnly")} <= {"/var/lib/churn", "/tmp"}


@every_pod
def test_only_pods_that_call_the_api_server_have_a_token(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is (pod.name in API_SERVER_CLIENTS)
    account = find(pod.overlay, "ServiceAccount", pod.spec["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False


@every_overlay
def test_every_component_has_its_own_service_account(overlay: str) -> None:
    used: dict[str, set[str]] = {}
    for pod in pods(overlay):
        used.setdefault(pod.spec["serviceAccountName"], set()).add(pod.labels["app.kubernetes.io/name"])

    assert {account: {account} for account in used} == used
    assert set(used) == {each["metadata"]["name"] for each in of_kind(overlay, "ServiceAccount")}


@every_pod
def test_service_link_variables_are_disabled(pod: Pod) -> None:
    assert pod.spec["enableServiceLinks"] is False, "CHURN_…_PORT of a Service would be refused as an unknown setting"


@every_pod
def test_every_container_limit_is_at_least_its_request(pod: Pod) -> None:
    for container in pod.containers:
        requested, bound = container["resources"]["requests"], container["resources"]["limits"]

        assert "ephemeral-storage" in requested, "checkov asks for the others"
        assert all(quantity(requested[each]) <= quantity(bound[each]) for each in requested)


@every_overlay
def test_the_maximum_scale_fits_the_resource_quota(overlay: str) -> None:
    (quota,) = of_kind(CLUSTER[overlay], "ResourceQuota")
    replicas = {each["spec"]["scaleTargetRef"]["name"]: each["spec"]["maxReplicas"] for each in of_kind(overlay, *SCALERS)}

    def at_most(pod: Pod) -> float:
        # A roll-out makes a quarter more of those that surge.
        return float(replicas[pod.name] * 1.25 if pod.name in replicas else pod.owner["spec"].get("replicas", 1))

    for key, hard in quota["spec"]["hard"].items():
        side, _, resource = key.partition(".")
        if side in ("requests", "limits") and resource in ("cpu", "memory", "ephemeral-storage"):
            needed = sum(
                at_most(pod) * sum(quantity(each["resources"][side][resource]) for each in pod.spec["containers"])
                for pod in pods(overlay)
            )
            assert needed <= quantity(hard), key
    assert sum(map(at_most, pods(overlay))) <= quantity(quota["spec"]["hard"]["pods"])


@every_server
def test_a_server_has_separate_startup_liveness_and_readiness_probes(pod: Pod) -> None:
    for container in pod.spec["containers"]:
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        actions = {"httpGet", "tcpSocket", "exec"}
        alive, ready = ({key: container[probe][key] for key in actions & set(container[probe])} for probe in PROBES)
        assert alive != ready, "the liveness probe must require less than the readiness probe"
        assert all(container[probe]["timeoutSeconds"] >= 2 for probe in PROBES)


@pytest.mark.parametrize("pod", [pod for pod in PODS if not pod.is_server], ids=str)
def test_jobs_have_a_deadline_a_retry_limit_and_a_ttl(pod: Pod) -> None:
    spec = pod.owner["spec"].get("jobTemplate", pod.owner)["spec"]

    assert spec["activeDeadlineSeconds"] > 0
    assert 1 <= spec["backoffLimit"] <= 10
    # A store that is away for a moment is not the end: what failed is finished by the next attempt.
    assert {rule["action"] for rule in spec.get("podFailurePolicy", {}).get("rules", ())} <= {"Ignore"}
    assert pod.spec["restartPolicy"] in ("Never", "OnFailure")
    assert pod.owner["kind"] == "CronJob" or spec["ttlSecondsAfterFinished"] > 0
    assert not any(probe in container for probe in PROBES for container in pod.containers)


@every_pod
def test_ports_are_named_and_probes_use_the_names(pod: Pod) -> None:
    for container in pod.containers:
        names = {port.get("name") for port in container.get("ports", ())}
        requested = {
            container[probe][how]["port"]
            for probe in (*PROBES, "startupProbe")
            for how in ("httpGet", "tcpSocket")
            if how in container.get(probe, {})
        }

        assert None not in names
        assert requested <= names


@every_overlay
def test_every_service_selects_one_component_and_targets_named_ports(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        selected = [pod for pod in pods(overlay) if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]

        assert [pod.name for pod in selected] == [service["metadata"]["name"]]
        ports = {port["name"]: port["containerPort"] for each in selected[0].spec["containers"] for port in each["ports"]}
        assert [(port["targetPort"], port["port"]) for port in service["spec"]["ports"]] == list(ports.items())


@every_server
def test_a_workload_selects_its_own_pods_only(pod: Pod) -> None:
    selector = pod.owner["spec"]["selector"]

    assert [other.name for other in pods(pod.overlay) if selects(selector, other.labels)] == [pod.name]


def test_cd_replaces_the_tag_of_every_built_image_by_a_digest(tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    images = [
        f"  - {{name: registry.example.com/churn/churn-{each}, digest: '{digest}'}}" for each in ("serve", "train", "monitor")
    ]

    made = composed(tmp_path, "resources: [k8s/overlays/prod]", "components: [k8s/components/kserve]", "images:", *images)

    used = {container["image"] for pod in pods_of("prod", made) for container in pod.containers}
    assert used == {f"registry.example.com/churn/churn-{each}@{digest}" for each in ("train", "monitor")}


@every_server
def test_replicated_workloads_have_a_disruption_budget_and_are_spread(pod: Pod) -> None:
    scaled = [each["spec"] for each in of_kind(pod.overlay, *SCALERS) if each["spec"]["scaleTargetRef"]["name"] == pod.name]
    if not scaled and pod.owner["spec"].get("replicas", 1) == 1:
        return

    (budget,) = [each for each in of_kind(pod.overlay, "PodDisruptionBudget") if selects(each["spec"]["selector"], pod.labels)]
    assert budget["spec"]["maxUnavailable"] == 1
    keys = {each["topologyKey"] for each in pod.spec["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert all(selects(each["labelSelector"], pod.labels) for each in pod.spec["topologySpreadConstraints"])


def test_production_scales_from_2_to_20_fast_up_and_slow_down() -> None:
    (scaler,) = of_kind("prod", *SCALERS)
    behavior = scaler["spec"]["behavior"]

    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 20)
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300
    assert {each["periodSeconds"] for each in behavior["scaleDown"]["policies"]} == {60}


@every_overlay
def test_autoscaled_workloads_set_no_replica_count(overlay: str) -> None:
    for scaler in of_kind(overlay, *SCALERS):
        target = scaler["spec"]["scaleTargetRef"]

        assert "replicas" not in find(overlay, target["kind"], target["name"])["spec"]


@every_overlay
def test_a_rollout_of_the_api_drops_no_request(overlay: str) -> None:
    spec = find(overlay, "Deployment", "api")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}

    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["minReadySeconds"] > 0
    # uvicorn waits ten seconds for what is in flight; the log's last part goes out after that.
    ends = container["lifecycle"]["preStop"]["sleep"]["seconds"] + float(environment["CHURN_DRAIN_S"]) + 10
    assert pod["terminationGracePeriodSeconds"] >= ends + 10
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # Gone from the Services before the server stops taking requests.
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= float(environment["CHURN_DRAIN_S"])


@every_overlay
def test_a_pod_with_a_volume_is_stopped_before_its_replacement_starts(overlay: str) -> None:
    for pod in pods(overlay):
        claims = any("persistentVolumeClaim" in volume for volume in pod.spec["volumes"])
        if pod.owner["kind"] == "Deployment" and claims:
            assert pod.owner["spec"]["replicas"] == 1
            assert pod.owner["spec"]["strategy"] == {"type": "Recreate"}


def test_mlflow_allows_the_host_names_of_its_clients_and_probes() -> None:
    for overlay in OVERLAYS:
        pod = find(overlay, "Deployment", "mlflow")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        allowed = find(overlay, "ConfigMap", container["envFrom"][1]["configMapRef"]["name"])["data"][
            "MLFLOW_SERVER_ALLOWED_HOSTS"
        ]

        for probe in (*PROBES, "startupProbe"):
            (header,) = container[probe]["httpGet"]["httpHeaders"]
            assert header["name"] == "Host"
            assert header["value"].partition(":")[0] + ":*" in allowed.split(",")


def test_local_has_one_replica_per_workload_and_small_requests() -> None:
    assert of_kind("local", *SCALERS) == []
    assert {pod.owner["spec"]["replicas"] for pod in pods("local") if pod.is_server} == {1}

    def requested(resource: str) -> float:
        return sum(quantity(each["resources"]["requests"][resource]) for pod in pods("local") for each in pod.spec["containers"])

    assert requested("cpu") <= 2
    assert requested("memory") <= quantity("4Gi")


def test_production_has_no_stateful_set_and_no_secret() -> None:
    assert of_kind("prod", "StatefulSet", "Secret") == []
    assert {pod.name for pod in pods("prod")} == {"api", "watcher", "mlflow", "train", "churn-retrain", "materialise"}


def test_the_local_overlay_has_every_compose_service() -> None:
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    here = {pod.labels["app.kubernetes.io/name"] for pod in pods("local")}

    # The runner is the Job that the watcher makes; two are for showing.
    assert services - {"demo", "evidently", "runner", "trainer"} <= here
    assert {"train", "retrain", "materialise"} <= here


def object_stores() -> list[list[str]]:
    """What starts it, in the cluster and in the composed stack."""
    (pod,) = [pod for pod in pods("local") if pod.name == "object-store"]
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return [pod.spec["containers"][0]["command"], stack["services"]["object-store"]["command"]]


def test_the_object_store_sends_no_telemetry() -> None:
    assert all("-master.telemetry=false" in command for command in object_stores())


def test_the_object_store_listens_for_s3_only() -> None:
    for command in object_stores():
        assert {"-s3.port.iceberg=0", "-s3.port.lance=0"} <= {*command}
        assert [each for each in command if each.endswith("=0.0.0.0")] == ["-s3.ip.bind=0.0.0.0"]
