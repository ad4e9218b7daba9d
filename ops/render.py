"""Write what is generated of the manifests: the operator's rules, and each overlay as one file. `make manifests` runs it.

`python -m ops.render KUBECTL` calls that kubectl. The rules are committed, since kustomize reads them; the overlays are in
.cache/rendered, for scanners, tests and people.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/prometheus/rules"
OPERATOR_RULES = ROOT / "k8s/components/prometheus-operator/prometheusrule.yaml"
FOLDERS = sorted(path.parent.relative_to(ROOT / "k8s/overlays") for path in ROOT.glob("k8s/overlays/**/kustomization.yaml"))
OVERLAYS = {"-".join(folder.parts): folder.as_posix() for folder in FOLDERS}
"""File in .cache/rendered → folder in k8s/overlays: `prod-cluster` is `prod/cluster`."""
RENDERED = ROOT / ".cache/rendered"
INPUTS = ("k8s", "compose", "monitoring", "ops")
"""Folders with the files that the overlays are made of."""
RULE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: churn-{name}
spec:
"""


def operator_rules() -> str:
    """Each file of rules, line by line, as a PrometheusRule: kustomize takes files into ConfigMaps, not into other objects."""
    rules = [RULE.format(name=file.stem) + indent(file.read_text(), "  ") for file in sorted(RULES.glob("*.yml"))]
    return "# Written by `make render` from monitoring/prometheus/rules.\n" + "---\n".join(rules)


def overlay(kubectl: str, name: str) -> Path:
    """The file with all objects of an overlay, written again if anything that it may be made of is newer."""
    file = RENDERED / f"{name}.yaml"
    if not file.exists() or file.stat().st_mtime < max(path.stat().st_mtime for path in inputs()):
        command = [kubectl, "kustomize", str(ROOT / "k8s/overlays" / OVERLAYS[name])]
        objects = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
        RENDERED.mkdir(parents=True, exist_ok=True)
        # Several processes of a test run may do this at once, and read it at once.
        written = file.with_suffix(f".{os.getpid()}")
        written.write_text(objects)
        written.replace(file)
    return file


def inputs() -> Iterator[Path]:
    """Every file and folder that an overlay may be made of; a folder is newer where a file of it is gone."""
    for folder in INPUTS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.name != "__pycache__" and path.suffix != ".pyc")


def main(kubectl: str) -> None:
    """Write the rules, then the overlays that hold them."""
    if OPERATOR_RULES.read_text() != operator_rules():
        OPERATOR_RULES.write_text(operator_rules())
    for name in OVERLAYS:
        print(overlay(kubectl, name).relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1])
