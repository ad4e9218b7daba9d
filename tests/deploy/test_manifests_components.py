"""Optional parts for a cluster: components that no overlay uses, ingress, and deployment tools."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from churn.settings import Serving
from manifests import K8S, PROBES, ROOT, Manifest, composed, find, of_kind, pods_of, title, with_component
from serving.app import create_app


def one(kind: str, made: Iterable[Manifest]) -> Manifest:
    """The only object of that kind."""
    (found,) = [each for each in made if each["kind"] == kind]
    return found


def test_gpu_training_requests_a_device_a_gpu_node_and_shared_memory(tmp_path: Path) -> None:
    trainings = [pod for pod in pods_of("gpu", with_component(tmp_path, "gpu")) if pod.name in ("train", "churn-retrain")]

    assert len(trainings) == 2
    for pod in trainings:
        container = pod.spec["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert pod.spec["tolerations"][0]["key"] == "nvidia.com/gpu"
        memory = [volume["name"] for volume in pod.spec["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
        assert [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in memory] == ["/dev/shm"]


def test_kserve_replaces_the_deployment_with_the_same_pod_spec(tmp_path: Path) -> None:
    made = with_component(tmp_path, "kserve")
    service = one("InferenceService", made)
    serving = service["spec"]["predictor"]
    deployment = find("local", "Deployment", "api")["spec"]
    ours = deployment["template"]["spec"]
    same = {"securityContext", "serviceAccountName", "enableServiceLinks", "terminationGracePeriodSeconds", "volumes"}
    same |= {"topologySpreadConstraints"}

    assert not {"Deployment api", "HorizontalPodAutoscaler api"} & set(map(title, made))
    (entrance,) = [each for each in made if title(each) == "Service api"]
    assert entrance["spec"]["selector"].items() <= service["metadata"]["labels"].items()
    assert entrance["spec"]["ports"][0]["targetPort"] == serving["containers"][0]["ports"][0]["name"]
    assert {key: serving[key] for key in same} == {key: ours[key] for key in same}
    for key in ("image", "securityContext", "volumeMounts", "lifecycle"):
        assert serving["containers"][0][key] == ours["containers"][0][key]
    for probe in (*PROBES, "startupProbe"):
        # KServe probes the paths of its own protocol.
        theirs, here = ({**each["containers"][0][probe], "httpGet": None} for each in (serving, ours))
        assert theirs == here, probe
    assert serving["deploymentStrategy"] == deployment["strategy"]
    in_production = find("prod", "Deployment", "api")["spec"]["template"]["spec"]
    assert serving["containers"][0]["resources"] == in_production["containers"][0]["resources"]
    known = {each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap"}
    assert {each["configMapRef"]["name"] for each in serving["containers"][0]["envFrom"]} <= known


def blocks(first_line: str) -> list[str]:
    """The YAML of docs/kubernetes.md that begins with this line."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    return re.findall(rf"^```yaml\n({first_line}\n.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.mark.reported
def test_the_documented_patches_restrict_network_policies_to_given_addresses(tmp_path: Path) -> None:
    (patches,) = blocks("patches:")

    made = composed(tmp_path, "resources: [k8s/overlays/prod]", patches)

    policies = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "NetworkPolicy"}
    (entrance,) = policies["from-ingress"]["ingress"]
    assert entrance == {"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}], "ports": [{"port": 8000, "protocol": "TCP"}]}
    (way,) = policies["to-kubernetes"]["egress"]
    assert way["to"] == [{"ipBlock": {"cidr": "192.0.2.10/32"}}]
    assert [port["port"] for port in way["ports"]] == [443, 6443]


@pytest.mark.reported
def test_the_documented_digest_replaces_the_image_tag(tmp_path: Path) -> None:
    (images,) = blocks("images:")
    _, overlay = (K8S / "overlays/prod/kustomization.yaml").read_text().replace("../../", "k8s/").split("kind: Kustomization\n")
    entry = images.removeprefix("images:\n")
    tagged = entry.partition("    digest:")[0] + "    newTag: 0.1.0\n"
    assert tagged in overlay

    made = composed(tmp_path, overlay.replace(tagged, entry))

    (api,) = [pod for pod in pods_of("prod", made) if pod.name == "api"]
    assert api.spec["containers"][0]["image"] == f"registry.example.com/churn/churn-serve@sha256:{'0' * 64}"


@pytest.mark.reported
def test_argo_cd_and_flux_can_start_training_with_each_release(tmp_path: Path) -> None:
    made = composed(tmp_path, "resources: [k8s/overlays/prod]", "components: [k8s/components/first-training]")

    job, source = (next(each for each in made if title(each) == name) for name in ("Job train", "CronJob train"))
    assert job["spec"] == source["spec"]["jobTemplate"]["spec"]
    assert job["metadata"]["annotations"] == {
        "argocd.argoproj.io/hook": "Sync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        "kustomize.toolkit.fluxcd.io/force": "enabled",
    }


def test_kserve_is_reachable_from_the_cluster_only(tmp_path: Path) -> None:
    service = one("InferenceService", with_component(tmp_path, "kserve"))

    assert service["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"


def test_the_route_uses_the_https_listener_only(tmp_path: Path) -> None:
    route = one("HTTPRoute", with_component(tmp_path, "gateway"))

    assert [parent["sectionName"] for parent in route["spec"]["parentRefs"]] == ["https"]


PATHS = {"Exact": "Exact", "Prefix": "PathPrefix"}
"""Type of a path in an Ingress → in an HTTPRoute."""
INTERNAL = {"/metrics", "/health", "/healthz", "/readyz", "/ping", "/version", "/hooks/mlflow"}
"""Routes for the cluster itself."""


def ingress_paths() -> set[tuple[str, str]]:
    (ingress,) = of_kind("prod", "Ingress")
    return {(PATHS[path["pathType"]], path["path"]) for path in ingress["spec"]["rules"][0]["http"]["paths"]}


def gateway_paths(folder: Path) -> set[tuple[str, str]]:
    route = one("HTTPRoute", with_component(folder, "gateway"))
    return {(match["path"]["type"], match["path"]["value"]) for match in route["spec"]["rules"][0]["matches"]}


def test_ingress_and_gateway_expose_the_same_paths_without_metrics(tmp_path: Path) -> None:
    exposed = ingress_paths()

    assert exposed == gateway_paths(tmp_path)
    assert not {path for _, path in exposed} & {"/metrics", "/healthz", "/readyz", "/hooks/mlflow"}
    assert ("PathPrefix", "/") not in exposed


@pytest.mark.reported
def test_ingress_and_gateway_expose_every_public_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(Serving(fast_path=False))._app
    routes = {str(route.path) for route in iter_route_contexts(app.routes)}

    for exposed in (ingress_paths(), gateway_paths(tmp_path)):
        reached = {
            route
            for route in routes
            for kind, path in exposed
            if route == path or (kind == "PathPrefix" and route.startswith(f"{path}/"))
        }
        assert reached == routes - INTERNAL, "a new route: add it to ingress.yaml and httproute.yaml, or to INTERNAL"
