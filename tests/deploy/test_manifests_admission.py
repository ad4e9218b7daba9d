"""The admission policy for the watcher's Jobs, evaluated: retrainings are accepted, anything else is refused."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cel
import pytest

from churn.settings import Monitoring
from manifests import CLUSTER, OVERLAYS, ROOT, Manifest, composed, every_overlay, find, of_kind, selects
from monitoring.triggers.kubernetes import EVIDENCE_BYTES, job

POLICY = "churn-watcher-jobs"
NAME = "retrain-v3-20261123t030000z"
DIGEST = f"sha256:{'0' * 64}"
IGNORE_EVERY_FAILURE = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [0]}}
NO_SUCH = "http://elsewhere.example.com"

Change = Callable[[Manifest], object]


def policy(overlay: str = "local") -> Manifest:
    return dict(find(CLUSTER[overlay], "ValidatingAdmissionPolicy", POLICY)["spec"])


def namespace(overlay: str = "local", **annotations: str) -> Manifest:
    """The overlay's Namespace, with the administrator's annotations in place of the shipped ones."""
    (found,) = copy.deepcopy(of_kind(CLUSTER[overlay], "Namespace"))
    found["metadata"]["annotations"] |= {f"churn/retrain-{key.replace('_', '-')}": value for key, value in annotations.items()}
    return found


def with_defaults(spec: Manifest) -> Manifest:
    """A Job's spec with what the API server adds before it evaluates policies."""
    spec |= {"parallelism": 1, "completions": 1, "suspend": False, "manualSelector": False, "selector": {"matchLabels": {}}}
    spec |= {"completionMode": "NonIndexed", "podReplacementPolicy": "Failed"}
    pod = spec["template"]["spec"]
    defaults = {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30}
    spec["template"]["spec"] = {**defaults, "serviceAccount": pod["serviceAccountName"], **pod}
    for container in [*pod["initContainers"], *pod["containers"]]:
        container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
    return spec


def triggered(cronjob: Manifest | None = None, name: str = NAME) -> Manifest:
    """The Job that the watcher creates from the CronJob, by default that of `local`."""
    source = copy.deepcopy(cronjob or find("local", "CronJob", Monitoring().trigger_cronjob))
    source["metadata"]["uid"] = "8f1d6a52-5b1c-4a53-9d0e-3f4f4a3c2b1a"
    made = copy.deepcopy(job(source, name, {"psi": 0.31}))
    with_defaults(made["spec"])
    for prefix in ("", "batch.kubernetes.io/"):
        made["spec"]["template"]["metadata"]["labels"] |= {f"{prefix}controller-uid": "0c1d", f"{prefix}job-name": name}
    return made


def refusals(made: Manifest, place: Manifest | None = None) -> list[str]:
    """The messages of the rules that the Job breaks."""
    variables: dict[str, Any] = {}
    values = {"object": made, "namespaceObject": place or namespace(), "variables": variables}
    # Of the API server's library of strings, which the language itself does not have.
    functions = {"split": lambda text, by: text.split(by), "substring": lambda text, start: text[start:]}

    def evaluate(expression: str) -> Any:
        return cel.evaluate(expression, cel.Context(variables=values, functions=functions))

    for variable in policy()["variables"]:
        variables[variable["name"]] = evaluate(variable["expression"])
        values["variables"] = variables
    # An error would be a refusal too, by `failurePolicy: Fail`, but with an unreadable message: it fails the test.
    return [rule["message"] for rule in policy()["validations"] if evaluate(rule["expression"]) is not True]


@every_overlay
def test_a_job_of_the_shipped_cronjob_is_accepted(overlay: str) -> None:
    cronjob = find(overlay, "CronJob", Monitoring().trigger_cronjob)

    assert refusals(triggered(cronjob), namespace(overlay)) == []


def test_a_job_on_a_gpu_is_accepted(tmp_path: Path) -> None:
    made = composed(tmp_path, "resources: [k8s/overlays/local]", "components: [k8s/components/gpu]")
    (cronjob,) = [each for each in made if each["kind"] == "CronJob" and each["metadata"]["name"] == "churn-retrain"]

    assert refusals(triggered(cronjob)) == []


@pytest.mark.parametrize("image", [f"churn-train@{DIGEST}", f"churn-train:1.2.3@{DIGEST}", "churn-train:1.2.3", "churn-train"])
def test_every_tag_and_digest_of_the_administrators_repository_is_accepted(image: str) -> None:
    made = triggered()
    for container in containers(made):
        container["image"] = image

    assert refusals(made) == []
    repository = "registry.example.com:5000/team/churn-train"
    for container in containers(made):
        container["image"] = image.replace("churn-train", repository)
    assert refusals(made, namespace(image=repository)) == []


