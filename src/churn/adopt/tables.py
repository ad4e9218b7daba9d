"""Mistakes of contract.py and features.py that show without any row."""

import keyword
import math
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
from pydantic import BaseModel

from churn.adopt.definitions import Definitions, Derived, Mistake, Placed, line_of, sample
from churn.domain import kinds
from churn.domain.kinds import Column, Role, Rule, Slice
from churn.domain.reasons import one_line
from churn.domain.values import MAX_REAL

LOGGED = ("prediction_id", "time", "churn_probability", "churn", "model_version", "latency_ms")
"""The prediction log's own columns."""
OUTCOMES = ("outcome_id", "prediction_id", "observed_at", "received_at", "reporter")
"""Those of the reported outcomes."""
LONGEST = timedelta(days=36525)
"""The longest time to live, and horizon of a label."""
ORIGIN = "row_origin"
"""The column of prepared rows that says where each came from."""

NULL_AS = "expected a finite number for null_as, got {}; write 0 or -1, for example"

Found = Iterator[tuple[int, str, str]]
"""(line, subject, text) of each mistake."""


def mistakes(definitions: Definitions) -> list[Mistake]:
    """Every mistake of both files, in the order of their lines."""
    contract, features = definitions.contract, definitions.features
    found = [*contract.mistakes, *features.mistakes]
    if contract.names.get("COLUMNS") is not None or not contract.mistakes:
        checks = (_times, _columns, _names, _roles, _rules, _slices, _protected)
        found += [_mistake(contract.path, *each) for check in checks for each in check(definitions)]
    found += [_mistake(features.path, *each) for each in _derived(definitions)]
    return sorted(set(found), key=lambda each: (each.file, each.line, each.subject, each.text))


def _mistake(file: Path, line: int, subject: Any, text: str) -> Mistake:
    return Mistake(file, line, " ".join(str(subject).split()), text)


def is_name(name: Any) -> bool:
    """True if a column may have that name: it becomes a request's field, a column of the log and an argument."""
    return not _wrong_name(name)


def _wrong_name(name: Any) -> str:
    """What is wrong with a column's name; empty if nothing is."""
    if not isinstance(name, str):
        return f"expected a name in quotation marks, got {name!r}; write it as text"
    if keyword.iskeyword(name):
        return (
            f"expected a plain name, got Python's keyword {name}; add a word, as in {name}_value, and keep {name} as its source"
        )
    if not name.isidentifier():
        odd = next((each for each in name if not (each.isalnum() or each == "_")), name[:1])
        return f"expected letters, digits and _ in the name, got {odd!r}; rename it, and keep {name!r} as its source"
    if name.startswith("_"):
        return "expected a name that begins with a letter, got _; rename it, and keep the old name as its source"
    if hasattr(BaseModel, name) or name == ORIGIN:
        return f"expected a name that is free, got {name}, which the server or the pipeline uses; add a word, as in {name}_value"
    return ""


def _times(definitions: Definitions) -> Found:
    names, lines = definitions.contract.names, definitions.contract.lines
    for name in ("FEATURE_TTL", "LABEL_HORIZON"):
        value = names.get(name)
        if name not in lines:
            yield 1, name, "expected a timedelta, got nothing; define it, as in LABEL_HORIZON = timedelta(days=30)"
        elif name in names and not (isinstance(value, timedelta) and value > timedelta(0)):
            yield lines[name], name, f"expected a timedelta above 0, got {value!r}; write timedelta(days=30), for example"
        elif isinstance(value, timedelta) and value > LONGEST:
            yield lines[name], name, f"expected at most {LONGEST.days} days, a century, got {value.days} days; correct it"


def _columns(definitions: Definitions) -> Found:
    contract = definitions.contract
    for name, of in (("COLUMNS", Column), ("RULES", Rule), ("SLICES", Slice), ("PROTECTED", str)):
        table, line = contract.names.get(name), contract.lines.get(name, 1)
        if name not in contract.lines:
            yield 1, name, f"expected a tuple of {of.__name__}, got nothing; define it, empty if need be: {name} = ()"
        elif name in contract.names and not isinstance(table, tuple):
            shown = repr(table) if isinstance(table, str | int | float) else type(table).__name__
            yield line, name, f"expected a tuple, got {shown}; put it in brackets with a comma after each entry"
        for each in contract.tables.get(name, ()):
            if not isinstance(each.value, of):
                got = repr(each.value) if isinstance(each.value, str | int | float) else f"a {type(each.value).__name__}"
                yield each.line, name, f"expected {of.__name__} entries, got {got}; correct the entry"
    for each in definitions.columns:
        yield from _column(each)
    if definitions.columns and not any(each.value.role is Role.FEATURE for each in definitions.columns):
        yield contract.lines.get("COLUMNS", 1), "COLUMNS", "expected at least one feature, got none; add a Column"


