"""`python -m serving.versions.fetch`: downloads a version's files into a folder, in a process that can be killed.

Nothing is read of them but the manifest. See `serving.versions.isolated`; the job is what `job` returns.
"""

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from churn.adapters import bundle
from churn.adapters.mlflow import model_store
from churn.domain.version import Version
from churn.errors import BundleError, RegistryError

READ_TIMEOUT_S = 10
"""Of one read of the registry's server."""


def job(uri: str, released: Version, folder: Path, *, seconds: float) -> dict[str, Any]:
    """Download the version's files from the registry at `uri` into the folder, which exists, within so much time."""
    return {"uri": uri, "released": released.as_json(), "folder": str(folder), "seconds": seconds}


def download(work: dict[str, Any]) -> dict[str, str]:
    """Do the job; returns {}, or why not: `unreachable`, or `reason` and `message` of what is wrong with the files."""
    released = Version.from_json(work["released"])
    store = model_store.connect(work["uri"], timeout_s=READ_TIMEOUT_S)
    try:
        bundle.fetch(partial(store.fetch, released), Path(work["folder"]), released.digest)
    except BundleError as error:
        return {"reason": error.reason, "message": str(error)}
    except RegistryError as error:
        return {"unreachable": str(error)}
    return {}


def main() -> None:
    """Read the job, print the result."""
    work = json.load(sys.stdin)
    signal.alarm(int(work["seconds"]) + 1)  # the server that waits for it may be gone
    json.dump(download(work), sys.stdout)


if __name__ == "__main__":
    main()