def containers(made: Manifest) -> list[Manifest]:
    pod: Manifest = made["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def changed(**values: Any) -> Change:
    return lambda made: containers(made)[-1].update(values)


def wait_changed(**values: Any) -> Change:
    return lambda made: containers(made)[0].update(values)


def secured(**values: Any) -> Change:
    return lambda made: containers(made)[-1]["securityContext"].update(values)


def pod(**values: Any) -> Change:
    return lambda made: made["spec"]["template"]["spec"].update(values)


def pod_secured(**values: Any) -> Change:
    return lambda made: made["spec"]["template"]["spec"]["securityContext"].update(values)


def spec(**values: Any) -> Change:
    return lambda made: made["spec"].update(values)


def metadata(**values: Any) -> Change:
    return lambda made: made["metadata"].update(values)


def owner(**values: Any) -> Change:
    return lambda made: made["metadata"]["ownerReferences"][0].update(values)


def label(key: str, value: str = "1") -> Change:
    return lambda made: made["metadata"]["labels"].update({key: value})


def annotation(key: str, value: str = "1") -> Change:
    return lambda made: made["metadata"]["annotations"].update({key: value})


def pod_metadata(kind: str, key: str, value: str = "1") -> Change:
    return lambda made: made["spec"]["template"]["metadata"].setdefault(kind, {}).update({key: value})


def pod_finalizer(made: Manifest) -> None:
    made["spec"]["template"]["metadata"]["finalizers"] = ["example.com/never"]


def volume(**values: Any) -> Change:
    return lambda made: made["spec"]["template"]["spec"]["volumes"].append({"name": "mine", **values})


def volume_instead(name: str, **values: Any) -> Change:
    """Another source under the name of one of the template's volumes."""

    def change(made: Manifest) -> None:
        volumes = made["spec"]["template"]["spec"]["volumes"]
        volumes[:] = [{"name": name, **values} if each["name"] == name else each for each in volumes]

    return change


def mount(index: int, **values: Any) -> Change:
    """The container's volume at index, mounted otherwise."""
    return lambda made: containers(made)[-1]["volumeMounts"][index].update(values)


def without(*path: str) -> Change:
    def change(made: Manifest) -> None:
        *parents, key = path
        for parent in parents:
            made = made[parent]
        del made[key]

    return change


def container_without(key: str) -> Change:
    return lambda made: containers(made)[-1].pop(key)


def another_container(made: Manifest) -> None:
    made["spec"]["template"]["spec"]["containers"].append({**containers(made)[-1], "name": "mine"})


def another_init_container(made: Manifest) -> None:
    made["spec"]["template"]["spec"]["initContainers"].append({**containers(made)[0], "name": "mine"})


def variables_of(**source: Any) -> Change:
    return lambda made: containers(made)[-1]["envFrom"].append(source)


def variables_reordered(made: Manifest) -> None:
    containers(made)[-1]["envFrom"].reverse()


def variables_prefixed(made: Manifest) -> None:
    containers(made)[-1]["envFrom"][1]["prefix"] = "X_"


def two_owners(made: Manifest) -> None:
    made["metadata"]["ownerReferences"].append(made["metadata"]["ownerReferences"][0])


def anti_affinity(made: Manifest) -> None:
    term = {"labelSelector": {"matchLabels": {"app.kubernetes.io/name": "api"}}, "topologyKey": "topology.kubernetes.io/zone"}
    pod(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})(made)