def _column(placed: Placed) -> Found:
    column: Column = placed.value
    name = str(column.name)
    if text := _wrong_name(column.name):
        yield placed.at("name"), name, text
    logged = {Role.FEATURE: LOGGED, Role.ENTITY: LOGGED + OUTCOMES, Role.LABEL: OUTCOMES}.get(column.role, ())
    if name in logged:
        yield placed.at("name"), name, f"expected a name that the event log does not use, got {name}; add a word: {name}_value"
    if not (isinstance(column.description, str) and column.description.strip()):
        yield placed.at("description"), name, "expected a description, got none; say what the column means and its unit"
    if any(not (isinstance(each, str) and each.strip()) for each in sources_of(column)):
        yield placed.at("source"), name, f"expected the raw file's name of the column, got {column.source!r}; write it as text"
    if not isinstance(column.role, Role):
        yield placed.at("role"), name, f"expected a Role, got {column.role!r}; write Role.FEATURE, or leave it out"
    elif wrong := list(_wrong_kind(column.kind)):
        for text in wrong:
            yield placed.at("kind"), name, text
    else:
        try:
            Column.__post_init__(column)
        except ValueError as error:
            text = one_line(error).removeprefix("contract.py: ").removeprefix(f"{name}: ")
            keyword = next((each for each in ("default", "null_as") if text.startswith(each)), "kind")
            yield placed.at(keyword), name, f"expected fields that fit together, got a misfit: {text}"
    number = column.null_as
    if isinstance(column.kind, kinds.Integer | kinds.Real | kinds.Date) and number is not None and not _is_input(number):
        yield placed.at("null_as"), name, NULL_AS.format(_shortened(number))
    if not (_is_finite(column.mostly) and 0 < column.mostly <= 1):
        yield placed.at("mostly"), name, f"expected a share above 0 and up to 1, got {column.mostly!r}; write 0.99, for example"
    if column.default is not None and not (isinstance(column.default, datetime) and column.default.tzinfo):
        yield (
            placed.at("default"),
            name,
            f"expected a datetime with a time zone, got {column.default!r}; write datetime(2026, 1, 1, tzinfo=UTC)",
        )


def sources_of(column: Column) -> tuple[Any, ...]:
    """The raw file's names of the column: several for an entity of several parts."""
    return column.source if isinstance(column.source, tuple) else (column.source,)


def _wrong_kind(kind: Any) -> Iterator[str]:
    """What is wrong within a kind."""
    if isinstance(kind, type):
        yield f"expected a kind, got its class; write {kind.__name__}() with brackets"
    elif not isinstance(kind, kinds.Kind):
        yield f"expected a kind, got {kind!r}; write one of Integer, Real, Category, Flag, Date, Grouped, Text, Timestamp"
    match kind:
        case kinds.Integer(low, high) | kinds.Real(low, high):
            whole = isinstance(kind, kinds.Integer)
            for bound in (low, high):
                if bound is not None and (not _is_finite(bound) or (whole and bound != int(bound))):
                    got = _shortened(bound)
                    yield f"expected bounds that are {'whole ' if whole else ''}numbers, got {got}; correct it, or write None"
            if _is_finite(low) and _is_finite(high) and low > high:
                yield f"expected the lower bound first, got {low!r} above {high!r}; exchange them"
        case kinds.Category(values):
            yield from _wrong_categories(values)
        case kinds.Flag(yes, no):
            if not all(isinstance(each, str) and each.strip() for each in (yes, no)):
                yield f"expected two texts, got {yes!r} and {no!r}; write them as the raw file spells them: Flag('1', '0')"
            elif yes == no:
                yield f"expected two different texts, got {yes!r} twice; name what stands for true and what for false"


