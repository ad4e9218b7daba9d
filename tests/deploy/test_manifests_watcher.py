"""The watcher's rights in the cluster are those of its trigger. test_manifests_admission.py tests which Jobs it may create."""

from churn.settings import Monitoring
from manifests import every_overlay, find, of_kind


@every_overlay
def test_the_watcher_role_has_exactly_the_rights_of_the_trigger(overlay: str) -> None:
    role = find(overlay, "Role", "watcher")
    allowed = {
        (verb, resource, *rule.get("resourceNames", ()))
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if rule["apiGroups"] == ["batch"]
    }

    # monitoring/triggers/kubernetes.py, and the API of tests/monitoring/test_trigger_kubernetes.py, which refuses all else.
    assert allowed == {("get", "cronjobs", Monitoring().trigger_cronjob), ("create", "jobs"), ("get", "jobs"), ("list", "jobs")}
    assert all(rule["apiGroups"] == ["batch"] for rule in role["rules"])


@every_overlay
def test_a_role_is_bound_to_its_own_service_account_only(overlay: str) -> None:
    assert of_kind(overlay, "ClusterRole", "ClusterRoleBinding") == []
    for binding in of_kind(overlay, "RoleBinding"):
        name = binding["metadata"]["name"]
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "churn"}]


@every_overlay
def test_the_watcher_uses_the_kubernetes_trigger(overlay: str) -> None:
    (watcher,) = find(overlay, "Deployment", "watcher")["spec"]["template"]["spec"]["containers"]

    assert {"name": "CHURN_TRIGGER", "value": "kubernetes"} in watcher["env"]
