"""The images as they are built: who they run as, what they can write to, and what is in no layer."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stacked import ROOT, docker

pytestmark = pytest.mark.stack

NAMES = ("serve", "train", "monitor")
TAG = "images-test"
UNWANTED = ("pip", "pip3", "apt", "apt-get", "dpkg", "uv", "gcc", "cc", "c++", "ld", "make", "git", "curl", "wget")
SECRET_FILES = re.compile(
    r"(^|/)(\.git/|(\.env|\.netrc|\.pypirc|id_rsa|id_ed25519|mlflow\.db|credentials|[^/]*\.(pem|key|p12))$)"
)
PUBLIC = re.compile(
    r"(cacert|ca-certificates|roots|ssl/cert)\.pem$|/etc/ssl/certs/|/usr/share/ca-certificates/|/(tests?|data|testing)/"
)
PRIVATE_KEY = re.compile(rb"-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{200}")

every_image = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="session")
def images() -> dict[str, dict[str, Any]]:
    """Name → Docker's description of the image."""
    for name in NAMES:
        docker("build", "--quiet", "--file", str(ROOT / f"Dockerfile.{name}"), "--tag", f"churn-{name}:{TAG}", str(ROOT))
    return {name: json.loads(docker("image", "inspect", f"churn-{name}:{TAG}"))[0] for name in NAMES}


def python(name: str, code: str) -> str:
    """What Python prints in a container that cannot be written to."""
    return docker("run", "--rm", "--read-only", "--cap-drop=ALL", "--entrypoint=python", f"churn-{name}:{TAG}", "-c", code)


@every_image
def test_an_image_runs_as_its_own_user_with_one_writable_folder(images: dict[str, Any], name: str) -> None:
    assert images[name]["Config"]["User"] == "10001:10001"
    writable = """
import os
paths = ("/", "/app", "/etc", "/opt/churn", "/usr", "/var", "/var/lib/churn")
print(os.getuid(), [path for path in paths if os.access(path, os.W_OK)])
"""
    assert python(name, writable) == "10001 ['/var/lib/churn']\n"


@every_image
def test_an_image_has_neither_compiler_nor_package_manager(images: dict[str, Any], name: str) -> None:
    code = f"import shutil, importlib.util as u; print([n for n in {UNWANTED} if shutil.which(n)], u.find_spec('pip'))"

    assert python(name, code) == "[] None\n"


def test_the_server_image_is_the_smallest_and_has_no_training_packages(images: dict[str, Any]) -> None:
    heavy = ("pandas", "sklearn", "mlflow", "feast", "evidently", "great_expectations", "dvc", "onnx", "scipy")

    assert min(NAMES, key=lambda name: images[name]["Size"]) == "serve"
    assert python("serve", f"import importlib.util as u; print([n for n in {heavy} if u.find_spec(n)])") == "[]\n"


@every_image
def test_an_image_has_a_title_and_a_health_check(images: dict[str, Any], name: str) -> None:
    config = images[name]["Config"]

    assert config["Labels"]["org.opencontainers.image.title"] == f"churn-{name}"
    assert config["Healthcheck"]["Test"][0] == "CMD"


@pytest.fixture(scope="session", params=NAMES)
def layers(request: pytest.FixtureRequest, images: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's layers, unpacked from what `docker save` writes."""
    place = tmp_path_factory.mktemp(request.param)
    docker("save", "--output", str(place / "image.tar"), f"churn-{request.param}:{TAG}")
    with tarfile.open(place / "image.tar") as archive:
        archive.extractall(place / "image", filter="data")
    yield place / "image"
    shutil.rmtree(place)


def test_no_secret_is_in_any_layer(layers: Path) -> None:
    found = []
    for layer in (path for path in layers.rglob("*") if path.is_file() and tarfile.is_tarfile(path)):
        with tarfile.open(layer) as files:
            for member in files:
                name = f"/{member.name.removeprefix('./')}"
                if not member.isfile():
                    continue
                if SECRET_FILES.search(name) and not PUBLIC.search(name):
                    found.append(name)
                elif member.size < 200_000 and not name.endswith((".py", ".pyc", ".so")):
                    content = files.extractfile(member)
                    if content and PRIVATE_KEY.search(content.read()) and not PUBLIC.search(name):
                        found.append(name)

    assert found == []


@every_image
def test_a_code_change_keeps_the_package_layers(images: dict[str, Any], name: str, tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for file in filter(None, tracked):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, tmp_path / file)
    with (tmp_path / "src/churn/errors.py").open("a") as code:
        code.write("\n# a change\n")

    docker("build", "--quiet", "--file", str(tmp_path / f"Dockerfile.{name}"), "--tag", f"churn-{name}:changed", str(tmp_path))

    changed = json.loads(docker("image", "inspect", f"churn-{name}:changed"))[0]["RootFS"]["Layers"]
    before = images[name]["RootFS"]["Layers"]
    docker("image", "rm", "--force", f"churn-{name}:changed")
    assert changed[:2] == before[:2], "the interpreter's and the packages' layers"
    assert changed != before


def test_the_sbom_lists_the_locked_packages(images: dict[str, Any], tmp_path: Path) -> None:
    names = [f"churn-{name}:{TAG}" for name in NAMES]
    subprocess.run([sys.executable, "ops/sbom.py", str(tmp_path), *names], cwd=ROOT, check=True)

    locked = {each["name"]: each["version"] for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    for name, library in (("serve", "onnxruntime"), ("train", "scikit-learn"), ("monitor", "evidently")):
        bill = json.loads((tmp_path / f"churn-{name}.cdx.json").read_text())
        found = {each["purl"] for each in bill["components"]}
        assert f"pkg:pypi/{library}@{locked[library]}" in found
        assert any(each.startswith("pkg:deb/debian/libc6@") for each in found)
