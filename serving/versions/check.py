"""`python -m serving.versions.check`: loads and proves a version under limits of memory and time, in a process that may crash.

See `serving.versions.isolated`; the job is what `job` returns.
"""

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from churn.adapters import bundle
from churn.domain.reasons import reason
from churn.domain.version import Version
from churn.errors import BundleError

RESOURCES = "resources"
"""The reason of a version that needs more time or memory than it may have, or that crashes the process."""
NICE = 5
"""The niceness of a check while another version serves: its requests come first."""


def job(released: Version, folder: Path, *, memory_bytes: int, seconds: float, nice: int) -> dict[str, Any]:
    """Load the version from the folder, within so much address space and processor time, with that niceness."""
    limits = {"memory_bytes": memory_bytes, "seconds": seconds, "nice": nice}
    return {"released": released.as_json(), "folder": str(folder), **limits}


def check(work: dict[str, Any]) -> dict[str, str]:
    """Do the job; returns {}, or the `reason` and `message` of what is wrong with the version."""
    from serving.versions.model import load

    try:
        released = Version.from_json(work["released"])
        load(bundle.read(Path(work["folder"]), expected=released.digest), released)
    except BundleError as error:
        return {"reason": error.reason, "message": str(error)}
    except MemoryError:
        return {"reason": RESOURCES, "message": f"loading needs more than {work['memory_bytes'] >> 20} MiB of memory"}
    except Exception as error:  # noqa: BLE001 - whatever the bytes cause here must become a refusal
        return {"reason": "corrupt", "message": f"loading failed: {type(error).__name__}: {reason(error)[:200]}"}
    return {}


def limit(memory_bytes: int, seconds: float, nice: int) -> None:
    """Limit this process, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    signal.alarm(int(seconds) + 1)  # the server that waits for it may be gone
    cpu = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    os.nice(nice)
    with suppress(OSError):  # where there is no /proc
        Path("/proc/self/oom_score_adj").write_text("1000")  # rather this process than the server


def main() -> None:
    """Read the job, print the result."""
    work = json.load(sys.stdin)
    limit(work["memory_bytes"], work["seconds"], work["nice"])
    # What native code prints must not stand among the result.
    out = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.write(out, json.dumps(check(work)).encode())


if __name__ == "__main__":
    main()
