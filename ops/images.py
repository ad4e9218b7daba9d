"""The release's images: `python3 -m ops.images publish|published|sign|verify`. It needs Docker's client and cosign.

From the environment: REPOSITORY (`ghcr.io/me`) and VERSION (a tag) to publish; SIGNER, who must have signed, to verify. What was
published is in .cache/release; IMAGES, references by digest with spaces between them, stands in for it on another machine.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ops.outside import Failed

NAMES = ("churn-serve", "churn-train", "churn-monitor")
RELEASE = Path(".cache/release")
BUILDER = "churn"
ISSUER = "https://token.actions.githubusercontent.com"
DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def main() -> int:
    """Run the command; what fails is one line and exit code 1."""
    commands = {"publish": publish, "published": published, "sign": sign, "verify": verify}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        commands[sys.argv[1]]()
    except Failed as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def publish() -> None:
    """Build and push each image, with its provenance and a bill of materials; keep the digests."""
    # Registries take small letters alone, and owners' names have others too.
    repository, version, commit = setting("REPOSITORY").lower(), setting("VERSION"), os.environ.get("CHURN_GIT_SHA", "")
    RELEASE.mkdir(parents=True, exist_ok=True)
    # Docker's own builder knows no attestations.
    if subprocess.run(["docker", "buildx", "inspect", BUILDER], capture_output=True, check=False).returncode:
        run("docker", "buildx", "create", "--name", BUILDER, "--driver", "docker-container")
    found = []
    for name in NAMES:
        metadata = RELEASE / f"{name}.json"
        run(
            *("docker", "buildx", "build", "--builder", BUILDER, "--push", "--provenance=mode=max", "--sbom=true"),
            *("--file", f"Dockerfile.{name.removeprefix('churn-')}", "--tag", f"{repository}/{name}:{version}"),
            *("--build-arg", f"VERSION={version.removeprefix('v')}", "--build-arg", f"GIT_SHA={commit}"),
            *("--metadata-file", str(metadata), "."),
        )
        found.append((f"{repository}/{name}", json.loads(metadata.read_text())["containerimage.digest"]))
    write(RELEASE / "images", "".join(f"{name}@{digest}\n" for name, digest in found))
    write(RELEASE / "checksums", "".join(f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in found))


def published() -> None:
    """Print the references on one line, as an output of a workflow's step."""
    print(f"images={' '.join(references())}")


def sign() -> None:
    """Sign each image by its digest, without a key: who runs this signs, by the provider's word or in a browser."""
    for reference in references():
        run("cosign", "sign", "--yes", reference)


def verify() -> None:
    """Refuse an image that SIGNER did not sign."""
    who = (f"--certificate-identity={setting('SIGNER')}", f"--certificate-oidc-issuer={ISSUER}")
    for reference in references():
        run("cosign", "verify", *who, "--output=text", reference)
        print(f"ok  {reference}", flush=True)


def references() -> list[str]:
    """The images by digest: of IMAGES, or those that were published here.

    Raises:
        Failed: there are none, or one is not by digest.
    """
    path = RELEASE / "images"
    found = (os.environ.get("IMAGES") or (path.read_text() if path.exists() else "")).split()
    if not found:
        raise Failed("nothing was published here, and IMAGES is empty: run `make publish`, or set IMAGES to references by digest")
    if wrong := [reference for reference in found if not DIGEST.fullmatch(reference)]:
        raise Failed(f"IMAGES: {' '.join(wrong)}: not by digest; a tag may be moved: write name@sha256:…")
    return found


def write(path: Path, text: str) -> None:
    """Write the whole file or none of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def setting(name: str) -> str:
    """A variable's value.

    Raises:
        Failed: it is empty.
    """
    if not (value := os.environ.get(name, "")):
        raise Failed(f"{name} is not set; the head of ops/images.py says what it is")
    return value


def run(*words: str) -> None:
    """Run a command; what it prints is shown.

    Raises:
        Failed: it ended with an error.
    """
    try:
        # Standard output is for what this program answers.
        code = subprocess.run(words, stdout=sys.stderr, check=False).returncode
    except FileNotFoundError:
        raise Failed(f"{words[0]} is not on the path; install it") from None
    if code:
        raise Failed(f"`{' '.join(words)}` ended with exit code {code}; its messages are above")


if __name__ == "__main__":
    sys.exit(main())
