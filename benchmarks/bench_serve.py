"""What the server costs, beside bare ASGI, FastAPI with a pickle, `mlflow models serve` and BentoML; and Feast's reader.

`python benchmarks/bench_serve.py [--out FILE] [--seconds 5] [--rounds 3] [--only NAME …]` prints Markdown tables and writes JSON.
Everybody has one worker process and is asked over 127.0.0.1 by wrk, in turns; figures are medians of the rounds, and ratios are
those of neighbours in a round. `make bench-serve` makes the environment that this needs.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import servers
import wrk
from bench_pipeline import bar, bars_table, machine, rounded, table
from contenders import BARE, FEW, HERE, MANY, MLFLOW, OURS, PEERS, SOME, Case, Contest
from measurements import Row
from projects import BenchmarkError, Workshop

OUT = HERE / "results" / "serve.json"
SECONDS, ROUNDS = 5.0, 3
WARM_UP_S = 1
TIMEOUT_S = 600
"""Of each command that makes what is measured."""

LIBRARIES = (
    *("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "onnxruntime", "pandas", "scikit-learn", "mlflow", "bentoml"),
    *("feast", "redis", "hiredis"),
)

MIN_OVER_MLFLOW = 40.0
MIN_OF_BARE = 0.5
MIN_BATCH_GAIN = 10.0
MIN_OVER_FEAST = 5.0
"""The bars. Source: the project's promises."""

Found = dict[str, list[Row]]


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    wanted = _arguments()
    try:
        how = machine() | {
            "libraries": {name: version(name) for name in LIBRARIES},
            "wrk": wrk.version(),
            "seconds": wanted.seconds,
            "rounds": wanted.rounds,
        }
        found: Found = {}
        with TemporaryDirectory() as folder:
            contest = Contest(Workshop(Path(folder), TIMEOUT_S))
            for name in wanted.only:
                found |= MEASUREMENTS[name](contest, wanted.seconds, wanted.rounds)
    except BenchmarkError as error:
        print(f"bench-serve: {error}", file=sys.stderr)
        return 1
    bars = judge(found)
    print("\n\n".join([how_text(how), *(TABLES[name](rows) for name, rows in found.items()), bars_table(bars)]))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(rounded({"machine": how, **found, "bars": bars}), indent=2) + "\n")
    return 0 if all(each["held"] for each in bars) else 1


def start(contest: Contest, seconds: float, rounds: int) -> Found:
    """Each server's time from the start of its process to ready, and what it then holds; the environment that ours needs."""
    environment = contest.python.parents[1]
    size = int(subprocess.run(["du", "-sm", environment], capture_output=True, text=True, check=True).stdout.split()[0])
    packages = len(list(environment.glob("lib/python*/site-packages/*.dist-info")))
    rows = []
    for name in (OURS, *PEERS):
        seen: Row = {"ready_s": [], "rss_mb": []}
        for _ in range(rounds):
            with servers.running(contest.command(name), contest.log(name)) as server:
                seen["ready_s"].append(server.ready_s)
                seen["rss_mb"].append(server.rss_mb())
        installed = {"environment_mb": size, "packages": packages} if name == OURS else {}
        rows.append({"server": name, **{key: median(values) for key, values in seen.items()}, **installed})
        _tell("start", rows[-1])
    return {"start": rows}


def load(contest: Contest, seconds: float, rounds: int) -> Found:
    """Every case by its number of connections, in turns; how many times ours each peer is; memory before and after."""
    cases = contest.cases()
    with contest.everybody() as running:
        memory = {name: {"server": name, "started_mb": server.rss_mb()} for name, server in running.items()}
        contest.check(running, cases)
        for case in cases:
            _once(running[case.server], case, 1, WARM_UP_S)
        runs: dict[tuple[str, str, int], list[Row]] = {}
        for _, connections, case in product(range(rounds), (FEW, SOME, MANY), cases):
            if connections not in case.connections:
                continue
            row = _once(running[case.server], case, connections, seconds)
            runs.setdefault((case.name, case.server, connections), []).append(row)
        for name, server in running.items():
            memory[name]["loaded_mb"] = server.rss_mb()
    rows = [{"case": case, "server": server, "connections": n, **_middle(seen)} for (case, server, n), seen in runs.items()]
    return {"load": rows, "ratios": ratios(runs), "memory": list(memory.values())}


