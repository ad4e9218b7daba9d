"""The draft as Python: the tables of contract.py, features.py without derived features."""

import ast
from collections.abc import Sequence
from datetime import timedelta

from churn.adopt.columns import RawColumn
from churn.adopt.draft import Draft, LeftOut, Proposal, described, text

WIDTH = 130
"""The length of a line, as pyproject.toml has it."""
FIRST_TABLE, AFTER_THE_TABLES = "FEATURE_TTL", "def of_role("


def contract(shipped: str, draft: Draft, table: str) -> str:
    """contract.py with the draft's tables in place of its own; the code after them and the imports that it needs stay."""
    after = shipped[shipped.index(AFTER_THE_TABLES) :]
    tables = "\n".join([*_times(draft), *_columns(draft), *_groups(draft)])
    plain = "".join(each if each.isprintable() and each not in '"\\' else "_" for each in table)
    docstring = _docstring(shipped, f"The tables were drafted by `churn init` from {plain}. Lines with DECIDE need a person.")
    code = f"{tables}\n\n\n{after}"
    return f"{docstring}\n\n{_imports(shipped, code)}\n\n{_exports(shipped)}{code}"


def features(shipped: str, draft: Draft) -> str:
    """features.py without derived features, and with an example on the draft's columns as a comment."""
    after = shipped[shipped.index("FEATURES: ") :]
    docstring = _docstring(shipped, "")
    return f"{docstring}\n\n{_imports(shipped, after)}\n\n{_example(draft)}\n\n{after}"


def _docstring(shipped: str, last: str) -> str:
    """The module's docstring; `last` takes the place of the paragraph about the shipped table."""
    statement = ast.parse(shipped).body[0]
    lines = "\n".join(shipped.splitlines()[: statement.end_lineno])
    if not last:
        return lines
    paragraphs = lines.removesuffix('"""').rstrip("\n").split("\n\n")
    kept = [each for each in paragraphs if "shipped table" not in each and "drafted by" not in each]
    return "\n\n".join([*kept, *_wrapped(last, "")]) + '\n"""'


def _imports(shipped: str, code: str) -> str:
    """The module's imports without the names that the code does not use."""
    tree = ast.parse(shipped)
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} | _exported(tree)
    blocks: dict[bool, list[str]] = {False: [], True: []}
    for node in tree.body:
        if isinstance(node, ast.Import):
            if any((each.asname or each.name) in used for each in node.names):
                blocks[False].append(str(ast.get_source_segment(shipped, node)))
        elif isinstance(node, ast.ImportFrom):
            kept = [each for each in node.names if (each.asname or each.name) in used]
            segment = str(ast.get_source_segment(shipped, node))
            one_line = f"from {node.module} import {', '.join(each.name for each in kept)}"
            if kept:
                whole = len(kept) == len(node.names)
                blocks[str(node.module).startswith("churn")].append(segment if whole else _import_line(one_line))
    return "\n\n".join("\n".join(block) for block in blocks.values() if block)


