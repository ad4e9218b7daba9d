"""What a model version came from: code, data, parameters, lock file. Each as a short text for a tag."""

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from churn import paths

if TYPE_CHECKING:
    from churn.settings import Settings

CODE = ("src", "params.yaml", "dvc.yaml", "uv.lock")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; "none" where there is no such file."""
    if not path.exists():
        return "none"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_sha(given: str = "") -> str:
    """The commit of the code, with "-dirty" where src, params.yaml, dvc.yaml or uv.lock differ from it; "unknown" outside git.

    `given` is what the settings say, for an image that has no git.
    """
    if given:
        return given
    commit = _git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git("status", "--porcelain", "--", *CODE) else commit or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def contract_sha256() -> str:
    """A digest of what the model's inputs mean: two versions with the same digest take the same columns."""
    from churn.features import FEATURES, encoded_names

    kinds = [f"{each.name}: {each.kind}" for each in FEATURES]
    return hashlib.sha256("\n".join([*kinds, *encoded_names()]).encode()).hexdigest()


def lineage(params_json: str, settings: "Settings") -> dict[str, str]:
    """The tags that tie a version to what made it."""
    return {
        "git_sha": git_sha(settings.git_sha),
        "train_rows_sha256": sha256(paths.TRAIN_ROWS),
        "features_sha256": sha256(paths.FEATURES),
        "params": params_json,
        "uv_lock_sha256": sha256(paths.LOCK),
        "contract_sha256": contract_sha256(),
    }
