"""contract.py and features.py run a statement at a time, so that one mistake does not hide the others."""

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np

import churn
from churn.domain import kinds
from churn.domain.kinds import Column
from churn.domain.reasons import one_line

CONTRACT = Path(churn.__file__).with_name("contract.py")
FEATURES = Path(churn.__file__).with_name("features.py")
TABLES = ("FEATURE_TTL", "LABEL_HORIZON", "COLUMNS", "RULES", "SLICES", "PROTECTED")
"""What every contract.py defines."""
AFTER_THE_TABLES = "of_role"
"""The first function of the code that stays when the tables are replaced."""


@dataclass(frozen=True)
class Mistake:
    """One mistake and its place: `line` counts from 1; 0 where no line of a file is wrong."""

    file: Path
    line: int
    subject: str
    text: str

    def __str__(self) -> str:
        file = self.file.resolve()
        shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else self.file
        return f"{shown}{f':{self.line}' if self.line else ''}: {self.subject + ': ' if self.subject else ''}{self.text}"


class UncheckedColumn(Column):
    """A column that may be wrong: `Column` refuses at the first mistake."""

    def __post_init__(self) -> None:
        """Check nothing; `source` is the name where it was left out, as of a `Column`."""
        object.__setattr__(self, "source", self.source or self.name)


@dataclass(frozen=True)
class Placed:
    """A value of a table, the line where it begins, and the line of each of its keywords."""

    value: Any
    line: int
    keywords: Mapping[str, int] = field(default_factory=dict)

    def at(self, keyword: str) -> int:
        """The line of the keyword; the first line of the value where it has none."""
        return self.keywords.get(keyword, self.line)


@dataclass(frozen=True)
class Derived:
    """A function that `@feature` registers."""

    name: str
    kind: Any
    null_as: Any
    function: Any
    line: int


class File:
    """A Python file, run statement by statement: `names` is what it defined, `mistakes` the statements that failed.

    `tables` holds the elements of each tuple of the contract's tables, `lines` the line of each top-level name, `functions`
    the line of each `def` by that of its first decorator.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
        self.tables: dict[str, list[Placed]] = {}
        self.lines: dict[str, int] = {}
        self.functions: dict[int, int] = {}
        self.mistakes: list[Mistake] = []
        self._calls: dict[str, ast.Call] = {}

    def parse(self) -> list[ast.stmt]:
        """The file's statements; none where it cannot be parsed, which is a mistake."""
        try:
            tree = ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))
        except SyntaxError as error:
            self.add(error.lineno or 1, "", f"expected Python, got a syntax error: {error.msg}; correct the line")
            return []
        except (OSError, ValueError) as error:
            self.add(1, "", f"expected a Python file in UTF-8, got {one_line(error)}; restore it: git checkout {self.path}")
            return []
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (name := _keyword(node, "name")) is not None:
                self._calls.setdefault(name, node)
            if isinstance(node, ast.FunctionDef):
                self.functions[min([node.lineno, *(each.lineno for each in node.decorator_list)])] = node.lineno
        return tree.body

    def add(self, line: int, subject: str, text: str) -> None:
        """Record a mistake."""
        self.mistakes.append(Mistake(self.path, line, subject, text))

    def run(self, statement: ast.stmt) -> None:
        """Run a statement; the elements of a table one by one."""
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            self.lines[statement.name] = statement.lineno
        name, value = _assigned(statement)
        if name:
            self.lines[name] = statement.lineno
        if name in TABLES and isinstance(value, ast.Tuple):
            self.tables[name] = [placed for element in value.elts for placed in self._element(element)]
            self.names[name] = tuple(each.value for each in self.tables[name])
            return
        self._guarded(ast.Module([statement], []), "exec", statement)
        if self.names.get("Column") is Column:
            self.names["Column"] = UncheckedColumn
        if name in TABLES and isinstance(found := self.names.get(name), tuple):
            self.tables[name] = [self._placed(each, statement.lineno) for each in found]

    def _element(self, element: ast.expr) -> list[Placed]:
        whole = ast.Expression(ast.Tuple([element], ast.Load()))
        ast.copy_location(whole.body, element)
        values: tuple[Any, ...] = self._guarded(ast.fix_missing_locations(whole), "eval", element) or ()
        if isinstance(element, ast.Call) and len(values) == 1:
            return [Placed(values[0], element.lineno, _keyword_lines(element))]
        return [self._placed(each, element.lineno) for each in values]

    def _placed(self, value: Any, line: int) -> Placed:
        """A value whose own code is somewhere else in the file: a column by its name, a rule by its function."""
        call = self._calls.get(str(getattr(value, "name", None)))
        if call is not None:
            return Placed(value, call.lineno, _keyword_lines(call))
        code = getattr(getattr(value, "holds", None), "__code__", None)
        if code is not None and code.co_filename == str(self.path):
            line = code.co_firstlineno
        return Placed(value, line)

    def _guarded(self, tree: Any, mode: str, node: ast.stmt | ast.expr) -> Any:
        """What the code gives; None where it fails, which is a mistake."""
        try:
            # Its own code, which every other command runs too.
            code = compile(tree, str(self.path), mode)
            return eval(code, self.names)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the file's code raises is a mistake of the file
            self.add(line_of(error, self.path) or node.lineno, _subject(node), _failure(error))
            return None


