"""What every program of the project does before anything else: no telemetry, and nothing that depends on the user's language."""

import locale
import os

NO_TELEMETRY = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
}
"""Variables that keep the libraries from calling home."""
LOCALE = "C.UTF-8"


def prepare_process() -> None:
    """Switch telemetry off, and set the locale of this process and of the processes that it starts to C.UTF-8.

    Python takes LC_CTYPE from the environment when it starts. Before 3.13, `sqlite3` compares statements with C's `tolower`:
    in a Turkish locale, "INSERT" is not "insert", no transaction is opened, and every row is committed by itself.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    # LC_ALL outranks what the user has set: LC_CTYPE in the environment would not.
    os.environ["LC_ALL"] = LOCALE
    try:
        locale.setlocale(locale.LC_CTYPE, LOCALE)
    except locale.Error:
        # A C library without C.UTF-8. Python's own encodings were chosen when it started, and stay.
        locale.setlocale(locale.LC_CTYPE, "C")
