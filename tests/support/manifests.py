"""The manifests of Kubernetes as kustomize renders them, and queries on them."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import render
from requirements import need

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("local", "prod")
OURS = re.compile(r"(?:.*/)?churn-(serve|train|monitor):")
SERVERS = ("Deployment", "StatefulSet")
TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where an object has its pods."""

Manifest = dict[str, Any]
CLUSTER = {"local": "local", "prod": "prod-cluster"}
"""Overlay → the one with its namespace, limits and admission policy."""
COMPONENTS = {"gateway": "resources", "gpu": "components", "kserve": "components"}
"""Those that are in no overlay, and how they are taken."""
PROBES = ("livenessProbe", "readinessProbe")


def build(folder: Path) -> str:
    """What kustomize makes of a folder."""
    return subprocess.run([need("kubectl"), "kustomize", str(folder)], check=True, text=True, stdout=subprocess.PIPE).stdout


def composed(tmp_path: Path, *lines: str) -> tuple[Manifest, ...]:
    """What kustomize makes of a kustomization of these lines; `k8s` in them is the project's folder."""
    text = "\n".join(["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", *lines])
    (tmp_path / "kustomization.yaml").write_text(text.replace("k8s/", f"{os.path.relpath(K8S, tmp_path)}/"))
    return tuple(yaml.safe_load_all(build(tmp_path)))


def with_component(tmp_path: Path, component: str) -> tuple[Manifest, ...]:
    """The base with a component that no overlay uses."""
    added = f"k8s/components/{component}"
    match COMPONENTS[component]:
        case "resources":
            return composed(tmp_path, f"resources: [k8s/base, {added}]")
        case _:
            return composed(tmp_path, "resources: [k8s/base]", f"components: [{added}]")


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """The objects of an overlay."""
    return tuple(yaml.safe_load_all(render.overlay(need("kubectl"), overlay).read_text()))


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    return [each for each in rendered(overlay) if each["kind"] in kinds]


def find(overlay: str, kind: str, name: str) -> Manifest:
    (found,) = [each for each in of_kind(overlay, kind) if each["metadata"]["name"] == name]
    return found


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


@dataclass(frozen=True)
class Pod:
    """The pods of one object."""

    overlay: str
    owner: Manifest
    template: Manifest

    def __str__(self) -> str:
        return f"{self.overlay}: {title(self.owner)}"

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def spec(self) -> Manifest:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def is_server(self) -> bool:
        return self.owner["kind"] in SERVERS


def pods_of(overlay: str, manifests: tuple[Manifest, ...]) -> list[Pod]:
    found = []
    for each in manifests:
        if path := TEMPLATES.get(each["kind"]):
            template = each
            for key in path:
                template = template[key]
            found.append(Pod(overlay, each, template))
    return found


PODS = [pod for overlay in OVERLAYS for pod in pods_of(overlay, rendered(overlay))]
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
every_pod = pytest.mark.parametrize("pod", PODS, ids=str)
every_server = pytest.mark.parametrize("pod", [pod for pod in PODS if pod.is_server], ids=str)


def pods(overlay: str) -> list[Pod]:
    return [pod for pod in PODS if pod.overlay == overlay]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """True if the selector of labels matches."""
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def variables(overlay: str, container: Manifest) -> dict[str, str]:
    """The environment that the overlay gives the container."""
    found: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        found |= find(overlay, "ConfigMap", each["configMapRef"]["name"])["data"]
    for each in container.get("env", ()):
        if "value" in each:
            found[each["name"]] = each["value"]
        else:
            key = each["valueFrom"]["configMapKeyRef"]
            found[each["name"]] = find(overlay, "ConfigMap", key["name"])["data"][key["key"]]
    return found


def config_maps(spec: Manifest) -> Iterator[tuple[str, list[str]]]:
    """Every ConfigMap that is named in a pod, and the keys that it uses."""
    for each in spec["volumes"]:
        for source in [each, *each.get("projected", {}).get("sources", ())]:
            if "configMap" in source:
                items = [item["key"] for item in source["configMap"].get("items", ())]
                yield source["configMap"].get("name"), items
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        for each in container.get("envFrom", ()):
            yield each["configMapRef"]["name"], []
        for each in container.get("env", ()):
            if key := each.get("valueFrom", {}).get("configMapKeyRef"):
                yield key["name"], [key["key"]]


def secrets_of(spec: Manifest) -> dict[str, str]:
    """Where a pod mounts Secrets: folder → Secret."""
    names = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    return {
        mount["mountPath"]: names[mount["name"]]
        for container in spec["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] in names
    }


def mounted_files(pod: Pod, folder: str) -> dict[str, str]:
    """Path → text of the ConfigMaps that are mounted at the folder."""
    (mount,) = [each for each in pod.spec["containers"][0]["volumeMounts"] if each["mountPath"] == folder]
    (volume,) = [each for each in pod.spec["volumes"] if each["name"] == mount["name"]]
    found: dict[str, str] = {}
    for source in volume.get("projected", {"sources": [volume]})["sources"]:
        texts: dict[str, Any] = find(pod.overlay, "ConfigMap", source["configMap"]["name"])["data"]
        items = source["configMap"].get("items") or [{"key": key, "path": key} for key in texts]
        found |= {item["path"]: texts[item["key"]] for item in items}
        assert {item["key"] for item in items} == set(texts), "a file would be missing in the pod"
    return found


def local(name: str) -> Pod:
    (pod,) = [pod for pod in pods("local") if pod.name == name]
    return pod


UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str | int) -> float:
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi)?", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS.get(unit, 1)


def table(heading: str) -> list[list[str]]:
    """The rows of the table with these columns in docs/kubernetes.md."""
    lines = (ROOT / "docs/kubernetes.md").read_text().splitlines()
    rows: list[list[str]] = []
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def named(cell: str) -> list[str]:
    """The names in a cell."""
    return re.findall(r"`([^`]+)`", cell)
