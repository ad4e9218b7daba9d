"""What a model version came from: code, data, parameters, lock file. Each as a short text for a tag."""

import subprocess
from typing import TYPE_CHECKING

from churn import paths
from churn.adapters.files import sha256
from churn.domain.encoding import contract_sha256

if TYPE_CHECKING:
    from churn.settings import Settings

CODE = ("src", "params.yaml", "dvc.yaml", "uv.lock")


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
