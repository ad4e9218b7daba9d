"""`python -m monitoring [watch|check|reset]`: watch for good, check once, or close the circuit again."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from datetime import UTC, datetime

from churn.adapters.startup import prepare_process
from churn.errors import ChurnError
from churn.settings import load_monitoring


def main() -> int:
    """Run the command; a `ChurnError` is one line on standard error and exit code 1."""
    prepare_process()
    # No second series for every counter.
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "True")
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("watch", help="check at every interval; metrics and reports on CHURN_MONITOR_PORT (the default)")
    commands.add_parser("check", help="check once, print the decision")
    commands.add_parser("reset", help="close the circuit: retrainings may start again")
    command = parser.parse_args().command or "watch"
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    for name in ("monitoring", "churn"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Great Expectations and Evidently warn of their own libraries.
    warnings.simplefilter("ignore")
    try:
        COMMANDS[command]()
    except ChurnError as error:
        print(f"monitoring: {error}", file=sys.stderr)
        return 1
    return 0


def watch() -> None:
    """Watch until SIGTERM or SIGINT; a check under way is finished first."""
    settings = load_monitoring()
    from monitoring.site import serve
    from monitoring.watcher import Watcher

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watcher = Watcher(settings)
    with serve(settings):
        watcher.run(stop)


def check() -> None:
    """One check, now."""
    settings = load_monitoring()
    from monitoring.watcher import Watcher

    decision = Watcher(settings).check(datetime.now(UTC))
    print(f"{decision.kind}: {decision.reason}" if decision else "there is no production version to watch")


def reset() -> None:
    """Forget that retrainings were rejected or failed."""
    settings = load_monitoring()
    from monitoring.watcher import Watcher

    Watcher(settings).reset(datetime.now(UTC))
    print("the circuit is closed")


COMMANDS = {"watch": watch, "check": check, "reset": reset}


if __name__ == "__main__":
    sys.exit(main())