def _once(server: servers.Server, case: Case, connections: int, seconds: float) -> Row:
    before = server.cpu_s()
    seen = wrk.put(server.port, case.path, case.bodies, connections=connections, seconds=seconds)
    cpu_s = server.cpu_s() - before
    answered = max(seen.answered, 1)
    row = asdict(seen) | {
        "requests_per_s": seen.answered / seen.seconds,
        "rows_per_s": seen.answered * case.rows / seen.seconds,
        "cpu_us": cpu_s * 1e6 / answered,
    }
    _tell(f"{case.server}, {case.name}, {connections}", row)
    return row


def _middle(seen: list[Row]) -> Row:
    """The medians of the rounds, but the sums of what went wrong."""
    sums = {key: sum(row[key] for row in seen) for key in ("requests", "refused", "broken")}
    keys = ("requests_per_s", "rows_per_s", "cpu_us", "p50_ms", "p99_ms")
    return sums | {key: median(row[key] for row in seen) for key in keys}


def ratios(runs: dict[tuple[str, str, int], list[Row]]) -> list[Row]:
    """Ours over each peer, and a batch over single requests: how many times the rows in a second, and for a second of CPU."""
    pairs = [(f"{case}, over {peer}", (case, OURS), (case, peer)) for case in ("single", "batch") for peer in PEERS]
    pairs.append(("batch over single", ("batch", OURS), ("single", OURS)))
    rows = []
    for (name, ours, other), connections in product(pairs, (FEW, SOME, MANY)):
        if (*ours, connections) not in runs or (*other, connections) not in runs:
            continue
        rounds = list(zip(runs[*ours, connections], runs[*other, connections], strict=True))
        speed = median(one["rows_per_s"] / max(two["rows_per_s"], 1e-9) for one, two in rounds)
        cpu = median(_cpu_per_row(two) / max(_cpu_per_row(one), 1e-9) for one, two in rounds)
        clean = not any(row["refused"] or row["broken"] for pair in rounds for row in pair)
        rows.append({"name": name, "connections": connections, "speed": speed, "cpu": cpu, "clean": clean})
    return rows


def _cpu_per_row(row: Row) -> float:
    return float(row["cpu_us"] * row["requests_per_s"] / max(row["rows_per_s"], 1e-9))


def reader(contest: Contest, seconds: float, rounds: int) -> Found:
    """`churn.online_store` against Feast's `get_online_features(…).to_dict()` on Redis, calls in turns."""
    runs: dict[int, list[Row]] = {}
    with contest.redis() as url:
        for _ in range(rounds):
            done = contest.workshop.must([sys.executable, str(HERE / "readers.py"), url, str(seconds)], contest.project)
            for row in map(json.loads, done.out.splitlines()):
                runs.setdefault(row["customers"], []).append(row)
                _tell("reader", row)
    rows = [
        {
            "customers": customers,
            "feast_ms": median(row["feast_ms"] for row in seen),
            "ours_ms": median(row["ours_ms"] for row in seen),
            "ping_ms": median(row["ping_ms"] for row in seen),
            "ratio": median(row["feast_ms"] / row["ours_ms"] for row in seen),
        }
        for customers, seen in runs.items()
    ]
    return {"reader": rows}


MEASUREMENTS: dict[str, Callable[[Contest, float, int], Found]] = {"start": start, "load": load, "reader": reader}
"""By the name that `--only` takes."""


