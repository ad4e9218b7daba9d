"""`churn init`: drafts contract.py and features.py for a table, and puts the table into data/raw."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa

from churn import paths
from churn.adapters.files import atomic_path
from churn.adapters.sources import whole
from churn.adopt import code, definitions, tables
from churn.adopt.columns import RawColumn
from churn.adopt.definitions import CONTRACT, FEATURES
from churn.adopt.draft import Draft, draft
from churn.adopt.roles import Ask, Wanted, choose
from churn.domain.reasons import one_line, reason
from churn.errors import ConfigError, ContractError
from churn.settings import Settings, without_password

RESULTS = ("mlflow.db*", "mlruns", "data/online", "data/events", "data/monitoring", "data/serving")
"""What runs on another table left: its versions, stored features, predictions and decisions."""
COSTS = "  # DECIDE: replace the five costs by your own figures, in one currency.\n"
DECIDE = "DECIDE:"


@dataclass(frozen=True)
class Plan:
    """What `churn init` would change: the files to write, the paths to delete."""

    location: str
    whole: whole.Whole
    draft: Draft
    texts: dict[Path, str]
    deleted: tuple[Path, ...]
    table: str

    @property
    def is_local(self) -> bool:
        """False for a database or object storage, from where `churn ingest` reads."""
        return bool(self.whole.files)

    @property
    def is_rewritten(self) -> bool:
        """True if the pipeline cannot read the files as they are."""
        return self.is_local and bool(self.whole.odd or self.draft.repairs)


def plan(location: str, settings: Settings, *, table: str, wanted: Wanted, ask: Ask | None) -> Plan:
    """Read the table and draft its contract; nothing is written.

    Raises:
        SourceError: the table cannot be read.
        ConfigError: the files have uncommitted changes, or an option is missing or does not fit.
    """
    _require_committed((CONTRACT, FEATURES, paths.PARAMS))
    found = whole.read(location, table=table)
    columns = _columns(found)
    roles = choose(columns, wanted, ask)
    drafted = draft(columns, roles, now=datetime.now(UTC))
    if not drafted.proposals:
        raise ConfigError(f"{location}: expected at least one column that can be a feature, got none; {_reasons(drafted)}")
    if roles.timestamp is not None and roles.timestamp.moment and not found.files:
        raise ConfigError(
            f"--timestamp {roles.timestamp.raw}: expected ISO 8601, got the form {roles.timestamp.moment}; convert it in a view"
        )
    texts = _texts(drafted, Path(without_password(location)).name)
    _require_no_mistakes(texts)
    plan = Plan(location, found, drafted, texts, (), table)
    plan = replace(plan, deleted=tuple(_deleted(plan)))
    _require_outside(plan)
    return plan


def _columns(found: whole.Whole) -> list[RawColumn]:
    is_text = found.separator == ";"
    columns = [
        RawColumn(name, found.table[name].combine_chunks(), repairable=bool(found.files), comma=is_text)
        for name in found.table.column_names
    ]
    # Where one column has decimal commas, 1.234 in another is a thousand.
    return [replace(each, points=True) for each in columns] if any(each.repair.comma for each in columns) else columns


def _texts(drafted: Draft, table: str) -> dict[Path, str]:
    """The files as they will be, by their paths."""
    try:
        return {
            CONTRACT: code.contract(CONTRACT.read_text(encoding="utf-8"), drafted, table),
            FEATURES: code.features(FEATURES.read_text(encoding="utf-8"), drafted),
            paths.PARAMS: _params(paths.PARAMS.read_text(encoding="utf-8")),
        }
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: no such file; run from the project's root") from error
    except ValueError as error:
        raise ConfigError(
            f"churn init: expected contract.py and features.py with the code after their tables, got {one_line(error)}; "
            "restore it: git checkout"
        ) from error


def described(plan: Plan) -> Iterator[str]:
    """The plan as lines for the person who confirms it."""
    draft, roles = plan.draft, plan.draft.roles
    yield f"{without_password(plan.location)}: {plan.whole.table.num_rows} rows, {plan.whole.table.num_columns} columns"
    yield f"  entity     {draft.names[roles.entity.raw]} ({roles.entity.raw})"
    when = f"{draft.names[roles.timestamp.raw]} ({roles.timestamp.raw})" if roles.timestamp else "none: one snapshot"
    yield f"  timestamp  {when}"
    rate = roles.churned.mean()
    yield f"  label      {draft.names[roles.label.raw]} ({roles.label.raw}): {roles.yes!r} means churned, {rate:.1%} of the rows"
    yield f"{len(draft.proposals)} features:"
    for feature in draft.proposals:
        null = f", null_as={feature.null_as}" if feature.null_as else ""
        yield f"  {feature.name}: {feature.kind if len(feature.kind) <= 80 else feature.kind[:78] + '…'}{null}"
    if draft.left_out:
        yield f"{len(draft.left_out)} columns left out:"
        yield from (f"  {' '.join(each.column.raw.split())}: {each.reason}" for each in draft.left_out)
    if plan.is_rewritten:
        yield "rewritten for data/raw, since the pipeline reads CSV in UTF-8 with commas, blanks for nulls and ISO 8601:"
        yield from (f"  {each}" for each in plan.whole.odd)
        yield from (f"  {raw}: {repair}" for raw, repair in draft.repairs.items())
    yield f"writes: {', '.join(map(str, [*map(_shown, plan.texts), *map(str, _targets(plan))]))}"
    if plan.deleted:
        yield f"deletes: {', '.join(map(str, plan.deleted))}"


def write(plan: Plan) -> list[str]:
    """Carry the plan out; returns what is left to do, one line each.

    Every file is written beside its place first. Interrupted until then, or without room for them, nothing has changed.

    Raises:
        ConfigError: a file cannot be written or deleted.
    """
    with ExitStack() as after:
        try:
            with ExitStack() as files:
                for path, text in plan.texts.items():
                    files.enter_context(atomic_path(path)).write_text(text, encoding="utf-8")
                _place(plan, files)
                after.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN))
        except OSError as error:
            raise ConfigError(
                f"churn init: {reason(error)}; nothing is deleted: make room, or correct the permissions"
            ) from error
        try:
            for path in plan.deleted:
                _delete(path)
        except OSError as error:
            raise ConfigError(f"churn init: the draft is written, but {reason(error)}; delete it by hand") from error
    lines = [
        f"{_shown(path)}:{number}: {line.strip().removeprefix('# ')}"
        for path, text in plan.texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if DECIDE in line and line.strip().startswith("# ")
    ]
    if not plan.is_local:
        name = "" if plan.table == "customers" else f" and CHURN_SOURCE_TABLE={plan.table}"
        lines.append(f"set CHURN_SOURCE={without_password(plan.location)}{name}, from where `churn repro` reads the rows")
    return [*lines, "next: read the draft, then `churn check`, then `make repro`"]


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place(plan: Plan, files: ExitStack) -> None:
    """Write the rows beside their place in data/raw; `files` puts them there at its end."""
    paths.RAW.mkdir(parents=True, exist_ok=True)
    if not plan.is_local:
        return
    if not plan.is_rewritten:
        for source, target in zip(plan.whole.files, _targets(plan), strict=True):
            if not (target.exists() and target.samefile(source)):
                shutil.copyfile(source, files.enter_context(atomic_path(target)))
        return
    rows = plan.whole.table
    for raw, repair in plan.draft.repairs.items():
        repaired = repair.applied(rows[raw].cast(pa.string()).to_pandas())
        texts = pa.array([None if pd.isna(each) else each for each in repaired], pa.string())
        rows = rows.set_column(rows.column_names.index(raw), raw, texts)
    (target,) = _targets(plan)
    temporary = files.enter_context(atomic_path(target))
    if target.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(rows, temporary)
    else:
        from pyarrow.parquet import write_table

        write_table(rows, temporary)


def _targets(plan: Plan) -> list[Path]:
    """Where the rows will be in data/raw, under names that the pipeline does not skip."""
    files = plan.whole.files
    if not plan.is_rewritten:
        return [paths.RAW / _seen(each.name) for each in files]
    name = _seen(Path(plan.location).stem if len(files) > 1 else files[0].stem)
    kind = ".csv" if all(each.suffix.lower() == ".csv" for each in files) else ".parquet"
    return [paths.RAW / f"{name or 'rows'}{kind}"]


def _seen(name: str) -> str:
    return name.lstrip("._")


def _deleted(plan: Plan) -> Iterator[Path]:
    """Rows in data/raw that are not the table's or that a rewritten file takes the place of, and the results of runs on them."""
    kept = {each.resolve() for each in _targets(plan)} if plan.is_local else set()
    rows = sorted(paths.RAW.glob("*")) if paths.RAW.is_dir() else []
    yield from (each for each in rows if each.suffix.lower() in (".csv", ".parquet") and each.resolve() not in kept)
    for pattern in RESULTS:
        yield from sorted(Path().glob(pattern))


