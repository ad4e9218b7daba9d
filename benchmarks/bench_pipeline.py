"""What the pipeline costs: each stage and `churn score` by size, the notebook way beside it, starts, and a no-op `dvc repro`.

`python benchmarks/bench_pipeline.py [--out FILE] [--sizes 7k,100k,1m,10m] [--only NAME …] [--timeout SECONDS]` prints Markdown
tables and writes JSON. Every measurement is a process of its own; its memory is the peak that the kernel reports at its end.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import MEMORY_LIMIT
from measurements import MEASUREMENTS, Row
from projects import Workshop

OUT = Path(__file__).parent / "results" / "pipeline.json"
SIZES = ("7k", "100k", "1m", "10m")
TIMEOUT_S = 900

MIN_SPEEDUP = 5.0
MAX_MEMORY_RATIO = 1.1
MIN_WORKING_SHARE = 0.5
MAX_NO_OP_RATIO = 1.5
"""The bars. Source: the project's promises; by a tenth, the peaks of two runs of one command differ."""


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    wanted = _arguments()
    found: dict[str, list[Row]] = {}
    with TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder), wanted.timeout)
        for name in wanted.only:
            found[name] = []
            for row in MEASUREMENTS[name](workshop, wanted.sizes):
                print(f"{name}: {json.dumps(row)}", file=sys.stderr)
                found[name].append(row)
    bars = bars_of(found)
    print("\n\n".join([*(TABLES[name](rows) for name, rows in found.items()), bars_table(bars)]))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(rounded({"machine": machine(), **found, "bars": bars}), indent=2) + "\n")
    return 0 if all(each["held"] for each in bars) else 1


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine."""
    libraries = ("numpy", "pandas", "pyarrow", "scikit-learn", "onnxruntime", "feast", "great-expectations", "mlflow", "dvc")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": 2 * MEMORY_LIMIT / 2**30,
        "memory_limit_gb": MEMORY_LIMIT / 2**30,
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries},
    }


def bars_of(found: dict[str, list[Row]]) -> list[Row]:
    """The bars for which there are figures: what was promised, what was found, and whether it held."""
    bars = []
    for row in found.get("notebook", []):
        for key, what in (("end_to_end", "read to written"), ("predict", "in memory")):
            name = f"score: rows/s over the notebook's, {row['size']}, {what}"
            bars.append(bar(name, row["ratio"][key], MIN_SPEEDUP, at_least=True))
    peaks = {row["size"]: row["peak_mb"] for row in found.get("score", []) if not row["problem"]}
    if {"1m", "10m"} <= set(peaks):
        bars.append(bar("score: peak memory at 10m over 1m", peaks["10m"] / peaks["1m"], MAX_MEMORY_RATIO, at_least=False))
    if split := found.get("imports"):
        share = sum(row["working_s"] for row in split) / sum(row["wall_s"] for row in split)
        bars.append(bar("a full run at 7k: share of its time that is work", share, MIN_WORKING_SHARE, at_least=True))
    if took := {row["command"]: row["wall_s"] for row in found.get("dvc", [])}:
        ratio = took["dvc repro"] / took["dvc status"]
        bars.append(bar("no-op dvc repro over dvc status", ratio, MAX_NO_OP_RATIO, at_least=False))
    return bars


def bar(name: str, value: float, bound: float, *, at_least: bool) -> Row:
    """What was promised under that name, what was found, and whether it held."""
    held = value >= bound if at_least else value <= bound
    return {"name": name, "value": value, "bound": f"{'≥' if at_least else '≤'} {bound:g}", "held": held}


def sized_table(rows: list[Row]) -> str:
    """Rows per second, seconds and peak memory by name and size."""
    cells = [
        (row["name"], row["size"], row["problem"])
        if row["problem"]
        else (row["name"], row["size"], f"{row['rows_per_s']:,.0f}", f"{row['wall_s']:.1f}", f"{row['peak_mb']:,.0f}")
        for row in rows
    ]
    return table(("", "rows", "rows/s", "wall, s", "peak, MB"), cells)


def notebook_table(rows: list[Row]) -> str:
    """Each step of both ways, and how many times faster `churn score` is."""
    steps = (("read", "read"), ("engineer", "derive features"), ("predict", "predict, in memory"), ("write", "write"))
    wholes = (("end_to_end", "read to written"), ("with_start", "with the start of the process"))
    cells = [
        (
            f"{row['size']}: {what}, s",
            *(f"{row[name][key]:.3f}" if key in row[name] else "" for name in ("sklearn", "churn")),
            f"{row['ratio'][key]:.1f} ×" if key in row["ratio"] else "",
        )
        for row in rows
        for key, what in (*steps, *wholes)
    ]
    agree = "; ".join(f"{row['mean_difference']:.4f} at {row['size']}" for row in rows)
    shown = table(("", "pandas + scikit-learn", "churn score", "faster"), cells)
    return f"{shown}\n\nMean difference of the two models' probabilities: {agree}."


def imports_table(rows: list[Row]) -> str:
    """A stage's seconds, split."""
    seconds = ("wall_s", "importing_s", "working_s")
    whole = {"stage": "all", **{key: sum(row[key] for row in rows) for key in seconds}}
    cells = [
        (row["stage"], *(f"{row[key]:.1f}" for key in seconds), f"{row['working_s'] / row['wall_s']:.0%}")
        for row in (*rows, whole)
    ]
    return table(("stage, 7k", "wall, s", "importing, s", "working, s", "working"), cells)


def commands_table(rows: list[Row]) -> str:
    """A command's seconds and peak memory."""
    cells = [(row["command"], row.get("problem") or f"{row['wall_s']:.2f}", f"{row['peak_mb']:,.0f}") for row in rows]
    return table(("command", "wall, s", "peak, MB"), cells)


def bars_table(bars: list[Row]) -> str:
    """The bars, held or missed."""
    cells = [(each["name"], f"{each['value']:.2f}", each["bound"], "held" if each["held"] else "MISSED") for each in bars]
    return table(("bar", "measured", "promised", ""), cells)


def table(head: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; the first column is text, the others figures. Short rows are filled up."""
    rule = ("---", *("---:" for _ in head[1:]))
    filled = (row + ("",) * (len(head) - len(row)) for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *filled))


TABLES = {
    "stages": sized_table,
    "score": sized_table,
    "notebook": notebook_table,
    "imports": imports_table,
    "starts": commands_table,
    "dvc": commands_table,
}


def rounded(values: Any) -> Any:
    """The same nested values, floats to four digits."""
    match values:
        case dict():
            return {key: rounded(value) for key, value in values.items()}
        case list():
            return [rounded(value) for value in values]
        case float():
            return float(f"{values:.4g}")
        case _:
            return values


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=list(SIZES), metavar=",".join(SIZES))
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="of each command")
    wanted = parser.parse_args()
    if unknown := set(wanted.sizes) - set(SIZES):
        parser.error(f"--sizes: {', '.join(sorted(unknown))}: the sizes are {', '.join(SIZES)}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