@dataclass(frozen=True)
class Definitions:
    """Both files, as far as they run."""

    contract: File
    features: File
    derived: tuple[Derived, ...]

    @property
    def columns(self) -> list[Placed]:
        """The entries of COLUMNS that are columns."""
        return [each for each in self.contract.tables.get("COLUMNS", []) if isinstance(each.value, Column)]

    def column(self, name: str) -> Placed | None:
        """The first column of that name."""
        return next((each for each in self.columns if each.value.name == name), None)


def load(contract: Path = CONTRACT, features: Path = FEATURES) -> Definitions:
    """Run both files without importing them."""
    tables = File(contract)
    statements = tables.parse()
    ends = [each.name if isinstance(each, ast.FunctionDef) else "" for each in statements]
    end = ends.index(AFTER_THE_TABLES) if AFTER_THE_TABLES in ends else len(statements)
    for statement in statements[:end]:
        tables.run(statement)
    found = list(tables.mistakes)
    for statement in statements[end:]:
        tables.run(statement)  # it repeats, in its own words, what is checked here
    tables.mistakes[:] = found
    for name in _stored(statements[end:]):
        tables.names.setdefault(name, None)  # so that features.py can import it whatever failed above
    functions = File(features)
    if not statements:  # nothing is known about the contract: features.py would fail for that alone
        functions.parse()
        return Definitions(tables, functions, ())
    with _as_module("churn.contract", tables.names):
        derived = _run_features(functions)
    return Definitions(tables, functions, derived)


def _stored(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The names that the statements define."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef):
            yield statement.name
        else:
            yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))


def _run_features(file: File) -> tuple[Derived, ...]:
    derived: list[Derived] = []

    def feature(kind: Any, *, null_as: Any = None) -> Any:
        if not isinstance(kind, kinds.Kind):
            raise TypeError("@feature needs a kind: write @feature(Real(ge=0))")
        kinds.check_null_as("@feature", kind, null_as)

        def register(function: Any) -> Any:
            line = file.functions.get(function.__code__.co_firstlineno, 1)
            derived.append(Derived(function.__name__, kind, null_as, function, line))
            return function

        return register

    statements = file.parse()
    ends = [index for index, each in enumerate(statements) if _assigned(each)[0] == "FEATURES"]
    for statement in statements[: ends[0] if ends else None]:
        file.run(statement)
        if "feature" in file.names:
            file.names["feature"] = feature
    if not ends and not file.mistakes:
        file.add(1, "FEATURES", f"expected the inputs of the model, got nothing; restore the line: git checkout {file.path.name}")
    for late in statements[ends[0] + 1 :] if ends else ():
        if isinstance(late, ast.FunctionDef) and late.decorator_list:
            file.add(late.lineno, late.name, "expected features above FEATURES, got one below, which no model has; move it up")
    return tuple(derived)


