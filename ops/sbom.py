"""Bills of materials of our images, as CycloneDX: `python ops/sbom.py FOLDER IMAGE…` writes FOLDER/<image>.cdx.json.

What an image holds is read from the image: Debian's own list of packages, and the metadata of every Python distribution.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from churn.adapters.files import atomic_path

LIST = """
import importlib.metadata as m, json, pathlib
status = pathlib.Path("/var/lib/dpkg/status")
print(json.dumps({
    "debian": status.read_text() if status.exists() else "",
    "python": sorted({(d.metadata["Name"], d.version) for d in m.distributions()}),
}))
"""


def main() -> None:
    """Write one file for each image."""
    folder, *images = sys.argv[1:]
    for image in images:
        bom = bill(image)
        name = image.partition(":")[0].rpartition("/")[2]
        path = Path(folder) / f"{name}.cdx.json"
        with atomic_path(path) as temporary:
            temporary.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
        print(f"{path}: {len(bom.components)} components")


def bill(image: str) -> Bom:
    """Everything that is installed in the image."""
    command = ["docker", "run", "--rm", "--read-only", "--network=none", "--entrypoint=python", image, "-c", LIST]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    bom = Bom()
    bom.metadata.component = Component(name=image, type=ComponentType.CONTAINER, bom_ref=image)
    bom.components.update(debian(found["debian"]))
    for name, version in found["python"]:
        bom.components.add(part(name, version, PackageURL("pypi", name=name.lower(), version=version)))
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


def debian(status: str) -> Iterator[Component]:
    """The packages that dpkg's status file calls installed."""
    for entry in filter(None, status.split("\n\n")):
        fields = HeaderParser().parsestr(entry)
        if "installed" in str(fields["Status"]).split():
            name, version, architecture = (str(fields[each]) for each in ("Package", "Version", "Architecture"))
            url = PackageURL("deb", "debian", name, version, {"arch": architecture})
            yield part(name, version, url)


def part(name: str, version: str, url: PackageURL) -> Component:
    """One installed package."""
    return Component(name=name, version=version, purl=url, type=ComponentType.LIBRARY, bom_ref=url.to_string())


if __name__ == "__main__":
    main()
