"""What a check of the watcher costs, by rows in its window and parts in its log, beside Evidently on the whole window.

Then the same of a month of one busy server, in many parts and compacted, and with a last day in a part every five seconds.

`python benchmarks/bench_monitor.py [--out FILE] [--rows N …] [--repeats 3] [--only checks|month]`
prints Markdown tables and writes JSON. Every
check is a process of its own; figures are medians, memory the largest peak. The watcher's check does two windows (short and
long), the data checks and the decision; Evidently's is one window's report.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench_pipeline import bar, bars_table, machine, rounded, table
from measurements import Row
from projects import ROOT, BenchmarkError, Workshop

OUT = Path(__file__).parent / "results" / "monitor.json"
CHECKS = Path(__file__).parent / "checks.py"
ROWS = (1_000, 5_000, 10_000, 100_000, 1_000_000)
PART_ROWS = 10_000
MANY_PARTS = 10_000
"""Parts of a log that was flushed every five seconds for fourteen hours, or by more servers in less."""
TIMEOUT_S = 900

MONTH = (30, 500_000, 17_280)
"""Days, rows a day, and parts: of the last day, one in every five seconds, and of all days before it together."""
COMPACTED, NOT_COMPACTED = "compacted", "not compacted"

MAX_TIMES = 2.0
MAX_PEAK_MB = 600.0
BASE, LARGEST = 5_000, 1_000_000
"""The bars: a million rows take at most twice the time of five thousand, and this much memory. Source: the project's promises."""


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    wanted = _arguments()
    try:
        with TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), TIMEOUT_S)
            project = workshop.trained
            for name in ("serving", "monitoring"):
                shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
            found: dict[str, list[Row]] = json.loads(wanted.out.read_text()) if wanted.only else {}
            if wanted.only != "month":
                sizes = [(rows, max(1, rows // PART_ROWS)) for rows in wanted.rows] + [(wanted.parts * 10, wanted.parts)]
                found["checks"] = [measured(workshop, project, rows, parts, wanted.repeats) for rows, parts in sizes]
            if wanted.only != "checks":
                found["month"] = measured_month(workshop, project, tuple(wanted.month), wanted.repeats)
    except BenchmarkError as error:
        print(f"bench-monitor: {error}", file=sys.stderr)
        return 1
    how, bars = machine(), [*bars_of(found["checks"]), *bars_of_month(found["month"])]
    print("\n\n".join([checks_table(found["checks"]), month_table(found["month"]), bars_table(bars)]))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(rounded({**found, "machine": how, "bars": bars}), indent=2) + "\n")
    return 0 if all(each["held"] for each in bars) else 1


def measured(workshop: Workshop, project: Path, rows: int, parts: int, repeats: int) -> Row:
    """Both ways in turns on a log of that many rows in that many parts."""
    for name in ("data/events", "data/monitoring", "data/evidently"):
        shutil.rmtree(project / name, ignore_errors=True)
    workshop.must([sys.executable, str(CHECKS), "fill", str(rows), str(parts)], project)
    seen: dict[str, list[Row]] = {"watcher": [], "evidently": []}
    for _ in range(repeats):
        for way, runs in seen.items():
            for name in ("data/monitoring", "data/evidently"):
                shutil.rmtree(project / name, ignore_errors=True)
            done = workshop.must([sys.executable, str(CHECKS), way], project)
            runs.append(json.loads(done.out.splitlines()[-1]) | {"peak_mb": done.peak_mb})
            print(f"{way}, {rows} rows, {parts} parts: {runs[-1]}", file=sys.stderr, flush=True)
    row: Row = {"rows": rows, "parts": parts}
    for way, runs in seen.items():
        row |= {f"{way}_{name}": median(each[name] for each in runs) for name in ("import_s", "first_s", "second_s")}
        row[f"{way}_peak_mb"] = max(each["peak_mb"] for each in runs)
    return row


def measured_month(workshop: Workshop, project: Path, size: tuple[int, int, int], repeats: int) -> list[Row]:
    """Checks of 5,000 rows, of a month in many parts and compacted, and with one more day before and after its compaction."""
    days, rows, parts = size
    for name in ("data/events", "data/monitoring"):
        shutil.rmtree(project / name, ignore_errors=True)

    def run(*words: str) -> Row:
        done = workshop.must([sys.executable, str(CHECKS), *words], project)
        said = json.loads(done.out.splitlines()[-1]) if done.out.strip() else {}
        return {**said, "peak_mb": done.peak_mb}

    def checks(log: str) -> Row:
        runs = []
        for _ in range(repeats):
            shutil.rmtree(project / "data/monitoring", ignore_errors=True)
            runs.append(run("watcher"))
            print(f"{log}: {runs[-1]}", file=sys.stderr, flush=True)
        seconds = {name: median(each[name] for each in runs) for name in ("first_s", "second_s")}
        return {"log": log, **seconds, "peak_mb": max(each["peak_mb"] for each in runs)}

    def compaction(log: str) -> Row:
        done = run("compact")
        print(f"{log}: {done}", file=sys.stderr, flush=True)
        return {"log": log, "first_s": done["merge_s"], "second_s": done["delete_s"], "peak_mb": done["peak_mb"]}

    run("fill", str(BASE), "1")
    found = [checks(f"{BASE:,} rows")]
    shutil.rmtree(project / "data/events")
    run("month", str(days), str(rows), str(parts // days))
    month = f"{days} days of {rows:,} rows"
    found.append(checks(f"{month} in {parts:,} parts, {NOT_COMPACTED}"))
    found.append(compaction(f"compaction of these {parts:,} parts"))
    found.append(checks(f"{month}, {COMPACTED}"))
    run("day", str(parts), str(rows))
    found.append(checks(f"and yesterday in {parts:,} parts, {NOT_COMPACTED}"))
    found.append(compaction(f"compaction of yesterday's {parts:,} parts"))
    found.append(checks(f"and yesterday, {COMPACTED}"))
    return found


def bars_of_month(found: list[Row]) -> list[Row]:
    """The bars of the month with what was measured."""
    base, *logs = (row for row in found if "compaction of" not in row["log"])
    parts = [row["second_s"] for row in logs if row["log"].endswith(NOT_COMPACTED)]
    compacted = [row["second_s"] for row in logs if not row["log"].endswith(NOT_COMPACTED)]
    slowest = max(single / merged for single, merged in zip(parts, compacted, strict=True))
    peak = max(row["peak_mb"] for row in logs)
    return [
        bar(
            f"a check of a compacted month over one of {BASE:,} rows: time",
            max(compacted) / base["second_s"],
            MAX_TIMES,
            at_least=False,
        ),
        bar("a check of a month that is not compacted over one that is: time", slowest, MAX_TIMES, at_least=False),
        bar("a check of a month: peak memory, MB", peak, MAX_PEAK_MB, at_least=False),
    ]


def month_table(rows: list[Row]) -> str:
    """Time and memory by what is in the log."""
    cells = [(row["log"], f"{row['first_s']:.1f}", f"{row['second_s']:.1f}", f"{row['peak_mb']:.0f}") for row in rows]
    return table(("log", "first check (compaction: merge), s", "check (delete), s", "peak, MB"), cells)


def bars_of(found: list[Row]) -> list[Row]:
    """The bars with what was measured."""
    by_rows = {row["rows"]: row for row in found if row["parts"] < MANY_PARTS}
    if not {BASE, LARGEST} <= by_rows.keys():
        return []
    times = by_rows[LARGEST]["watcher_second_s"] / by_rows[BASE]["watcher_second_s"]
    peak = by_rows[LARGEST]["watcher_peak_mb"]
    return [
        bar(f"a check of {LARGEST:,} rows over one of {BASE:,}: time", times, MAX_TIMES, at_least=False),
        bar(f"a check of {LARGEST:,} rows: peak memory, MB", peak, MAX_PEAK_MB, at_least=False),
    ]


def checks_table(rows: list[Row]) -> str:
    """Time and memory of both ways by size."""
    cells = [
        (
            f"{row['rows']:,}",
            f"{row['parts']:,}",
            *(f"{row[f'watcher_{name}']:.1f}" for name in ("import_s", "first_s", "second_s")),
            f"{row['watcher_peak_mb']:.0f}",
            f"{row['evidently_second_s']:.1f}",
            f"{row['evidently_peak_mb']:.0f}",
        )
        for row in rows
    ]
    head = ("rows", "parts", "start, s", "first check, s", "check, s", "peak, MB", "Evidently on all rows, s", "peak, MB")
    return table(head, cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--parts", type=int, default=MANY_PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--month", type=int, nargs=3, default=MONTH, metavar=("DAYS", "ROWS", "PARTS"))
    parser.add_argument("--only", choices=("checks", "month"), help="keep the other part of FILE as it is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
