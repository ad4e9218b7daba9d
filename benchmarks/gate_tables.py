"""The tables of the gate's benchmark, in Markdown."""

from collections.abc import Callable
from typing import Any

from bench_pipeline import table

Row = dict[str, Any]


def how_text(how: Row) -> str:
    """How it was measured."""
    return f"{how['tables']} tables, {how['draws']} test sets of each size for each; {how['cpu_s']:,} s of processor time."


def refused_table(rows: list[Row]) -> str:
    """What becomes of a good model and of each fault, without a champion, by test rows."""
    head = ("candidate", "test rows", "fixed bounds refuse", "the gate refuses", "too few to decide")
    return table(
        head, [(row["case"], f"{row['rows']:,}", *(_share(row[key]) for key in ("old", "new", "too_few"))) for row in rows]
    )


def rules_table(rows: list[Row]) -> str:
    """Which checks refuse the good model."""
    head = ("check", "test rows", "refuses the good model")
    return table(head, [(row["check"], f"{row['rows']:,}", _share(row["share"])) for row in rows])


def tables_table(rows: list[Row]) -> str:
    """The tables, and how often the good model of each is refused."""
    head = ("table", "rows", "inputs", "churn rate", "ROC-AUC", "recipe", "fixed bounds refuse", "the gate refuses", "too few")
    return table(
        head,
        [
            (
                *(row["table"], f"{row['rows']:,}", str(row["inputs"]), f"{row['churn_rate']:.1%}", f"{row['roc_auc']:.3f}"),
                *(row["recipe"], *(_share(row[key]) for key in ("old", "new", "too_few"))),
            )
            for row in rows
        ],
    )


def champion_table(rows: list[Row]) -> str:
    """What becomes of a candidate beside a champion that is its equal."""
    head = (
        "candidate beside an equal champion",
        "fixed: all rows",
        "fixed: slices",
        "the gate: all rows",
        "the gate: slices",
        "slices checked, of 5",
    )
    keys = ("old_whole", "old_slices", "new_whole", "new_slices")
    return table(head, [(row["case"], *(_share(row[key]) for key in keys), f"{row['slices']:.1f}") for row in rows])


def leaks_table(rows: list[Row]) -> str:
    """In how many tables a column is called a leak."""
    head = ("column added", "ROC-AUC above 0.88", "the gate's two rules")
    return table(head, [(row["leak"], *(f"{row[key]} of {row['tables']}" for key in ("old", "new"))) for row in rows])


def _share(value: float) -> str:
    return f"{value:.0%}"


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "refused": refused_table,
    "champion": champion_table,
    "leaks": leaks_table,
    "rules": rules_table,
    "tables": tables_table,
}
