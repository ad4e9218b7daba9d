"""A second apply of the same manifests changes nothing, and a tool that applies them can replace each Job."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests import COMPONENTS, Manifest, find, of_kind, rendered, title, with_component
from ops import render

every_rendered = pytest.mark.parametrize("overlay", render.OVERLAYS)

DEFAULTS: dict[str, dict[str, tuple[str, ...]]] = {
    "StatefulSet": {"spec.volumeClaimTemplates": ("apiVersion", "kind", "spec.volumeMode", "status.phase")},
    "NetworkPolicy": {"spec.ingress.ports": ("protocol",), "spec.egress.ports": ("protocol",)},
    "ValidatingAdmissionPolicy": {"spec.matchConstraints.resourceRules": ("scope",)},
    "CronJob": {"spec.jobTemplate.spec.podFailurePolicy.rules.onPodConditions": ("status",)},
    "ServiceMonitor": {"spec.endpoints.relabelings": ("action",)},
    "HTTPRoute": {
        "spec.parentRefs": ("group", "kind"),
        "spec.rules.backendRefs": ("group", "kind", "weight"),
        "spec.rules.matches": ("path.type", "path.value"),
    },
    "InferenceService": {"spec.predictor.containers.ports": ("protocol",)},
}
"""Kind → list → fields that the API server adds to its items.

These lists are atomic (x-kubernetes-list-type): where an item lacks a field, kubectl writes the list at every apply, and a
server-side apply conflicts with a client-side one. Source: pkg/apis/*/v1/defaults.go of Kubernetes, and the CRDs.
"""


def items(node: Any, path: list[str]) -> Iterator[Any]:
    """The values at a path; a list on the way, or at its end, stands for each of its items."""
    if isinstance(node, list):
        for each in node:
            yield from items(each, path)
    elif not path:
        yield node
    elif path[0] in node:
        yield from items(node[path[0]], path[1:])


def missing(manifest: Manifest) -> list[str]:
    """The defaults of the API server that an object leaves out of its atomic lists."""
    return [
        f"{title(manifest)}: {path}: {name}"
        for path, names in DEFAULTS.get(manifest["kind"], {}).items()
        for item in items(manifest, path.split("."))
        for name in names
        if not list(items(item, name.split(".")))
    ]


@every_rendered
def test_a_list_that_is_compared_as_a_whole_has_the_fields_that_the_server_adds(overlay: str) -> None:
    assert [each for manifest in rendered(overlay) for each in missing(manifest)] == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_list_of_a_component_has_the_fields_that_the_server_adds(component: str, tmp_path: Path) -> None:
    assert [each for manifest in with_component(tmp_path, component) for each in missing(manifest)] == []


def test_a_claim_template_is_what_the_server_stores() -> None:
    (template,) = find("local", "StatefulSet", "postgres")["spec"]["volumeClaimTemplates"]

    assert (template["apiVersion"], template["kind"]) == ("v1", "PersistentVolumeClaim")
    assert template["spec"]["volumeMode"] == "Filesystem"
    assert template["status"] == {"phase": "Pending"}


def quantities(node: Any) -> Iterator[str]:
    """The quantities of resources in an object."""
    match node:
        case dict():
            for key, value in node.items():
                if key in ("requests", "limits", "default", "defaultRequest", "max", "hard") and isinstance(value, dict):
                    yield from map(str, value.values())
                elif key == "sizeLimit":
                    yield str(value)
                else:
                    yield from quantities(value)
        case list():
            for each in node:
                yield from quantities(each)


def canonical(quantity: str) -> str:
    """The form in which the API server stores a quantity: no fraction, the largest unit."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi)?", quantity).groups()  # type: ignore[union-attr]
    assert "." not in number, quantity
    units, step = (["m", ""], 1000) if unit in ("m", None) else (["Ki", "Mi", "Gi"], 1024)
    value, unit = int(number), unit or ""
    while value and value % step == 0 and unit != units[-1]:
        value, unit = value // step, units[units.index(unit) + 1]
    return f"{value}{unit}"


@every_rendered
def test_quantities_are_as_the_server_stores_them(overlay: str) -> None:
    found = {each for manifest in rendered(overlay) for each in quantities(manifest)}

    assert found
    assert [each for each in found if canonical(each) != each] == []


def test_a_platforms_overlay_has_no_job_that_could_be_immutable() -> None:
    assert of_kind("prod", "Job") == []


@pytest.mark.parametrize("job", of_kind("local", "Job"), ids=title)
def test_argo_cd_and_flux_replace_a_job_and_kubernetes_deletes_it_when_it_ended(job: Manifest) -> None:
    annotations = job["metadata"]["annotations"]

    assert annotations["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert annotations["kustomize.toolkit.fluxcd.io/force"] == "enabled"
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
