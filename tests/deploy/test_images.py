"""The text of the Dockerfiles; `make test-compose` checks the images themselves."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAMES = ("serve", "train", "monitor")
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()

every_image = pytest.mark.parametrize("name", NAMES)


def dockerfile(name: str) -> str:
    return (ROOT / f"Dockerfile.{name}").read_text()


def last_stage(name: str) -> str:
    return dockerfile(name).split("\nFROM ")[-1]


@every_image
def test_hadolint_reports_no_problem(name: str) -> None:
    done = subprocess.run(["hadolint", f"Dockerfile.{name}"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfiles_share_their_first_stages() -> None:
    shared = {re.sub(r"--group \w+", "--group", dockerfile(name).split("\n", 1)[1].split("WORKDIR /app")[0]) for name in NAMES}

    assert len(shared) == 1, "their layers are shared only while they are the same"


@every_image
def test_each_image_installs_its_locked_dependency_group(name: str) -> None:
    assert f"uv sync --frozen --no-default-groups --group {name} --no-install-project" in dockerfile(name)


@every_image
def test_packages_are_copied_before_the_code(name: str) -> None:
    stage = last_stage(name)

    assert stage.index("COPY --from=packages") < stage.index("COPY src")
    assert "src" not in dockerfile(name).split("AS packages")[1].split("\nFROM ")[0]


@every_image
def test_each_image_has_a_numeric_user_and_one_writable_folder(name: str) -> None:
    stage = last_stage(name)

    assert stage.startswith("scratch\n")
    assert "\nUSER 10001:10001\n" in stage
    assert re.findall(r"^VOLUME (.*)$", stage, re.MULTILINE) == ["/var/lib/churn"]
    assert "HEALTHCHECK" in stage


@every_image
def test_each_image_has_the_standard_labels(name: str) -> None:
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", last_stage(name)))

    assert labels == {"title", "description", "licenses", "version", "revision"}


@every_image
def test_every_copied_path_is_allowed_by_dockerignore(name: str) -> None:
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(name), re.MULTILINE)
    copied = {word.rstrip("/") for line in lines for word in line.split()}
    allowed = [Path(line[1:]) for line in IGNORED if line.startswith("!")]

    assert IGNORED[1] == "*"
    assert [
        path for path in map(Path, copied) if not any(path.is_relative_to(each) or each.is_relative_to(path) for each in allowed)
    ] == []


def test_the_compose_file_builds_every_dockerfile() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()

    assert {each["build"]["dockerfile"] for each in services if "build" in each} == {f"Dockerfile.{name}" for name in NAMES}