def _wrong_categories(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield f"expected several texts, got the one text {values!r}; write Category(({values!r}, …)) with two pairs of brackets"
        return
    if not isinstance(values, tuple) or not values:
        yield f"expected at least one text, got {values!r}; list every text that may occur: Category(('a', 'b'))"
        return
    for value in dict.fromkeys(map(repr, values)):
        if list(map(repr, values)).count(value) > 1:
            yield f"expected each category once, got {value} twice; remove one"
    for value in values:
        if not isinstance(value, str):
            yield f"expected categories that are texts, got {value!r}; write {str(value)!r}, as the raw file spells it"
        elif not value.strip():
            yield f"expected categories with letters or digits, got {value!r}, which means null; remove it, or give it a text"


def _names(definitions: Definitions) -> Found:
    """Names and sources that occur twice."""
    used: dict[str, str] = {}
    sources: dict[str, str] = {}
    for each in definitions.columns:
        name = str(each.value.name)
        if name in used:
            yield each.at("name"), name, f"expected each name once, got {name} twice; rename one"
        for source in sources_of(each.value):
            if name not in used and str(source) in sources:
                yield (
                    each.at("source"),
                    name,
                    f"expected a source of its own, got {source!r}, which is {sources[str(source)]}'s; correct one of them",
                )
            sources.setdefault(str(source), name)
        used[name] = name
    for each in definitions.columns:
        owner = sources.get(str(each.value.name))
        if owner is not None and owner != each.value.name:
            yield (
                each.at("name"),
                str(each.value.name),
                f"expected a name that is no other column's source, got that of {owner}; rename one: a file may use either",
            )


def _roles(definitions: Definitions) -> Found:
    line = definitions.contract.lines.get("COLUMNS", 1)
    if not definitions.columns:
        return
    for role in (Role.ENTITY, Role.TIMESTAMP, Role.LABEL):
        having = [each for each in definitions.columns if each.value.role is role]
        if not having:
            yield line, "COLUMNS", f"expected one column with the role {role}, got none; give one role=Role.{role.name}"
        for each in having[1:]:
            first = having[0].value.name
            yield each.at("role"), str(each.value.name), f"expected one {role}, got {first} too; remove one role"


def _rules(definitions: Definitions) -> Found:
    drawn = sample([each.value for each in definitions.columns])
    seen: set[str] = set()
    for each in definitions.contract.tables.get("RULES", ()):
        rule = each.value
        if not isinstance(rule, Rule):
            continue
        if rule.name in drawn or rule.name in seen:
            yield each.line, rule.name, "expected a name of its own, got that of a column or another rule; rename the rule"
        seen.add(rule.name)
        if not (_is_finite(rule.mostly) and 0 < rule.mostly <= 1):
            yield each.line, rule.name, f"expected a share above 0 and up to 1, got {rule.mostly!r}; write 1.0, for example"
        if not (isinstance(rule.description, str) and rule.description.strip()) or rule.description == "None":
            yield each.line, rule.name, "expected a sentence of what holds, got none; give the function a docstring"
        line, text, result = _called(rule.holds, drawn, each.line, definitions.contract.path)
        if text:
            yield line, rule.name, text
        elif (found := array(result)).dtype != bool or found.shape != (_rows(drawn),):
            yield each.line, rule.name, f"expected one true or false per row, got {_shape(result)}; compare whole columns"
        elif text := _of_other_rows(rule.holds, drawn, found):
            yield each.line, rule.name, text


def _slices(definitions: Definitions) -> Found:
    seen: set[str] = set()
    for each in definitions.contract.tables.get("SLICES", ()):
        chosen = each.value
        if not isinstance(chosen, Slice):
            continue
        if text := _not_a_feature(definitions, chosen.column):
            yield each.line, chosen.column, text
            continue
        if chosen.column in seen:
            yield each.line, chosen.column, "expected each column once in SLICES, got it twice; remove one"
        seen.add(chosen.column)
        edges = chosen.edges
        column = definitions.column(chosen.column)
        is_number = column and isinstance(column.value.kind, kinds.Integer | kinds.Real | kinds.Date)
        if edges and not is_number:
            yield each.line, chosen.column, "expected edges on a number, got a column of texts or flags; remove the edges"
        elif not isinstance(edges, tuple) or not all(map(_is_finite, edges)):
            yield each.line, chosen.column, f"expected a tuple of numbers, got {edges!r}; write edges=(7, 25)"
        elif any(right <= left for left, right in pairwise(edges)):
            yield each.line, chosen.column, f"expected edges that increase, got {edges!r}; sort them, each once"


def _protected(definitions: Definitions) -> Found:
    names = [each for each in definitions.contract.tables.get("PROTECTED", ()) if isinstance(each.value, str)]
    for index, each in enumerate(names):
        if text := _not_a_feature(definitions, each.value):
            yield each.line, each.value, text
        elif each.value in [other.value for other in names[:index]]:
            yield each.line, each.value, "expected each column once in PROTECTED, got it twice; remove one"


def _not_a_feature(definitions: Definitions, name: Any) -> str:
    column = definitions.column(name)
    if column is None:
        return f"expected a feature of COLUMNS, got {name!r}, which is none{_near(name, definitions)}"
    if column.value.role is not Role.FEATURE:
        return f"expected a feature of COLUMNS, got the {column.value.role}; remove it here"
    return ""


def _derived(definitions: Definitions) -> Found:
    columns = [each.value for each in definitions.columns]
    drawn = sample(columns)
    seen: dict[str, Derived] = {}
    for each in definitions.derived:
        if each.name in drawn:
            yield each.line, each.name, "expected a name of its own, got that of a column of contract.py; rename the function"
        if each.name in seen:
            yield each.line, each.name, f"expected each name once, got it in line {seen[each.name].line} too; rename one"
        seen[each.name] = each
        if (text := _wrong_name(each.name)) or each.name in LOGGED:
            yield (
                each.line,
                each.name,
                text or f"expected a name that the log does not use, got {each.name}; add a word: {each.name}_value",
            )
        if not (each.function.__doc__ or "").strip():
            yield each.line, each.name, "expected a docstring, got none; say in one sentence what the feature means"
        for text in _wrong_kind(each.kind):
            yield each.line, each.name, text
        if isinstance(each.null_as, int | float) and not _is_input(each.null_as):
            yield each.line, each.name, NULL_AS.format(_shortened(each.null_as))
        if definitions.contract.mistakes and not columns:
            continue
        line, text, result = _called(each.function, drawn, each.line, definitions.features.path)
        if text:
            yield line, each.name, text
        elif (found := array(result)).shape != (_rows(drawn),):
            yield each.line, each.name, wrong_length(result, _rows(drawn))
        elif text := _of_other_rows(each.function, drawn, found):
            yield each.line, each.name, text


def wrong_length(result: Any, rows: int) -> str:
    """The message about a derived feature that does not give one value per row."""
    return f"expected one value per row, {rows} here, got {_shape(result)}; compute on whole columns, without a mean or a filter"


def array(result: Any) -> Any:
    """What a rule or a derived feature gives, as an array."""
    try:
        return np.asarray(result)
    except ValueError:  # lists of several lengths
        return np.array(0)


def _of_other_rows(function: Callable[..., Any], drawn: dict[str, Any], result: Any) -> str:
    """The message about a function whose (n,) result for a row depends on the other rows: a request has one row."""
    for row, expected in enumerate(result.tolist()):
        try:
            with np.errstate(all="ignore"):
                alone = array(function(MappingProxyType({name: values[row : row + 1] for name, values in drawn.items()})))
        except Exception as error:  # noqa: BLE001 - the project's own code: whatever it raises is its mistake
            return failure(error)
        if alone.shape != (1,) or not _is_same(alone.tolist()[0], expected):
            return (
                "expected each row's value from that row alone, got another where the other rows are absent, as in a request; "
                "use no mean, rank, order or chance"
            )
    return ""


def _is_same(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        # Vectors and single values may differ in the last digits.
        return math.isclose(value, expected, rel_tol=1e-6) or (math.isnan(value) and math.isnan(expected))
    return bool(value == expected)


def _called(function: Callable[..., Any], drawn: dict[str, Any], line: int, file: Any) -> tuple[int, str, Any]:
    """(line, what went wrong, result) of the function on drawn rows, which it may not change; no text if nothing did."""
    try:
        with np.errstate(all="ignore"):
            return line, "", function(MappingProxyType(drawn))
    except KeyError as error:
        name = error.args[0] if error.args else ""
        near = get_close_matches(str(name), drawn, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; add it to COLUMNS, or correct the name"
        return line_of(error, file) or line, f"expected a column of the contract, got {name!r}{hint}", None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the project's own code: whatever it raises is its mistake
        return line_of(error, file) or line, failure(error), None


def failure(error: BaseException) -> str:
    """The message about a rule or derived feature that raises."""
    text = one_line(error)[:120]
    changes = "read-only" in text or "mappingproxy" in text
    advice = "copy a column before you change it" if changes else "use NumPy arithmetic and comparisons on whole columns"
    return f"expected one value per row, got {type(error).__name__}: {text}; {advice}"


def _near(name: Any, definitions: Definitions) -> str:
    features = [str(each.value.name) for each in definitions.columns if each.value.role is Role.FEATURE]
    near = get_close_matches(str(name), features, n=1)
    return f"; did you mean {near[0]}?" if near else "; correct the name, or remove it"


def _shape(result: Any) -> str:
    values = array(result)
    if values.ndim:
        return f"{values.size} values of type {values.dtype}"
    return "lists of several lengths" if isinstance(result, list | tuple) else f"the single value {_shortened(values.item())}"


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return f"a number of more than {sys.get_int_max_str_digits()} digits"
    return text if len(text) <= 60 else f"{text[:58]}…"


def _rows(drawn: dict[str, Any]) -> int:
    return len(next(iter(drawn.values()), ()))


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_input(value: Any) -> bool:
    """True for a number that the model's input, a float32, can hold."""
    return _is_finite(value) and abs(value) <= MAX_REAL