FORGERIES: dict[str, tuple[Change, str]] = {
    "name": (metadata(name="mine"), "name"),
    "name with a suffix": (metadata(name=f"{NAME}-2"), "name"),
    "no owner": (without("metadata", "ownerReferences"), "owner"),
    "two owners": (two_owners, "owner"),
    "owner of another name": (owner(name="materialise"), "owner"),
    "owner of another kind": (owner(kind="Job"), "owner"),
    "owner of another API": (owner(apiVersion="example.com/v1"), "owner"),
    "owner that is no controller": (owner(controller=False), "owner"),
    "owner whose deletion is blocked": (owner(blockOwnerDeletion=True), "owner"),
    "finalizer": (metadata(finalizers=["example.com/never"]), "finalizers"),
    "finalizer of the pod": (pod_finalizer, "finalizers"),
    "label": (label("team"), "labels or annotations"),
    "label of another component": (label("app.kubernetes.io/name", "api"), "labels or annotations"),
    "label of a queue": (label("kueue.x-k8s.io/queue-name"), "labels or annotations"),
    "annotation": (annotation("example.com/mine"), "labels or annotations"),
    "annotation without end": (annotation("churn/evidence", "x" * (EVIDENCE_BYTES + 1)), "labels or annotations"),
    "pod's label": (pod_metadata("labels", "mine"), "labels or annotations"),
    "pod's label of another component": (pod_metadata("labels", "app.kubernetes.io/name", "api"), "labels or annotations"),
    "pod's missing label": (without("spec", "template", "metadata", "labels", "app.kubernetes.io/name"), "labels or annotations"),
    "pod's annotation": (pod_metadata("annotations", "k8s.v1.cni.cncf.io/networks", "host"), "labels or annotations"),
    "parallelism": (spec(parallelism=50), "more than one pod"),
    "completions": (spec(completions=50), "more than one pod"),
    "manual selector": (spec(manualSelector=True), "more than one pod"),
    "indexed": (spec(completionMode="Indexed"), "more than one pod"),
    "attempts of each index": (spec(backoffLimitPerIndex=1), "a field"),
    "success policy": (spec(successPolicy={"rules": []}), "a field"),
    "another controller": (spec(managedBy="example.com/nobody"), "a field"),
    "attempts": (spec(backoffLimit=100), "backoffLimit"),
    "time": (spec(activeDeadlineSeconds=10**6), "activeDeadlineSeconds"),
    "no end": (without("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds"),
    "failures without end": (spec(podFailurePolicy={"rules": [IGNORE_EVERY_FAILURE]}), "disruptions"),
    "suspended": (spec(suspend=True), "suspended"),
    "gone with its log": (spec(ttlSecondsAfterFinished=0), "stay"),
    "host network": (pod(hostNetwork=True), "pod has a field"),
    "host processes": (pod(hostPID=True), "pod has a field"),
    "host IPC": (pod(hostIPC=True), "pod has a field"),
    "node": (pod(nodeName="control-plane"), "pod has a field"),
    "shared processes": (pod(shareProcessNamespace=True), "pod has a field"),
    "host aliases": (pod(hostAliases=[{"ip": "192.0.2.1", "hostnames": ["mlflow"]}]), "pod has a field"),
    "host name": (pod(hostname="mlflow", subdomain="mlflow"), "pod has a field"),
    "field of a later version": (pod(somethingNew=True), "pod has a field"),
    "account": (pod(serviceAccountName="secrets", serviceAccount="secrets"), "service account"),
    "deprecated account": (pod(serviceAccount="secrets"), "service account"),
    "token": (pod(automountServiceAccountToken=True), "token"),
    "no account": (without("spec", "template", "spec", "serviceAccountName"), "service account"),
    "restarts in place": (pod(restartPolicy="OnFailure"), "restartPolicy"),
    "name servers": (pod(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}), "name servers"),
    "search domains": (pod(dnsConfig={"searches": ["example.com"]}), "name servers"),
    "time to end": (pod(terminationGracePeriodSeconds=10**6), "to end"),
    "priority": (pod(priorityClassName="system-cluster-critical"), "priority class"),
    "anti-affinity to the API": (anti_affinity, "affinity"),
    "root": (pod_secured(runAsUser=0), "security"),
    "root allowed": (pod_secured(runAsNonRoot=False), "security"),
    "groups": (pod_secured(supplementalGroups=[0]), "security"),
    "no seccomp profile": (pod_secured(seccompProfile={"type": "Unconfined"}), "security"),
    "no security context": (without("spec", "template", "spec", "securityContext"), "security"),
    "no security context of the container": (container_without("securityContext"), "security"),
    "security context without a user": (without("spec", "template", "spec", "securityContext", "runAsUser"), "security"),
    "privileged": (secured(privileged=True), "security"),
    "writable root": (secured(readOnlyRootFilesystem=False), "security"),
    "escalation": (secured(allowPrivilegeEscalation=True), "security"),
    "capability": (secured(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}), "security"),
    "capabilities": (secured(capabilities={}), "security"),
    "root container": (secured(runAsUser=0), "security"),
    "mount of /proc": (secured(procMount="Unmasked"), "security"),
    "Secret": (volume(secret={"secretName": "api"}), "volumes"),
    "folder of the node": (volume(hostPath={"path": "/"}), "volumes"),
    "projected token": (volume_instead("tmp", projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}), "volumes"),
    "Secret of another component": (volume_instead("secrets", secret={"secretName": "api"}), "volumes"),
    "claim of another component": (volume_instead("workspace", persistentVolumeClaim={"claimName": "watcher"}), "volumes"),
    "script of another component": (volume_instead("wait", configMap={"name": "hand-out-t4d8k5f2bg"}), "volumes"),
    "container": (another_container, "containers"),
    "init container": (another_init_container, "containers"),
    "command": (changed(command=["sh", "-c", "env"]), "commands"),
    "command of the init container": (wait_changed(command=["id"]), "commands"),
    "no command": (container_without("command"), "commands"),
    "arguments": (changed(args=["; env"]), "container has a field"),
    "variables": (changed(env=[{"name": "CHURN_SOURCE", "value": NO_SUCH}]), "container has a field"),
    "working directory": (changed(workingDir="/tmp"), "container has a field"),
    "hook": (changed(lifecycle={"postStart": {"exec": {"command": ["id"]}}}), "container has a field"),
    "probe": (changed(livenessProbe={"exec": {"command": ["id"]}}), "container has a field"),
    "sidecar": (wait_changed(restartPolicy="Always"), "container has a field"),
    "devices": (changed(volumeDevices=[{"name": "workspace", "devicePath": "/dev/xvda"}]), "container has a field"),
    "image": (changed(image="evil:1"), "image"),
    "image of the init container": (wait_changed(image="evil:1"), "image"),
    "image of a longer name": (changed(image="churn-train-evil:1"), "image"),
    "image of another registry": (changed(image="churn-train:5000/evil:1"), "image"),
    "image below the repository": (changed(image="churn-train/evil:1"), "image"),
    "image of a registry before it": (changed(image="evil.example.com/churn-train:local"), "image"),
    "variables of a Secret": (variables_of(secretRef={"name": "api"}), "variables"),
    "variables of another ConfigMap": (variables_of(configMapRef={"name": "mlflow-t4d8k5f2bg"}), "variables"),
    "no variables": (container_without("envFrom"), "variables"),
    "variables in another order": (variables_reordered, "variables"),
    "variables with a prefix": (variables_prefixed, "variables"),
    "mount over the scripts": (mount(1, mountPath="/scripts"), "mounted"),
    "mount of a part": (mount(1, subPath="data"), "mounted"),
    "mount that reaches the node": (mount(1, mountPropagation="Bidirectional"), "mounted"),
}
"""What differs from a retraining → the change, and a word of the message."""


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_job_that_is_not_a_retraining_is_refused(forgery: str) -> None:
    made = triggered()
    change, message = FORGERIES[forgery]

    change(made)

    assert [refusal for refusal in refusals(made) if message in refusal]


