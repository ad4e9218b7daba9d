"""What the watcher may do in the cluster: what its trigger asks for, and Jobs of one template alone."""

import copy
from collections.abc import Callable
from typing import Any

import cel
import pytest

from churn.settings import Monitoring
from manifests import Manifest, committed, every_overlay, find, of_kind, selects
from monitoring.kubernetes import job

UID = "8f1d6a52-5b1c-4a53-9d0e-3f4f4a3c2b1a"
NAME = "retrain-v3-20261123t030000z"
IGNORE_EVERY_FAILURE = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [0]}}


def policy() -> Manifest:
    return dict(find("local", "ValidatingAdmissionPolicy", "churn-watcher-jobs")["spec"])


def cronjob() -> Manifest:
    """The CronJob as it stands in the cluster: it has an identity."""
    found = copy.deepcopy(find("local", "CronJob", Monitoring().trigger_cronjob))
    found["metadata"]["uid"] = UID
    return found


def triggered(name: str = NAME) -> Manifest:
    """The Job that the watcher asks for, with what the API server adds before it asks the policy."""
    made = copy.deepcopy(job(cronjob(), name, {"psi": 0.31}))
    made["spec"] |= {"parallelism": 1, "completions": 1, "suspend": False, "manualSelector": False}
    made["spec"] |= {"completionMode": "NonIndexed", "podReplacementPolicy": "Failed"}
    for prefix in ("", "batch.kubernetes.io/"):
        made["spec"]["template"]["metadata"]["labels"] |= {f"{prefix}controller-uid": "0c1d", f"{prefix}job-name": name}
    return made


def refusals(made: Manifest) -> list[str]:
    """What the policy has against the Job."""
    context = {"object": made, "params": cronjob()}
    return [each["message"] for each in policy()["validations"] if cel.evaluate(each["expression"], context) is not True]


def test_the_job_that_the_trigger_makes_is_let_in() -> None:
    assert refusals(triggered()) == []


def container(made: Manifest) -> Manifest:
    return dict(made["spec"]["template"]["spec"]["containers"][0])


def changed(**values: Any) -> Callable[[Manifest], None]:
    def change(made: Manifest) -> None:
        made["spec"]["template"]["spec"]["containers"][0].update(values)

    return change


def pod(**values: Any) -> Callable[[Manifest], None]:
    return lambda made: made["spec"]["template"]["spec"].update(values)


def spec(**values: Any) -> Callable[[Manifest], None]:
    return lambda made: made["spec"].update(values)


def owner(**values: Any) -> Callable[[Manifest], None]:
    return lambda made: made["metadata"]["ownerReferences"][0].update(values)


def another_volume(made: Manifest) -> None:
    made["spec"]["template"]["spec"]["volumes"].append({"name": "mine", "secret": {"secretName": "api"}})


def another_container(made: Manifest) -> None:
    made["spec"]["template"]["spec"]["containers"].append({"name": "mine", "image": "evil:1"})


def another_label(made: Manifest) -> None:
    made["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "mlflow"


def a_label_more(made: Manifest) -> None:
    made["spec"]["template"]["metadata"]["labels"]["mine"] = "1"


def an_annotation(made: Manifest) -> None:
    made["spec"]["template"]["metadata"]["annotations"] = {"sidecar.example.com/inject": "true"}


def a_finalizer(made: Manifest) -> None:
    made["spec"]["template"]["metadata"]["finalizers"] = ["example.com/never"]


def no_owner(made: Manifest) -> None:
    del made["metadata"]["ownerReferences"]


def two_owners(made: Manifest) -> None:
    made["metadata"]["ownerReferences"].append(made["metadata"]["ownerReferences"][0])


def no_deadline(made: Manifest) -> None:
    del made["spec"]["activeDeadlineSeconds"]


def no_failure_policy(made: Manifest) -> None:
    del made["spec"]["podFailurePolicy"]


def another_name(made: Manifest) -> None:
    made["metadata"]["name"] = "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(image="evil:1"), "pod"),
        (changed(command=["sh", "-c", "env"]), "pod"),
        (changed(env=[{"name": "CHURN_SOURCE", "value": "postgresql://elsewhere/crm"}]), "pod"),
        (changed(securityContext={"privileged": True}), "pod"),
        (another_container, "pod"),
        (another_volume, "pod"),
        (pod(serviceAccountName="secrets"), "pod"),
        (pod(automountServiceAccountToken=True), "pod"),
        (pod(hostNetwork=True), "pod"),
        (pod(nodeName="control-plane"), "pod"),
        (pod(initContainers=[{"name": "mine", "image": "evil:1"}]), "pod"),
        (another_label, "labels"),
        (a_label_more, "labels"),
        (an_annotation, "annotations"),
        (a_finalizer, "finalizers"),
        (no_owner, "belong"),
        (two_owners, "belong"),
        (owner(uid="of another"), "belong"),
        (owner(name="materialise"), "belong"),
        (owner(kind="Job"), "belong"),
        (owner(controller=False), "belong"),
        (spec(parallelism=50), "more"),
        (spec(completions=50), "more"),
        (spec(backoffLimit=100), "more"),
        (spec(activeDeadlineSeconds=10**6), "more"),
        (spec(manualSelector=True), "more"),
        (spec(completionMode="Indexed"), "more"),
        (no_deadline, "more"),
        (spec(podFailurePolicy={"rules": [IGNORE_EVERY_FAILURE]}), "otherwise"),
        (no_failure_policy, "otherwise"),
        (spec(suspend=True), "otherwise"),
        (spec(managedBy="example.com/nobody"), "otherwise"),
        (spec(ttlSecondsAfterFinished=0), "otherwise"),
        (another_name, "name"),
    ],
)
def test_a_job_that_is_not_of_the_template_is_refused(change: Callable[[Manifest], None], message: str) -> None:
    made = triggered()

    change(made)

    assert [each for each in refusals(made) if message in each]


