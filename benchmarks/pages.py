"""The tables and figures of the benchmarks that pages of the documentation show: `docs/render.py` writes them there."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_compose import images_table, stack_table
from bench_monitor import checks_table, month_table
from bench_pipeline import TABLES as PIPELINE_TABLES
from bench_pipeline import bars_table, sized_table
from serve_tables import TABLES as SERVE_TABLES
from serve_tables import how_text

RESULTS = Path(__file__).parent / "results"


def pipeline_benchmark(name: str) -> str:
    """A table of the benchmark, as `make bench-pipeline` last printed it; `bars` are the promises, held or missed."""
    return (PIPELINE_TABLES | {"bars": bars_table})[name](json.loads((RESULTS / "pipeline.json").read_text())[name])


def serve_benchmark(name: str) -> str:
    """A table of the server's benchmark, as `make bench-serve` last printed it; `how` says how it was measured."""
    found = json.loads((RESULTS / "serve.json").read_text())
    return how_text(found["machine"]) if name == "how" else (SERVE_TABLES | {"bars": bars_table})[name](found[name])


def speed() -> str:
    """The figures on speed that the README shows."""
    pipeline, serve = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("pipeline", "serve"))
    million = next(row["ratio"] for row in pipeline["notebook"] if row["size"] == "1m")
    rates = {row["name"]: row["speed"] for row in serve["ratios"] if row["connections"] == 64}
    whole, with_start = million["end_to_end"], million["with_start"]
    mlflow, bare = rates["single, over mlflow"], rates["single, over bare ASGI"]
    return f"""\
- `churn score` reads, scores and writes 1 million rows {whole:.1f} × as fast as pandas with a scikit-learn pipeline
  ({with_start:.1f} × with the start of the process).
- The server answers {mlflow:.1f} × as many single predictions per second as `mlflow models serve`, at 64 connections,
  and {bare:.2f} × as many as an ASGI application that returns a constant."""


def largest() -> str:
    """The largest table that each stage was measured with."""
    found = json.loads((RESULTS / "pipeline.json").read_text())
    return sized_table(list({row["name"]: row for row in (*found["stages"], *found["score"]) if not row["problem"]}.values()))


def monitor_benchmark(name: str) -> str:
    """A table of the watcher's benchmark, as `make bench-monitor` last printed it."""
    return {"checks": checks_table, "month": month_table, "bars": bars_table}[name](
        json.loads((RESULTS / "monitor.json").read_text())[name]
    )


def compose_benchmark(name: str) -> str:
    """A table of the stack's benchmark, as `make bench-compose` last printed it."""
    return {"images": images_table, "stack": stack_table}[name](json.loads((RESULTS / "compose.json").read_text())[name])


def recipe() -> str:
    """The table of the recipe's benchmark, as `make bench-recipe` last printed it."""
    from bench_recipe import lines

    return "\n".join(lines(json.loads((RESULTS / "recipe.json").read_text())))


def adopted() -> str:
    """The table of adopted companies, as `make bench-adopt` last printed it."""
    from adopt_table import markdown

    return markdown(json.loads((RESULTS / "adopt.json").read_text()))


def gate_benchmark(name: str) -> str:
    """A table of the gate's benchmark, as `make bench-gate` last printed it; `how` says how it was measured."""
    from gate_tables import TABLES, how_text

    found = json.loads((RESULTS / "gate.json").read_text())
    return how_text(found["how"]) if name == "how" else TABLES[name](found[name])


PARTS: dict[str, Callable[[], str]] = {
    "speed": speed,
    "recipe": recipe,
    "adopted": adopted,
    "largest": largest,
    **{
        f"bench_{name}": partial(pipeline_benchmark, name)
        for name in ("stages", "score", "notebook", "imports", "starts", "dvc", "bars")
    },
    **{
        f"serve_{name}": partial(serve_benchmark, name)
        for name in ("how", "start", "load", "ratios", "memory", "reader", "attack", "bars")
    },
    **{f"gate_{name}": partial(gate_benchmark, name) for name in ("how", "refused", "rules", "champion", "leaks", "tables")},
    **{f"monitor_{name}": partial(monitor_benchmark, name) for name in ("checks", "month", "bars")},
    **{f"compose_{name}": partial(compose_benchmark, name) for name in ("images", "stack")},
}
"""Name of a part, as a page's marker has it → what makes its text."""