def judge(found: Found) -> list[Row]:
    """The bars for which there are figures: what was promised, what was found, and whether it held."""
    speeds = {(row["name"], row["connections"]): row["speed"] for row in found.get("ratios", [])}
    promised = (
        (f"single, over {MLFLOW}", MANY, MIN_OVER_MLFLOW),
        (f"single, over {BARE}", MANY, MIN_OF_BARE),
        # What a client gains that sends one request after another; of many, the server makes batches by itself.
        ("batch over single", FEW, MIN_BATCH_GAIN),
    )
    bars = [
        bar(f"{name}: rows/s, connections: {connections}", speeds[name, connections], bound, at_least=True)
        for name, connections, bound in promised
        if (name, connections) in speeds
    ]
    for row in found.get("reader", []):
        name = f"Feast's time over our reader's, Redis, {row['customers']} customers"
        bars.append(bar(name, row["ratio"], MIN_OVER_FEAST, at_least=True))
    return bars


def how_text(how: Row) -> str:
    """How it was measured, with whose versions."""
    versions = ", ".join(f"{name} {number}" for name, number in (how["libraries"] | {"wrk": how["wrk"]}).items())
    lasted = f"{how['rounds']} × {how['seconds']:g} s for each case and number of connections"
    quick = "**A quick run, not to be quoted.** " if how["rounds"] < ROUNDS or how["seconds"] < SECONDS else ""
    return f"{quick}{lasted}; {how['cores']} cores, {how['architecture']}, Python {how['python']}; {versions}."


def start_table(rows: list[Row]) -> str:
    """Cold starts, memory, and the size of the environment."""
    head = ("server", "start to ready, s", "memory, MB", "environment, MB", "packages")
    keys = ("environment_mb", "packages")
    cells = [
        (row["server"], f"{row['ready_s']:.2f}", f"{row['rss_mb']:,.0f}", *(f"{row[key]:,.0f}" for key in keys if key in row))
        for row in rows
    ]
    return table(head, cells)


def load_table(rows: list[Row]) -> str:
    """Speed, latency and processor time by case, server and connections."""
    head = ("request", "server", "connections", "requests/s", "rows/s", "p50, ms", "p99, ms", "CPU, µs/request", "failed")
    cells = [
        (
            *(row["case"], row["server"], str(row["connections"])),
            *(f"{row[key]:,.0f}" for key in ("requests_per_s", "rows_per_s")),
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms")),
            *(f"{row['cpu_us']:,.0f}", _failures(row)),
        )
        for row in sorted(rows, key=lambda row: list(dict.fromkeys(each["case"] for each in rows)).index(row["case"]))
    ]
    return table(head, cells)


def _failures(row: Row) -> str:
    """Nothing, or the share that was refused or got no answer; the percentiles are then of quick refusals too."""
    failed = row["refused"] + row["broken"]
    return f"{failed / max(row['requests'] + row['broken'], 1):.1%}" if failed else ""


def ratios_table(rows: list[Row]) -> str:
    """How many times as many rows, by time and by processor time."""
    cells = [
        (row["name"], str(row["connections"]), f"{row['speed']:.2f} ×", f"{row['cpu']:.2f} ×", "" if row["clean"] else "yes")
        for row in rows
    ]
    return table(("ours", "connections", "rows/s", "rows per second of CPU", "with failures"), cells)


def memory_table(rows: list[Row]) -> str:
    """Memory before and after the load."""
    cells = [(row["server"], f"{row['started_mb']:,.0f}", f"{row['loaded_mb']:,.0f}") for row in rows]
    return table(("server", "before the load, MB", "after, MB"), cells)


def reader_table(rows: list[Row]) -> str:
    """The p50 of both readers, and of a bare round trip, by the number of customers."""
    names = ("feast_ms", "ours_ms", "ping_ms")
    cells = [(str(row["customers"]), *(f"{row[name]:.3f}" for name in names), f"{row['ratio']:.1f} ×") for row in rows]
    return table(("customers", "Feast p50, ms", "ours p50, ms", "a bare `PING`, ms", "faster"), cells)


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "start": start_table,
    "load": load_table,
    "ratios": ratios_table,
    "memory": memory_table,
    "reader": reader_table,
}


def _tell(what: str, row: Row) -> None:
    print(f"{what}: {json.dumps(rounded(row))}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each case in each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    wanted = parser.parse_args()
    if wanted.seconds < 1 or wanted.rounds < 1 or wanted.seconds != int(wanted.seconds):
        parser.error("--seconds and --rounds: at least 1, and whole: wrk takes no fractions")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
