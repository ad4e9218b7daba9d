"""Nothing is compiled where developers work: uv.lock has wheels for Linux on x86-64 and arm64 and for macOS on arm64."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
WITHOUT_WHEEL = {"antlr4-python3-runtime"}
"""Python code alone: pip builds it without a compiler."""

PLATFORMS = {
    "linux-x86_64": ({"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}, r"linux.*_x86_64"),
    "linux-arm64": ({"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"}, r"linux.*_aarch64"),
    "macos-arm64": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
        r"macosx_.*_(arm64|universal2)",
    ),
}
"""Platform → its environment markers, and what a wheel for it has in its name."""

Package = dict[str, Any]


def environment(platform: str, python: str) -> dict[str, str]:
    """The values of a platform's environment markers."""
    markers, _ = PLATFORMS[platform]
    common = {"os_name": "posix", "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}
    return {**markers, **common, "python_version": python, "python_full_version": f"{python}.0"}


def installed(values: dict[str, str]) -> list[Package]:
    """The locked packages that `make setup` and `make bench-serve` install there."""
    found: dict[tuple[str, str], Package] = {}
    (project,) = [package for package in LOCK["package"] if package["name"] == "churn"]
    queue = [*project["dependencies"], *(each for group in project["dev-dependencies"].values() for each in group)]
    while queue:
        dependency = queue.pop()
        if "marker" in dependency and not Marker(dependency["marker"]).evaluate(values):
            continue
        for package in locked(dependency, values):
            extras = dependency.get("extra", [])
            if (key := (package["name"], " ".join(extras))) not in found:
                found[key] = package
                queue += package.get("dependencies", [])
                queue += [each for extra in extras for each in package["optional-dependencies"][extra]]
    return list(found.values())


def locked(dependency: Package, values: dict[str, str]) -> list[Package]:
    """The one package that a dependency means there."""
    return [
        package
        for package in LOCK["package"]
        if package["name"] == dependency["name"]
        and dependency.get("version") in (None, package["version"])
        and any(Marker(marker).evaluate(values) for marker in package.get("resolution-markers", ["os_name == 'posix'"]))
    ]


def has_wheel(package: Package, platform: str, python: str) -> bool:
    """True if a wheel of the package fits the platform and the version of Python."""
    _, pattern = PLATFORMS[platform]
    major, minor = map(int, python.split("."))
    for wheel in package.get("wheels", []):
        _, _, _, tags = parse_wheel_filename(wheel["url"].rpartition("/")[2].replace("%2B", "+"))
        for tag in tags:
            abi3 = re.fullmatch(r"cp3(\d+)", tag.interpreter) if tag.abi == "abi3" else None
            fits = tag.interpreter in ("py3", f"py3{minor}", f"cp{major}{minor}") or (abi3 and int(abi3[1]) <= minor)
            if fits and (tag.platform == "any" or re.search(pattern, tag.platform)):
                return True
    return False


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_package_has_a_wheel(platform: str, python: str) -> None:
    packages = installed(environment(platform, python))

    assert len(packages) > 200
    assert {package["name"] for package in packages if not has_wheel(package, platform, python)} == WITHOUT_WHEEL


def test_every_locked_platform_is_a_required_environment() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["required-environments"]

    for platform in PLATFORMS:
        assert any(Marker(marker).evaluate(environment(platform, "3.11")) for marker in required)
