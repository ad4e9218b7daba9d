"""What the server costs, beside bare ASGI, FastAPI with a pickle, `mlflow models serve` and BentoML; Feast's reader; an attack.

Our server runs as it is, without its fast path, and without its prediction log.

`python benchmarks/bench_serve.py [--out FILE] [--seconds 5] [--rounds 3] [--only NAME …]` prints Markdown tables and writes JSON.
Each server has one worker process. wrk sends the requests over 127.0.0.1, to one server after the other. Figures are medians of
the rounds; ratios are those of neighbours in a round. `make bench-serve` makes the environment that this needs.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import servers
import wrk
from attack import Attack
from bench_pipeline import bar, bars_table, machine, rounded
from contenders import BARE, FEW, HERE, MANY, MLFLOW, NO_LOG, OURS, PEERS, SETTINGS, SOME, Case, Contest
from measurements import Row
from projects import BenchmarkError, Workshop
from serve_tables import ROUNDS, SECONDS, TABLES, how_text

OUT = HERE / "results" / "serve.json"
WARM_UP_S = 1
TIMEOUT_S = 600
"""Of each command that makes what is measured."""

LIBRARIES = (
    *("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "onnxruntime", "pandas", "scikit-learn", "mlflow", "bentoml"),
    *("feast", "redis", "hiredis"),
)

MIN_OVER_MLFLOW = 40.0
MIN_OF_BARE = 0.5
MAX_P99_OF_LOG = 2.0
MIN_BATCH_GAIN = 10.0
MIN_OVER_FEAST = 5.0
MAX_GROWTH_MB = 20.0
"""The bars. Source: the project's promises."""

BAD_REQUESTS = 100_000
STEP = 10_000
"""Memory is read after so many; the first step is the warm-up."""
KEY = "benchmark"

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
    bars = bars_of(found)
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
    with contest.all_servers() as running:
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
    """Ours over each peer, and a batch over single requests: rows in a second, rows for a second of CPU, and the p99."""
    pairs = [(f"{case}, over {peer}", (case, OURS), (case, peer)) for case in ("single", "batch") for peer in (*SETTINGS, *PEERS)]
    pairs.append(("batch over single", ("batch", OURS), ("single", OURS)))
    rows = []
    for (name, ours, other), connections in product(pairs, (FEW, SOME, MANY)):
        if (*ours, connections) not in runs or (*other, connections) not in runs:
            continue
        rounds = list(zip(runs[*ours, connections], runs[*other, connections], strict=True))
        speed = median(one["rows_per_s"] / max(two["rows_per_s"], 1e-9) for one, two in rounds)
        cpu = median(_cpu_per_row(two) / max(_cpu_per_row(one), 1e-9) for one, two in rounds)
        p99 = median(one["p99_ms"] / max(two["p99_ms"], 1e-9) for one, two in rounds)
        clean = not any(row["refused"] or row["broken"] for pair in rounds for row in pair)
        rows.append({"name": name, "connections": connections, "speed": speed, "cpu": cpu, "p99": p99, "clean": clean})
    return rows


def _cpu_per_row(row: Row) -> float:
    return float(row["cpu_us"] * row["requests_per_s"] / max(row["rows_per_s"], 1e-9))


def reader(contest: Contest, seconds: float, rounds: int) -> Found:
    """`churn.adapters.online_store.reader` against Feast's `get_online_features(…).to_dict()` on Redis, calls in turns."""
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


def attack(contest: Contest, seconds: float, rounds: int) -> Found:
    """Our server's memory while it gets bad requests of every kind, half of them with a key."""
    command = contest.command(OURS)
    locked = {"CHURN_API_KEYS": hashlib.sha256(KEY.encode()).hexdigest()}
    rows: list[Row] = []
    with servers.running(replace(command, environment={**command.environment, **locked}), contest.log("attack")) as server:
        sender = Attack(server.port, key=f"X-API-Key: {KEY}\r\n".encode())
        began = time.perf_counter()
        for sent in range(0, BAD_REQUESTS + 1, STEP):
            if sent:
                sender.run(STEP)
            seen = {"requests": sent, "seconds": time.perf_counter() - began, "rss_mb": server.rss_mb()}
            rows.append(seen | {"answers": dict(sorted(sender.answers.items()))})
            _tell("attack", rows[-1])
    return {"attack": rows}


MEASUREMENTS: dict[str, Callable[[Contest, float, int], Found]] = {
    "start": start,
    "load": load,
    "reader": reader,
    "attack": attack,
}
"""By the name that `--only` takes."""


def bars_of(found: Found) -> list[Row]:
    """The bars for which there are figures: what was promised, what was found, and whether it held."""
    speeds = {(row["name"], row["connections"]): row["speed"] for row in found.get("ratios", [])}
    promised = (
        (f"single, over {MLFLOW}", MANY, MIN_OVER_MLFLOW),
        (f"single, over {BARE}", SOME, MIN_OF_BARE),
        (f"single, over {BARE}", MANY, MIN_OF_BARE),
        # What a client gains that sends one request after another; of many, the server makes batches by itself.
        ("batch over single", FEW, MIN_BATCH_GAIN),
    )
    bars = [
        bar(f"{name}: rows/s, connections: {connections}", speeds[name, connections], bound, at_least=True)
        for name, connections, bound in promised
        if (name, connections) in speeds
    ]
    bars += [
        bar(f"p99 with the log over that without, connections: {row['connections']}", row["p99"], MAX_P99_OF_LOG, at_least=False)
        for row in found.get("ratios", [])
        if row["name"] == f"single, over {NO_LOG}" and row["connections"] in {FEW, SOME}
    ]
    for row in found.get("reader", []):
        name = f"Feast's time over our reader's, Redis, {row['customers']} customers"
        bars.append(bar(name, row["ratio"], MIN_OVER_FEAST, at_least=True))
    if rows := found.get("attack"):
        growth = rows[-1]["rss_mb"] - rows[1]["rss_mb"]
        name = f"memory after {rows[-1]['requests']:,} bad requests over that after {rows[1]['requests']:,}, MB"
        bars.append(bar(name, growth, MAX_GROWTH_MB, at_least=False))
    return bars


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
