"""What a cluster may want beside the overlays: components that none of them takes, ways in, tools that apply."""

import re
from collections.abc import Iterable
from pathlib import Path

from manifests import PROBES, ROOT, Manifest, composed, find, of_kind, pods_of, title, with_component


def one(kind: str, made: Iterable[Manifest]) -> Manifest:
    """The only object of that kind."""
    (found,) = [each for each in made if each["kind"] == kind]
    return found


def test_training_on_a_gpu_asks_for_a_device_a_node_that_has_one_and_shared_memory(tmp_path: Path) -> None:
    trainings = [pod for pod in pods_of("gpu", with_component(tmp_path, "gpu")) if pod.name in ("train", "churn-retrain")]

    assert len(trainings) == 2
    for pod in trainings:
        container = pod.spec["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert pod.spec["tolerations"][0]["key"] == "nvidia.com/gpu"
        memory = [volume["name"] for volume in pod.spec["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
        assert [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in memory] == ["/dev/shm"]


def test_kserve_serves_as_the_deployment_does_and_instead_of_it(tmp_path: Path) -> None:
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
        # KServe asks by the paths of its own protocol.
        theirs, here = ({**each["containers"][0][probe], "httpGet": None} for each in (serving, ours))
        assert theirs == here, probe
    assert serving["deploymentStrategy"] == deployment["strategy"]
    in_production = find("prod", "Deployment", "api")["spec"]["template"]["spec"]
    assert serving["containers"][0]["resources"] == in_production["containers"][0]["resources"]
    known = {each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap"}
    assert {each["configMapRef"]["name"] for each in serving["containers"][0]["envFrom"]} <= known


def test_the_page_tells_argo_and_flux_to_make_the_training_anew_with_each_release_alone(tmp_path: Path) -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    (patches,) = re.findall(r"^```yaml\n(patches:\n.*?)^```", page, re.MULTILINE | re.DOTALL)

    made = composed(tmp_path, "resources: [k8s/overlays/prod]", patches)

    (job,) = [each for each in made if title(each) == "Job train"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["metadata"]["annotations"] == {
        "argocd.argoproj.io/sync-options": "Force=true,Replace=true",
        "kustomize.toolkit.fluxcd.io/force": "enabled",
    }


def test_kserve_opens_no_way_in_beside_ours(tmp_path: Path) -> None:
    service = one("InferenceService", with_component(tmp_path, "kserve"))

    assert service["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"


def test_the_route_takes_no_keys_of_the_api_from_a_listener_without_encryption(tmp_path: Path) -> None:
    route = one("HTTPRoute", with_component(tmp_path, "gateway"))

    assert [parent["sectionName"] for parent in route["spec"]["parentRefs"]] == ["https"]


def test_both_ways_in_lead_to_the_same_paths_and_not_to_metrics(tmp_path: Path) -> None:
    (ingress,) = of_kind("prod", "Ingress")
    route = one("HTTPRoute", with_component(tmp_path, "gateway"))
    kinds = {"Exact": "Exact", "Prefix": "PathPrefix"}

    by_ingress = {(kinds[each["pathType"]], each["path"]) for each in ingress["spec"]["rules"][0]["http"]["paths"]}
    by_route = {(each["path"]["type"], each["path"]["value"]) for each in route["spec"]["rules"][0]["matches"]}

    assert by_ingress == by_route
    assert not {path for _, path in by_ingress} & {"/metrics", "/healthz", "/readyz", "/hooks/mlflow"}
    assert ("PathPrefix", "/") not in by_ingress