PLATFORMS: dict[str, Change] = {
    "tolerations": pod(tolerations=[{"key": "spot", "operator": "Exists"}]),
    "node selector": pod(nodeSelector={"kubernetes.io/arch": "amd64"}),
    "node affinity": pod(affinity={"nodeAffinity": {}}),
    "topology spread": pod(topologySpreadConstraints=[]),
    "scheduler": pod(schedulerName="volcano"),
    "runtime class": pod(runtimeClassName="gvisor"),
    "pull secrets": pod(imagePullSecrets=[{"name": "mirror"}]),
    "time to end": pod(terminationGracePeriodSeconds=120),
    "resolver options": pod(dnsConfig={"options": [{"name": "ndots", "value": "2"}]}),
    "user namespace": pod(hostUsers=False),
    "resources": changed(resources={"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}),
    "pull policy": changed(imagePullPolicy="Always"),
    "seccomp profile of the container": secured(seccompProfile={"type": "RuntimeDefault"}),
    "user of the container": secured(runAsNonRoot=True, runAsUser=10001),
    "more attempts": spec(backoffLimit=6),
    "more time": spec(activeDeadlineSeconds=43200),
    "removal after a day": spec(ttlSecondsAfterFinished=86400),
    "no failure policy": without("spec", "podFailurePolicy"),
    "pod replacement policy": spec(podReplacementPolicy="TerminatingOrFailed"),
    "instance label": label("app.kubernetes.io/instance", "churn"),
}
"""What webhooks and schedulers of a platform change in a Job, and what does no harm."""


@pytest.mark.parametrize("what", PLATFORMS)
def test_a_job_with_platform_defaults_is_accepted(what: str) -> None:
    made = triggered()

    PLATFORMS[what](made)

    assert refusals(made) == []


LISTED: dict[str, tuple[Change, dict[str, str]]] = {
    "label": (label("team"), {"added_keys": "team,cost-centre"}),
    "annotation": (
        annotation("policies.kyverno.io/last-applied-patches"),
        {"added_keys": "policies.kyverno.io/last-applied-patches"},
    ),
    "pod's label": (pod_metadata("labels", "team"), {"added_keys": "team"}),
    "pod's annotation": (pod_metadata("annotations", "example.com/mine"), {"added_keys": "example.com/mine"}),
    "priority class": (pod(priorityClassName="batch"), {"priority_classes": "batch,batch-low"}),
}
"""What the administrator allows by an annotation of the Namespace."""


@pytest.mark.parametrize("what", LISTED)
def test_a_change_is_accepted_only_if_the_administrator_lists_it(what: str) -> None:
    made = triggered()
    change, annotations = LISTED[what]

    change(made)

    assert refusals(made, namespace(**annotations)) == []
    assert refusals(made) != []


def test_kueue_can_suspend_a_job_if_the_administrator_lists_its_label() -> None:
    made = triggered()
    label("kueue.x-k8s.io/queue-name", "default")(made)
    spec(suspend=True)(made)

    assert refusals(made, namespace(added_keys="kueue.x-k8s.io/queue-name")) == []
    assert refusals(made) != []


def test_a_namespace_without_a_repository_accepts_no_job() -> None:
    (bare,) = copy.deepcopy(of_kind("local", "Namespace"))
    del bare["metadata"]["annotations"]

    assert [refusal for refusal in refusals(triggered(), bare) if "churn/retrain-image" in refusal]


def test_a_registry_port_is_not_parsed_as_a_tag() -> None:
    made = triggered()
    for container in containers(made):
        container["image"] = "registry.example.com:5000/churn-train:1"

    assert refusals(made, namespace(image="registry.example.com")) != []


@every_overlay
def test_the_policy_matches_jobs_that_the_watcher_creates(overlay: str) -> None:
    (rule,) = policy(overlay)["matchConstraints"]["resourceRules"]
    (condition,) = policy(overlay)["matchConditions"]
    account = find(overlay, "Deployment", "watcher")["spec"]["template"]["spec"]["serviceAccountName"]

    def matches(user: str) -> bool:
        request = {"namespace": "churn", "userInfo": {"username": user}}
        return bool(cel.evaluate(condition["expression"], {"request": request}))

    assert (rule["apiGroups"], rule["resources"], rule["operations"]) == (["batch"], ["jobs"], ["CREATE"])
    assert policy(overlay)["failurePolicy"] == "Fail"
    assert matches(f"system:serviceaccount:churn:{account}")
    assert not matches("system:serviceaccount:kube-system:cronjob-controller")


@pytest.mark.reported
@every_overlay
def test_the_policy_has_no_parameter_resource(overlay: str) -> None:
    (binding,) = of_kind(CLUSTER[overlay], "ValidatingAdmissionPolicyBinding")

    assert "paramKind" not in policy(overlay)
    assert "paramRef" not in binding["spec"]
    assert not re.search(r"\bparams\b", str(policy(overlay)))


@every_overlay
def test_the_binding_denies_in_the_application_namespace_only(overlay: str) -> None:
    (binding,) = of_kind(CLUSTER[overlay], "ValidatingAdmissionPolicyBinding")
    (place,) = of_kind(CLUSTER[overlay], "Namespace")
    bound = binding["spec"]["matchResources"]["namespaceSelector"]

    assert binding["spec"]["policyName"] == POLICY
    assert "Deny" in binding["spec"]["validationActions"]
    assert selects(bound, place["metadata"]["labels"])
    assert not selects(bound, {"app.kubernetes.io/part-of": "churn", "app.kubernetes.io/component": "database"})


@pytest.mark.reported
@every_overlay
def test_server_defaults_are_explicit_in_the_manifest(overlay: str) -> None:
    (binding,) = of_kind(CLUSTER[overlay], "ValidatingAdmissionPolicyBinding")
    constraints, resources = policy(overlay)["matchConstraints"], binding["spec"]["matchResources"]

    assert [rule["scope"] for rule in constraints["resourceRules"]] == ["*"]
    assert constraints["matchPolicy"] == resources["matchPolicy"] == "Equivalent"
    assert constraints["objectSelector"] == resources["objectSelector"] == constraints["namespaceSelector"] == {}


def test_the_policy_is_the_same_in_every_overlay() -> None:
    assert len({str(policy(overlay)) for overlay in OVERLAYS}) == 1


def test_the_page_lists_every_annotation_of_the_policy() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()

    for key in namespace()["metadata"]["annotations"]:
        assert f"`{key}`" in page
