"""What the registry holds, as text for a terminal."""

import json

from churn.domain.version import Version

FIGURES = ("test.roc_auc", "test.log_loss", "test.ece")


def table_of_versions(versions: list[Version]) -> str:
    """One line per version, newest first."""
    if not versions:
        return "no versions yet; run `make repro`"
    header = ("version", "aliases", *FIGURES, "gate", "made (UTC)", "promoted (UTC)")
    lines = [header, *(_line(each) for each in versions)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _line(version: Version) -> tuple[str, ...]:
    figures = (f"{version.metrics[name]:.4f}" if name in version.metrics else "-" for name in FIGURES)
    promoted = version.tags.get("promoted_at", "-").replace("T", " ")[:16]
    gate = version.tags.get("gate", "not evaluated")
    return version.number, ", ".join(version.aliases), *figures, gate, f"{version.created_at:%Y-%m-%d %H:%M}", promoted


def lineage_of(version: Version) -> str:
    """Where a version comes from, one `name: value` a line; parameters and metrics indented below."""
    tags = {name: value for name, value in sorted(version.tags.items()) if name != "params" and not name.startswith("mlflow.")}
    lines = [f"version: {version.number}", f"made: {version.created_at.isoformat()}", f"run: {version.run_id}"]
    lines += [f"{name}: {value}" for name, value in tags.items()]
    lines += ["params:", *_indented(json.loads(version.tags.get("params", "{}")))]
    lines += ["metrics:", *(f"  {name}: {value:.6g}" for name, value in sorted(version.metrics.items()))]
    return "\n".join(lines)


def _indented(values: dict[str, object], depth: int = 1) -> list[str]:
    lines = []
    for name, value in values.items():
        nested = isinstance(value, dict)
        lines.append(f"{'  ' * depth}{name}:" + ("" if nested else f" {value}"))
        lines += _indented(value, depth + 1) if isinstance(value, dict) else []
    return lines