def _require_outside(plan: Plan) -> None:
    """Refuse a table in a folder of results, which are deleted."""
    own = [each.resolve() for each in plan.whole.files]
    if plan.location.startswith("sqlite:"):
        own = [Path(plan.location.partition("///")[2].partition("?")[0]).resolve()]
    for each in plan.deleted:
        if inside := next((path for path in own if path.is_relative_to(each.resolve()) and each.parent != paths.RAW), None):
            raise ConfigError(
                f"{plan.location}: expected a table outside of {each}, which is deleted, got {inside.name}; move it"
            )


def _require_committed(files: Sequence[Path]) -> None:
    """Refuse to write over changes that git could not bring back; without git there is nothing to compare with."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        status = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    if status.returncode == 0 and status.stdout.strip():
        changed = ", ".join(line[3:] for line in status.stdout.splitlines())
        raise ConfigError(
            f"churn init: expected {changed} as committed, got changes; commit them, or undo them: git checkout -- {changed}"
        )


def _require_no_mistakes(texts: dict[Path, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {path: Path(folder) / path.name for path in (CONTRACT, FEATURES)}
        for path, copy in files.items():
            copy.write_text(texts[path], encoding="utf-8")
        mistakes = tables.mistakes(definitions.load(files[CONTRACT], files[FEATURES]))
        if mistakes:
            shown = "; ".join(f"{each.subject}: {each.text}" for each in mistakes)
            raise ContractError(f"churn init: expected a draft without mistakes, got {shown}; write contract.py by hand")


def _reasons(draft: Draft) -> str:
    return "; ".join(f"{each.column.raw}: {each.reason}" for each in draft.left_out[:10])


def _params(shipped: str) -> str:
    return shipped if COSTS in shipped else re.sub(r"^(?=  costs:)", COSTS, shipped, count=1, flags=re.MULTILINE)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