@every_overlay
def test_the_policy_is_about_jobs_that_the_watcher_creates_and_denies(overlay: str) -> None:
    spec = find(overlay, "ValidatingAdmissionPolicy", "churn-watcher-jobs")["spec"]
    (binding,) = of_kind(overlay, "ValidatingAdmissionPolicyBinding")
    (rule,) = spec["matchConstraints"]["resourceRules"]
    (condition,) = spec["matchConditions"]
    account = find(overlay, "Deployment", "watcher")["spec"]["template"]["spec"]["serviceAccountName"]

    def asks(user: str) -> bool:
        request = {"namespace": "churn", "userInfo": {"username": user}}
        return bool(cel.evaluate(condition["expression"], {"request": request}))

    assert (rule["apiGroups"], rule["resources"], rule["operations"]) == (["batch"], ["jobs"], ["CREATE"])
    assert spec["failurePolicy"] == "Fail"
    assert asks(f"system:serviceaccount:churn:{account}")
    assert not asks("system:serviceaccount:kube-system:cronjob-controller")
    assert "Deny" in binding["spec"]["validationActions"]
    assert binding["spec"]["policyName"] == "churn-watcher-jobs"


@every_overlay
def test_the_policy_compares_with_the_cronjob_that_the_trigger_reads(overlay: str) -> None:
    spec = find(overlay, "ValidatingAdmissionPolicy", "churn-watcher-jobs")["spec"]
    (binding,) = of_kind(overlay, "ValidatingAdmissionPolicyBinding")
    (namespace,) = of_kind(overlay, "Namespace")

    assert spec["paramKind"] == {"apiVersion": "batch/v1", "kind": "CronJob"}
    assert binding["spec"]["paramRef"] == {"name": Monitoring().trigger_cronjob, "parameterNotFoundAction": "Deny"}
    labels = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert labels.items() <= namespace["metadata"]["labels"].items()


@every_overlay
def test_another_namespace_of_the_system_where_no_such_cronjob_is_may_make_jobs(overlay: str) -> None:
    (binding,) = of_kind(overlay, "ValidatingAdmissionPolicyBinding")
    (namespace,) = of_kind(overlay, "Namespace")
    bound = binding["spec"]["matchResources"]["namespaceSelector"]
    of_stores = {"app.kubernetes.io/part-of": "churn", "app.kubernetes.io/component": "database"}

    assert selects(bound, namespace["metadata"]["labels"])
    assert not selects(bound, of_stores)
    assert not selects(bound, {"app.kubernetes.io/part-of": "churn"})


@every_overlay
def test_the_cronjob_without_which_the_policy_refuses_every_job_is_applied_before_them(overlay: str) -> None:
    order = [(each["kind"], each["metadata"]["name"]) for each in committed(overlay)]
    jobs = [index for index, (kind, _) in enumerate(order) if kind == "Job"]

    assert order.index(("CronJob", Monitoring().trigger_cronjob)) < min(jobs)


@every_overlay
def test_the_watchers_role_is_what_the_trigger_asks_for(overlay: str) -> None:
    role = find(overlay, "Role", "watcher")
    allowed = {
        (verb, resource, *rule.get("resourceNames", ()))
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if rule["apiGroups"] == ["batch"]
    }

    # monitoring/kubernetes.py, and the API of tests/monitoring/test_trigger_kubernetes.py, which refuses all else.
    assert allowed == {("get", "cronjobs", Monitoring().trigger_cronjob), ("create", "jobs"), ("get", "jobs"), ("list", "jobs")}
    assert all(rule["apiGroups"] == ["batch"] for rule in role["rules"])


@every_overlay
def test_a_role_is_bound_to_its_own_account_alone(overlay: str) -> None:
    assert of_kind(overlay, "ClusterRole", "ClusterRoleBinding") == []
    for binding in of_kind(overlay, "RoleBinding"):
        name = binding["metadata"]["name"]
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "churn"}]


@every_overlay
def test_the_watcher_triggers_by_kubernetes(overlay: str) -> None:
    (watcher,) = find(overlay, "Deployment", "watcher")["spec"]["template"]["spec"]["containers"]

    assert {"name": "CHURN_TRIGGER", "value": "kubernetes"} in watcher["env"]
