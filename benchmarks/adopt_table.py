"""The table of `make bench-adopt`."""

from typing import Any

HEAD = (
    "table",
    "rows",
    "what is different",
    "answers to `churn init`",
    "test ROC-AUC",
    "promoted",
    "predicts",
    "loop closed",
    "lint, test",
    "seconds",
)


def markdown(found: list[dict[str, Any]]) -> str:
    """A row per table."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---:|---|---|---:|---|---|---|---|---|"]
    for each in found:
        tested = [each["made"][name] for name in ("lint", "test") if name in each["made"]]
        cells = (
            each["table"],
            f"{each['rows']:,}",
            each["shape"],
            f"`{each['options']}`" if each["options"] else "none",
            f"{each['roc_auc']:.3f}",
            _said(each["promoted"]),
            _said(each["predicted"]),
            _said(each["made"].get("demo")),
            _said(all(tested) if tested else None),
            ", ".join(f"{name} {value}" for name, value in each["seconds"].items()),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(value: bool | None) -> str:
    return "not run" if value is None else "yes" if value else "**no**"
