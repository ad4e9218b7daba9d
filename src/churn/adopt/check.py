"""`churn check`: every mistake of contract.py and features.py, alone and against the rows, one line each."""

import logging
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from churn import paths
from churn.adopt import definitions, tables
from churn.adopt.definitions import Definitions, Mistake
from churn.domain.kinds import Role
from churn.domain.reasons import one_line
from churn.errors import ConfigError, ContractError
from churn.params import Params, load_params
from churn.settings import Settings, without_password

log = logging.getLogger(__name__)

QUICK_BYTES = 64 * 2**20
"""`churn repro` looks at the rows of data/raw up to this size: larger files take longer than they are worth."""


def alone() -> tuple[Definitions, list[Mistake]]:
    """What both files define, and their mistakes without any row."""
    found = definitions.load()
    return found, tables.mistakes(found) or _at_import(found)


def run(settings: Settings) -> list[Mistake]:
    """All mistakes: of the files alone, or if there are none, of the files and the rows of data/raw and CHURN_SOURCE."""
    found, mistakes = alone()
    try:
        params = load_params()
    except ConfigError as error:
        return [*mistakes, Mistake(paths.PARAMS, 0, "", one_line(error).removeprefix(f"{paths.PARAMS}: "))]
    if mistakes := mistakes or _of_params(params, found):
        return mistakes
    from churn.adopt import rows

    places = list(_locations(settings))
    if not places:
        text = f"expected rows, got none; put a table into {paths.RAW}, or set CHURN_SOURCE"
        return [Mistake(paths.RAW, 0, "", text)]
    return sorted(
        (each for location in places for each in rows.mistakes(location, settings.source_table, found, params)),
        key=lambda each: (each.file, each.line),
    )


def before_a_run() -> None:
    """Check both files before the pipeline runs, and how they fit small rows in data/raw; a suspected leak is only logged.

    Raises:
        ContractError: there are mistakes; each is printed on a line of standard error.
    """
    found, mistakes = alone()
    if not mistakes and 0 < sum(each.stat().st_size for each in _parts()) <= QUICK_BYTES:
        mistakes = _quick(found)
    for each in mistakes:
        print(each, file=sys.stderr)
    if mistakes:
        raise ContractError(f"{counted(mistakes)} of the contract, named above; correct them, and run `churn check`")


def counted(mistakes: list[Mistake]) -> str:
    """How many there are, in words."""
    return "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"


def _quick(found: Definitions) -> list[Mistake]:
    """What would stop a stage late; wrong values are left to `prepare`, which keeps the rows that have them."""
    from churn.adopt.rows import Rows
    from churn.errors import ChurnError

    try:
        rows, params = Rows(str(paths.RAW), "", found), load_params()
    except ChurnError:  # the first stage says the same
        return []
    if wrong := _of_params(params, found):
        return wrong
    for each in rows.leaks(params.evaluate.gate.trusted_columns):
        log.warning("%s", each)
    if missing := list(rows.structure()):
        return missing
    return [] if any(rows.values()) else list(rows.features())


def _of_params(params: Params, found: Definitions) -> list[Mistake]:
    """What of params.yaml does not fit the models' files, or the features; contract.py has no mistake."""
    from churn import models

    try:
        models.check(params.train)
    except ConfigError as error:
        return [Mistake(paths.PARAMS, 0, "", one_line(error).removeprefix(f"{paths.PARAMS}: "))]
    features = {each.value.name for each in found.columns if each.value.role is Role.FEATURE} | {
        each.name for each in found.derived
    }
    if unknown := sorted(set(params.evaluate.gate.trusted_columns) - features):
        text = f"expected features of the contract, got {', '.join(unknown)}; correct it"
        return [Mistake(paths.PARAMS, 0, "evaluate.gate.trusted_columns", text)]
    return []


def _locations(settings: Settings) -> Iterator[str]:
    if _parts():
        yield str(paths.RAW)
    if settings.source:
        yield settings.source


def _parts() -> list[Path]:
    files = paths.RAW.iterdir() if paths.RAW.is_dir() else ()
    return [each for each in files if each.suffix.lower() in (".csv", ".parquet") and not each.name.startswith((".", "_"))]


def _at_import(found: Definitions) -> list[Mistake]:
    """What stops the files from being imported, if no other check has found it."""
    try:
        import_module("churn.adapters.origins")
        import_module("churn.features")
    except Exception as error:  # whatever the two files raise; what comes from elsewhere is raised again
        for file in (found.features, found.contract):
            if line := definitions.line_of(error, file.path):
                return [Mistake(file.path, line, "", f"expected code that can be imported, got {one_line(error)}; correct it")]
        raise
    return []


def shown_source(settings: Settings) -> str:
    """Where the rows are, for messages."""
    return " and ".join(without_password(each) for each in _locations(settings))