def _import_line(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    module, _, names = line.partition(" import ")
    listed = "".join(f"    {name},\n" for name in names.split(", "))
    return f"{module} import (\n{listed})"


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _exports(shipped: str) -> str:
    start = shipped.find("__all__ = [")
    return shipped[start : shipped.index("]\n", start) + 2] + "\n" if start >= 0 else ""


def _times(draft: Draft) -> list[str]:
    question = "how old may a stored feature be and still be served? Two refresh intervals of the source are a good value."
    if draft.outdated:
        question += f" The newest row is of {draft.outdated:%Y-%m-%d}: /predict/by-id answers 404 until newer rows come."
    lines = _decide(question)
    lines += [f"FEATURE_TTL = {_timedelta(draft.ttl)}", '"""How old a stored feature may be and still be served as fresh."""', ""]
    lines += _decide(f"within which time after the row does {draft.roles.label.raw} say that a customer churned?")
    lines += [f"LABEL_HORIZON = {_timedelta(draft.horizon)}"]
    lines += ['"""The label is what happened within this time after the row. Before it is over, the label is not known."""', ""]
    if draft.snapshot:
        when = draft.snapshot
        lines += _decide("when were these rows true? The table has no timestamp: every row gets this one.")
        lines += [f"SNAPSHOT = datetime({when.year}, {when.month}, {when.day}, tzinfo=UTC)", '"""When the rows were true."""', ""]
    return lines


def _timedelta(value: timedelta) -> str:
    return f"timedelta(days={value.days})" if value.days else f"timedelta(hours={value.seconds // 3600})"


def _columns(draft: Draft) -> list[str]:
    roles = draft.roles
    lines = ["# DECIDE: the descriptions are the raw names; say what each column means, and its unit."]
    lines += ["COLUMNS: tuple[Column, ...] = ("]
    lines += _column(draft, roles.entity, "Text()", "ENTITY")
    if roles.timestamp is not None:
        if roles.timestamp.is_ambiguous:
            lines += _decide("day and month of this column could be exchanged.", "    ")
        lines += _column(draft, roles.timestamp, "Timestamp()", "TIMESTAMP")
    else:
        arguments = [f"name={text(draft.timestamp_name)}", "kind=Timestamp()", "role=Role.TIMESTAMP"]
        lines += _call("Column", [*arguments, "default=SNAPSHOT", 'description="When the row was true"'])
    for each in draft.features:
        lines += _left_out(each) if isinstance(each, LeftOut) else _feature(each)
    flag = "Flag()" if (roles.yes, roles.no) == ("Yes", "No") else f"Flag({text(roles.yes)}, {text(roles.no)})"
    lines += _column(draft, roles.label, flag, "LABEL")
    return [*lines, ")", ""]


def _column(draft: Draft, column: RawColumn, kind: str, role: str) -> list[str]:
    name = draft.names[column.raw]
    source = [f"source={_tuple([text(each.raw) for each in column.parts])}"] if column.parts else _source(name, column.raw)
    arguments = [f"name={text(name)}", f"kind={kind}", f"role=Role.{role}", *source]
    return _call("Column", [*arguments, f"description={text(described(column))}"])


def _feature(proposal: Proposal) -> list[str]:
    lines = [line for question in proposal.decide for line in _decide(f"{proposal.name}: {question}", "    ")]
    arguments = [f"name={text(proposal.name)}", f"kind={proposal.kind}", *_source(proposal.name, proposal.column.raw)]
    arguments += [f"null_as={proposal.null_as}"] if proposal.null_as else []
    return lines + _call("Column", [*arguments, f"description={text(described(proposal.column))}"])


def _source(name: str, raw: str) -> list[str]:
    return [] if name == raw else [f"source={text(raw)}"]


def _left_out(left: LeftOut) -> list[str]:
    name = " ".join(left.column.raw.split())
    sentence = f"{'DECIDE: ' if left.decide else ''}left out {name}: {left.reason}."
    return _wrapped(sentence, "    # ")


def _groups(draft: Draft) -> list[str]:
    lines = _decide("what must hold between columns of a row? docs/contract.md says how to write a rule.")
    lines += ["RULES: tuple[Rule, ...] = ()", ""]
    lines += _decide("on which groups may a model not be worse than the champion? Those that the business acts on.")
    slices = [
        f"Slice({text(name)}{f', edges={_tuple([str(each) for each in edges])}' if edges else ''})"
        for name, edges in draft.slices
    ]
    lines += _assignment("SLICES: tuple[Slice, ...]", slices)
    lines += ['"""Groups on which a candidate may not be worse than the champion by more than the gate allows."""', ""]
    lines += _decide("which columns do law and customers protect?")
    lines += _assignment("PROTECTED: tuple[str, ...]", [text(each) for each in draft.protected])
    return [*lines, '"""Columns by which the fairness table compares how often, and how rightly, customers are flagged."""']


def _tuple(parts: Sequence[str]) -> str:
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _assignment(target: str, parts: Sequence[str]) -> list[str]:
    line = f"{target} = {_tuple(parts)}"
    return [line] if len(line) <= WIDTH else [f"{target} = (", *(f"    {each}," for each in parts), ")"]


def _call(function: str, arguments: Sequence[str]) -> list[str]:
    """A call as an entry of a tuple, in one line or with each argument on a line of its own."""
    line = f"    {function}({', '.join(arguments)}),"
    if len(line) <= WIDTH:
        return [line]
    return [f"    {function}(", *(part for each in arguments for part in _argument(each)), "    ),"]


def _argument(argument: str) -> list[str]:
    line = f"        {argument},"
    if len(line) <= WIDTH or not argument.startswith("kind=Category(("):
        return [line]
    inner = argument.removeprefix("kind=Category(").removesuffix(")")
    if len(inner) + 12 <= WIDTH:
        return ["        kind=Category(", f"            {inner}", "        ),"]
    values = [text(each) for each in ast.literal_eval(inner)]
    rows = [f"                {each}," for each in values]
    return ["        kind=Category(", "            (", *rows, "            )", "        ),"]


def _decide(sentence: str, indent: str = "") -> list[str]:
    return _wrapped(f"DECIDE: {sentence}", f"{indent}# ")


def _wrapped(sentence: str, prefix: str) -> list[str]:
    from textwrap import wrap

    return wrap(sentence, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)


def _example(draft: Draft) -> str:
    """A derived feature on two numbers of the table, or on one column."""
    numbers = [each for each in draft.proposals if each.kind.startswith(("Integer", "Real"))]
    if len(numbers) >= 2:
        first, second = numbers[0].name, numbers[1].name
        name, about = f"{first}_per_{second}", f"{first} per {second}; {first} itself where {second} is below 1"
        body = f'return c["{first}"] / np.maximum(c["{second}"], 1)'
    elif draft.proposals:
        name, about = "example", "Always 0: replace it"
        body = f'return np.zeros(len(c["{draft.proposals[0].name}"]))'
    else:
        return "# No derived features: the contract has no column to derive one from."
    nullable = any(each.null_as for each in numbers[:2])
    return f'''# No derived features yet. One function is one column, as in:
#
# import numpy as np
#
# from churn.contract import Array, Columns, Real
# from churn.domain.derived import feature
#
#
# @feature(Real(){", null_as=0" if nullable else ""})
# def {name}(c: Columns) -> Array:
#     """{about}"""
#     {body}'''
