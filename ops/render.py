"""Write what is generated of the manifests: the operator's rules, and each overlay as one file. `make render` runs it.

`ops/render.py KUBECTL` calls that kubectl; tests prove that what is committed is current.
"""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/prometheus/rules"
OPERATOR_RULES = ROOT / "k8s/components/prometheus-operator/prometheusrule.yaml"
OVERLAYS = {"local": "local", "prod": "prod", "prod-cluster": "prod/cluster"}
"""File in k8s/rendered → folder in k8s/overlays."""
THE_CLUSTERS = re.compile(
    r"^(kind: ValidatingAdmissionPolicy(?:Binding)?\nmetadata:\n(?:  .*\n)*?)  namespace: .*\n", re.MULTILINE
)
"""The cluster's own, to which kustomize 5.8 gives a namespace (kubernetes-sigs/kustomize#6051); the API server takes it away."""
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


def rendered(kubectl: str, folder: Path) -> str:
    """The objects of a folder with a kustomization, the same from any version of kustomize."""
    command = [kubectl, "kustomize", str(folder)]
    return THE_CLUSTERS.sub(r"\1", subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)


def main(kubectl: str) -> None:
    """Write the rules, then the overlays that hold them."""
    OPERATOR_RULES.write_text(operator_rules())
    for name, folder in OVERLAYS.items():
        (ROOT / f"k8s/rendered/{name}.yaml").write_text(rendered(kubectl, ROOT / "k8s/overlays" / folder))


if __name__ == "__main__":
    main(sys.argv[1])
