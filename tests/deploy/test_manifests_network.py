"""The network policies allow exactly the connections that docs/kubernetes.md lists."""

import re
from typing import NamedTuple

from manifests import Manifest, every_overlay, named, of_kind, pods, selects, table, variables

EVERY_POD = "every pod"
WAITS = {
    "MLFLOW_TRACKING_URI": "mlflow",
    "CHURN_SOURCE": "postgres",
    "CHURN_FEATURE_REGISTRY": "postgres",
    "CHURN_ONLINE_STORE": "valkey",
    "AWS_ENDPOINT_URL": "object-store",
}
"""Whom a variable is the URL of."""


class Arrow(NamedTuple):
    """A way that is open."""

    source: str
    target: str
    ports: tuple[int, ...]


def documented(overlay: str) -> set[Arrow]:
    return {
        Arrow(source, target, tuple(int(port) for port in ports.split(", ")))
        for sources, targets, ports, where, _ in table("| from | to | ports | overlay | why |")
        if where in ("both", overlay)
        for source in named(sources) or [sources]
        for target in named(targets)
    }


def names(overlay: str, selector: Manifest) -> set[str]:
    """The components that a selector of pods matches."""
    if not selector:
        return {EVERY_POD}
    found = {pod.labels["app.kubernetes.io/name"] for pod in pods(overlay) if selects(selector, pod.labels)}
    assert found, f"{selector} selects no pod"
    return found


def outside(policy: str, way: str) -> str:
    """Who is outside is in the policy's name, as in `to-kubernetes` and `api-from-monitoring`."""
    found = re.fullmatch(rf"(?:\w+-)?{way}-([\w-]+)", policy)
    assert found, f"{policy}: who is that?"
    return found[1]


def arrows(overlay: str, direction: str) -> set[Arrow]:
    """The ways that are open for those who begin them (egress), or for those whom they reach (ingress)."""
    peers, way = ("to", "to") if direction == "egress" else ("from", "from")
    found = set()
    for policy in of_kind(overlay, "NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        assert all(kind.lower() in ("egress", "ingress") for kind in spec["policyTypes"])
        for rule in spec.get(direction, ()):
            ports = tuple(sorted({port["port"] for port in rule["ports"]}))
            for peer in rule[peers]:
                others = (
                    {outside(name, way)} if {"ipBlock", "namespaceSelector"} & set(peer) else names(overlay, peer["podSelector"])
                )
                for own in names(overlay, spec["podSelector"]):
                    for other in others:
                        found.add(Arrow(own, other, ports) if direction == "egress" else Arrow(other, own, ports))
    return found


def inside(overlay: str, found: set[Arrow]) -> set[Arrow]:
    known = {pod.labels["app.kubernetes.io/name"] for pod in pods(overlay)}
    return {each for each in found if {each.source, each.target} <= known}


@every_overlay
def test_network_policies_deny_by_default_in_both_directions(overlay: str) -> None:
    denied = [
        each["spec"]
        for each in of_kind(overlay, "NetworkPolicy")
        if each["spec"]["podSelector"] == {} and not {"ingress", "egress"} & set(each["spec"])
    ]

    assert denied == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


@every_overlay
def test_allowed_connections_are_those_documented(overlay: str) -> None:
    opened = arrows(overlay, "egress") | arrows(overlay, "ingress")

    assert sorted(opened) == sorted(documented(overlay))


@every_overlay
def test_connections_in_the_namespace_have_egress_and_ingress_rules(overlay: str) -> None:
    assert sorted(inside(overlay, arrows(overlay, "egress"))) == sorted(inside(overlay, arrows(overlay, "ingress")))


@every_overlay
def test_allowed_ports_are_container_ports(overlay: str) -> None:
    ports = {
        pod.labels["app.kubernetes.io/name"]: {
            port["containerPort"] for container in pod.containers for port in container.get("ports", ())
        }
        for pod in pods(overlay)
    }

    assert [each for each in arrows(overlay, "ingress") if not set(each.ports) <= ports[each.target]] == []


@every_overlay
def test_only_the_api_is_reachable_from_outside_the_cluster(overlay: str) -> None:
    entrances = {each for each in arrows(overlay, "ingress") if each.source not in ports_of_pods(overlay)}

    assert {each.target for each in entrances if each.source in ("ingress", "gateway")} <= {"api"}
    assert {each.source for each in entrances} <= {"ingress", "gateway", "monitoring"}


def ports_of_pods(overlay: str) -> set[str]:
    return {pod.labels["app.kubernetes.io/name"] for pod in pods(overlay)}


@every_overlay
def test_only_pods_with_a_token_can_reach_the_api_server(overlay: str) -> None:
    speakers = {pod.labels["app.kubernetes.io/name"] for pod in pods(overlay) if pod.spec["automountServiceAccountToken"]}

    assert {each.source for each in arrows(overlay, "egress") if each.target == "kubernetes"} == speakers


def test_data_stores_have_the_same_clients_in_every_overlay() -> None:
    def clients(overlay: str, store: str) -> set[str]:
        return {each.source for each in arrows(overlay, "egress") if each.target == store} - {"seed"}

    for store in ("postgres", "valkey", "object-store"):
        assert clients("prod", store) == clients("local", store)


@every_overlay
def test_pipeline_jobs_wait_for_every_server_they_can_reach(overlay: str) -> None:
    """Its pod may start before the servers, and before the network policies have taken effect."""
    jobs = [
        pod
        for pod in pods(overlay)
        if any(each.get("persistentVolumeClaim", {}).get("claimName") == "workspace" for each in pod.spec["volumes"])
    ]

    waited = {}
    for pod in jobs:
        (wait,) = pod.spec["initContainers"]
        names = wait["command"][2:]
        assert {*names} <= {name.removesuffix("_FILE") for name in variables(overlay, wait)}
        waited[pod.labels["app.kubernetes.io/name"]] = {WAITS[name] for name in names}

    assert waited == {
        name: {each.target for each in arrows(overlay, "egress") if each.source == name}
        for name in ("train", "retrain", "materialise")
    }
