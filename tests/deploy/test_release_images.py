"""A release's images: pushed with SBOM and provenance, signed by digest, refused without the right signature."""

import pytest

from delivering import SERVE, Bench


def test_every_image_is_pushed_with_provenance_and_sbom(bench: Bench) -> None:
    done = bench.run("images", "publish", REPOSITORY="ghcr.io/Someone", VERSION="v1.2.3", CHURN_GIT_SHA="abc")

    assert done.returncode == 0, done.stderr
    builds = [call for call in bench.calls("docker") if "buildx build" in call]
    assert len(builds) == 3
    for build in builds:
        assert {"--push", "--provenance=mode=max", "--sbom=true", "VERSION=1.2.3", "GIT_SHA=abc"} <= set(build.split())
    assert {build.split("--tag ")[1].split()[0] for build in builds} == {
        f"ghcr.io/someone/churn-{name}:v1.2.3" for name in ("serve", "train", "monitor")
    }


def test_published_images_are_listed_as_digests_and_checksums(bench: Bench) -> None:
    bench.run("images", "publish", REPOSITORY="ghcr.io/someone", VERSION="v1.2.3")

    output = bench.run("images", "published").stdout

    references = output.removeprefix("images=").split()
    checksums = dict(line.split() for line in (bench.folder / ".cache/release/checksums").read_text().splitlines())
    assert output.count("\n") == 1
    assert len(references) == 3
    assert {f"{name}@sha256:{digest}" for digest, name in checksums.items()} == set(references)


def test_a_build_that_fails_is_not_published(bench: Bench) -> None:
    bench.answer("docker", {"Dockerfile.train": ("", 1)})

    done = bench.run("images", "publish", REPOSITORY="ghcr.io/someone", VERSION="v1")

    assert done.returncode == 1
    assert "Dockerfile.train" in done.stderr
    assert bench.run("images", "published").returncode == 1


def test_images_are_signed_by_digest(bench: Bench) -> None:
    bench.run("images", "sign", IMAGES=SERVE)

    assert bench.calls("cosign") == [f"sign --yes {SERVE}"]


def test_verification_requires_a_named_signer(bench: Bench) -> None:
    signer = "https://github.com/someone/churn/.github/workflows/cd.yml@refs/tags/v1"

    done = bench.run("images", "verify", IMAGES=SERVE, SIGNER=signer)

    assert done.returncode == 0, done.stderr
    (call,) = bench.calls("cosign")
    assert f"--certificate-identity={signer} --certificate-oidc-issuer=https://token.actions.githubusercontent.com" in call
    assert bench.run("images", "verify", IMAGES=SERVE).returncode == 1


def test_an_unsigned_image_stops_the_release(bench: Bench) -> None:
    bench.answer("cosign", {"verify": ("", 1)})

    assert bench.run("images", "verify", IMAGES=SERVE, SIGNER="somebody").returncode == 1


@pytest.mark.parametrize(("module", "word"), [("images", ["sign"]), ("rollout", ["deploy", "prod"])])
def test_an_image_without_a_digest_is_neither_signed_nor_deployed(bench: Bench, module: str, word: list[str]) -> None:
    done = bench.run(module, *word, IMAGES="ghcr.io/someone/churn-serve:v1")

    assert done.returncode == 1
    assert "not by digest" in done.stderr
    assert not [call for call in bench.calls("kubectl") if call.startswith("apply")]