@contextmanager
def _as_module(name: str, names: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, `import name` gives a module of these names."""
    module = ModuleType(name)
    vars(module).update(names)
    before = {key: value for key, value in sys.modules.items() if key.partition(".")[0] == "churn"}
    sys.modules[name] = module
    try:
        yield
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == "churn" and key not in before]:
            del sys.modules[key]
        if name in before:
            sys.modules[name] = before[name]


def line_of(error: BaseException, path: Path) -> int | None:
    """The innermost line of the file that the error passed."""
    found, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _failure(error: BaseException) -> str:
    text = re.sub(r" \(/[^)]*\)", "", one_line(error).removeprefix("contract.py: "))
    fields = ", ".join(each.name for each in dataclasses.fields(Column))
    match error:
        case TypeError() if "Column.__init__" in text:
            advice = f"the fields of a Column are {fields}"
        case NameError() | ImportError():
            advice = "correct the name, or import it from where it is"
        case _:
            advice = "correct the line"
    return f"expected code that runs, got {type(error).__name__}: {text}; {advice}"


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    """The name that an assignment defines, and its value; "" for every other statement."""
    match statement:
        case ast.AnnAssign(target=ast.Name(name), value=value):
            return name, value
        case ast.Assign(targets=[ast.Name(name)], value=value):
            return name, value
        case ast.AugAssign(target=ast.Name(name)):
            return name, None  # of what it defines, the value is only a part
    return "", None


def _subject(node: ast.stmt | ast.expr) -> str:
    """The column or name that the code is about."""
    if isinstance(node, ast.Call):
        return _keyword(node, "name") or next((str(each.value) for each in node.args if isinstance(each, ast.Constant)), "")
    if isinstance(node, ast.FunctionDef):
        return node.name
    return _assigned(node)[0] if isinstance(node, ast.stmt) else ""


def _keyword(call: ast.Call, name: str) -> str | None:
    values = (each.value for each in call.keywords if each.arg == name)
    return next((str(each.value) for each in values if isinstance(each, ast.Constant)), None)


def _keyword_lines(call: ast.Call) -> dict[str, int]:
    return {each.arg: each.lineno for each in call.keywords if each.arg}


def sample(columns: list[Column], rows: int = 16) -> dict[str, Any]:
    """Rows drawn within the columns' kinds: name → (rows,) array, for calling rules and derived features; none can be changed."""
    rng = np.random.default_rng(0)
    drawn = {str(each.name): _drawn(each.kind, rows, rng) for each in columns}
    nullable_flags = [str(each.name) for each in columns if isinstance(each.kind, kinds.Flag) and each.nullable]
    drawn |= {name: drawn[name].astype(np.float64) for name in nullable_flags}
    for values in drawn.values():
        values.flags.writeable = False
    return drawn


def _drawn(kind: Any, rows: int, rng: np.random.Generator) -> Any:
    match kind:
        case kinds.Integer() | kinds.Real():
            low, high = (float(each) if _is_number(each) else None for each in (kind.ge, kind.le))
            low = 0.0 if low is None else low
            high = low + 100 if high is None or high < low else high
            numbers = rng.uniform(low, high, rows)
            return numbers.astype(np.int64) if isinstance(kind, kinds.Integer) else numbers
        case kinds.Date():
            return rng.integers(0, 1000, rows).astype(np.float64)
        case kinds.Category():
            values = [*kind.values] if isinstance(kind.values, tuple | list) else []
            return rng.choice(np.array(values or [""], dtype=object), rows)
        case kinds.Flag():
            return rng.random(rows) < 0.5
        case kinds.Timestamp():
            return np.full(rows, np.datetime64("2026-01-01", "us"))
        case _:
            return np.array([f"{index}" for index in range(rows)], dtype=object)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
