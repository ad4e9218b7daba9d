"""A folder that the pipeline can run in, laid out from a project that cannot be written to, as in an image."""

import logging
import shutil
from pathlib import Path

from churn import paths
from churn.adapters.files import atomic_path

log = logging.getLogger(__name__)

CODE = (".dvcignore", "dvc.yaml", "params.yaml", "pyproject.toml", "src", "uv.lock")
"""Copied at each start: the project's own files run."""
LOCK = Path("dvc.lock")
"""Taken once: from then on it says what was run here."""
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n"


def lay(project: Path, folder: Path, *, rows: bool) -> None:
    """Copy the project's code to `folder`; what was made there stays. `rows`: the shipped rows too, where there are none yet."""
    for name in CODE:
        _replace(project / name, folder / name)
    if not (folder / LOCK).exists():
        shutil.copy2(project / LOCK, folder / LOCK)
    config = folder / ".dvc/config"
    config.parent.mkdir(exist_ok=True)
    config.write_text(DVC_CONFIG)
    raw = folder / paths.RAW
    raw.mkdir(parents=True, exist_ok=True)
    if rows and not any(raw.iterdir()):
        for part in (project / paths.RAW).iterdir():
            # Rows that came back from production belong to the system that they came back to.
            if not part.name.startswith("ingested-"):
                with atomic_path(raw / part.name) as temporary:
                    shutil.copy2(part, temporary)
    log.info("workspace: %s", folder)


def _replace(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
