"""A project's folder to deliver from, with programs in place of docker, cosign, kubectl and gh that note their calls."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MANIFESTS = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: api
  namespace: churn
spec:
  template:
    spec:
      containers:
      - image: registry.example.com:5000/churn/churn-serve:0.1.0
        name: api
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: train
  namespace: churn
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: materialise
  namespace: churn
---
apiVersion: batch/v1
kind: Job
metadata:
  name: seed
  namespace: churn
"""
SERVER = "https://cluster.example:6443"
ROLLOUT = ".cache/release/cluster-example-6443"
SERVE = f"ghcr.io/someone/churn-serve@sha256:{'a' * 64}"
FAKE = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(__file__)
with here.with_suffix(".calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "--filename=-" in sys.argv:
    here.with_suffix(".given").write_text(sys.stdin.read())
if "--metadata-file" in sys.argv:
    digest = "sha256:" + ("%x" % (len(here.with_suffix(".calls").read_text().splitlines()) % 16)) * 64
    pathlib.Path(sys.argv[sys.argv.index("--metadata-file") + 1]).write_text(json.dumps({{"containerimage.digest": digest}}))
answers = json.loads(here.with_suffix(".answers").read_text())
found = next((answers[words] for words in answers if words in " ".join(sys.argv[1:])), ["", 0])
sys.stdout.write(found[0])
sys.exit(found[1])
"""


class Bench:
    """A project's folder with an overlay in it, and fake programs on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        for name in ("cosign", "docker", "gh"):
            self.answer(name, {})
        self.answer("kubectl", {})
        (folder / "k8s" / "overlays" / "prod").mkdir(parents=True)

    def answer(self, program: str, answers: dict[str, tuple[str, int]]) -> None:
        """What the program prints, and its exit code, where its words have those in them."""
        if program == "kubectl":
            answers = {"config view": (SERVER, 0)} | answers
            answers = answers | {
                words: (MANIFESTS, 0)
                for place in ("k8s/overlays/prod", ROLLOUT)
                if (words := f"kustomize {place}") not in answers
            }
        path = self.programs / program
        path.write_text(FAKE.format(python=sys.executable))
        path.chmod(0o755)
        path.with_suffix(".answers").write_text(json.dumps(answers))

    def calls(self, program: str) -> list[str]:
        path = (self.programs / program).with_suffix(".calls")
        return [" ".join(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, module: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(
            [sys.executable, "-m", f"ops.{module}", *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def workload(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "churn", **metadata}, "spec": {}}


def items(*found: dict[str, Any]) -> tuple[str, int]:
    return json.dumps({"items": found}), 0
