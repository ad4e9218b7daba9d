"""Damages the bundle in models/candidate again and again.

`python benchmarks/fuzz_bundle.py [--parsed N] [--loaded N] [--seed N]`, or `make bench-fuzz` after `make repro`. Each damaged
bundle must be loaded or refused, in this process and in one of its own as a server does it; anything else is a traceback. It
prints how many were refused for which reason.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from churn import paths
from churn.adapters import bundle
from churn.domain.version import Version
from fuzzing import load_isolated, parse_in_process


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Damage the bundle in models/candidate: each must be loaded or refused.")
    parser.add_argument("--parsed", type=int, default=200_000, help="bundles to parse in this process")
    parser.add_argument("--loaded", type=int, default=3_000, help="bundles to load in processes of their own")
    parser.add_argument("--seed", type=int, default=0, help="the same seed damages the same bytes")
    options = parser.parse_args()

    files, digest = bundle.read(paths.CANDIDATE), bundle.digest(paths.CANDIDATE)
    released = Version("1", datetime.now(UTC), {bundle.TAG: digest, "threshold": "0.3"}, {}, str(paths.CANDIDATE))
    print("parsed:", parse_in_process(files, released, options.parsed, options.seed))
    with TemporaryDirectory() as folder:
        print("loaded:", load_isolated(files, released, Path(folder), options.loaded, options.seed))


if __name__ == "__main__":
    main()
