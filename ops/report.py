"""What a run changed, as Markdown: `python -m ops.report [BASE]`, the commit to compare with. `make report` runs it."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np

from churn import paths

POINTS = 20
"""A chart's axis is even, and the curves' points are not: so many parts are drawn."""
CURVES = (
    ("ROC", "plots/roc.csv", "false positive rate", "true positive rate"),
    ("Lift", "plots/lift.csv", "share contacted", "lift"),
    ("Calibration", "plots/calibration.csv", "predicted probability", "observed churn rate"),
)


def main() -> None:
    """Print the report; the last run's files are compared with those of the commit."""
    print("\n\n".join(parts(sys.argv[1] if len(sys.argv) > 1 else "HEAD")))


def parts(revision: str) -> Iterator[str]:
    """The report's paragraphs."""
    base, missing = commit(revision), ""
    if not base:
        base, missing = commit("HEAD"), f"; there is no commit `{revision[:12]}` here"
    yield "## What this run gave"
    decision = paths.EVALUATE_REPORTS / "decision.json"
    if decision.exists():
        found = json.loads(decision.read_text())
        yield f"**{'Promoted' if found['promoted'] else 'Not promoted'}**: {found['reason']}"
    yield f"```\n{run('churn', 'models')}\n```"
    yield f"### Figures, against `{base}`{missing}"
    yield run("dvc", "metrics", "diff", "--md", base) or "No figure differs."
    yield "### Parameters"
    yield run("dvc", "params", "diff", "--md", base) or "No parameter differs."
    yield "### Plots"
    for title, path, x, y in CURVES:
        yield chart(title, x, y, Path(path).read_text(), run("git", "show", f"{base}:{path}", may_fail=True))


def commit(name: str) -> str:
    """The first twelve digits of a commit; nothing where there is none, as before a first push and after a forced one."""
    return run("git", "rev-parse", "--verify", "--quiet", "--short=12", f"{name}^{{commit}}", may_fail=True)


def chart(title: str, x: str, y: str, now: str, before: str) -> str:
    """A curve as Mermaid draws it: the run's line, and a second one where the commit's differs."""
    lines = [points(now)] + ([points(before)] if before and points(before) != points(now) else [])
    start, end = extent(now)
    top = max(max(line) for line in lines)
    legend = "first line: this run; second: before" if len(lines) > 1 else "this run"
    drawn = "\n".join(f"    line [{', '.join(f'{value:.4f}' for value in line)}]" for line in lines)
    return (
        f'```mermaid\nxychart-beta\n    title "{title} ({legend})"\n    x-axis "{x}" {start:g} --> {end:g}\n'
        f'    y-axis "{y}" 0 --> {max(top, 1):.2f}\n{drawn}\n```'
    )


def points(text: str) -> list[float]:
    """(POINTS + 1,) the curve's values at even distances of x."""
    x, y = table(text)
    return [round(float(value), 4) for value in np.interp(np.linspace(x[0], x[-1], POINTS + 1), x, y)]


def extent(text: str) -> tuple[float, float]:
    """The first and the last x of a curve."""
    x, _ = table(text)
    return float(x[0]), float(x[-1])


def table(text: str) -> tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """(n,) x and (n,) y of a CSV file of two columns, in the order of x."""
    _, *rows = csv.reader(StringIO(text))
    x, y = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def run(*words: str, may_fail: bool = False) -> str:
    """What a command prints; with `may_fail`, nothing where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return "" if done.returncode else done.stdout.strip()


if __name__ == "__main__":
    main()
