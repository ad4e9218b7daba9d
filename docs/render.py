"""Write the generated parts of the documentation: between `<!-- render: NAME -->` and `<!-- end -->`, and docs/images/.

`make render` runs it; a test proves that what is committed is current.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from churn import paths
from churn.contract import COLUMNS, RULES, Role
from churn.features import FEATURES
from churn.pipeline import STAGES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ("roc", "precision_recall", "calibration", "lift", "confusion"), ("importance", "loss")


def columns() -> str:
    """The contract as a table."""
    lines = ["| column | raw file's name | role | values | description |", "|---|---|---|---|---|"]
    for each in COLUMNS:
        role = "" if each.role is Role.FEATURE else f"**{each.role}**"
        values = f"{each.kind}{'; may be blank' if each.nullable else ''}"
        lines.append(f"| `{each.name}` | {each.source} | {role} | {values} | {each.description} |")
    return "\n".join(lines)


def rules() -> str:
    """What must hold between columns, as a table."""
    lines = ["| rule | what must hold | for at least |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{each.name}` | {each.description} | {each.mostly:.0%} of the rows |" for each in RULES])


def derived() -> str:
    """The derived features as a table."""
    lines = ["| feature | values | description |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{each.name}` | {each.kind} | {each.description} |" for each in FEATURES if each.derive])


def pipeline() -> str:
    """The stages and their files as a Mermaid flow chart."""
    lines = ["```mermaid", "flowchart LR", f"    {_node(paths.RAW)}[({paths.RAW})]"]
    for stage in STAGES.values():
        lines += [f"    {_node(read)} --> {stage.name}([{stage.name}])" for read in stage.reads]
        shown = [path for path in stage.writes if path.parts[0] in ("data", "models")]
        lines += [f"    {stage.name} --> {_node(path)}[{path}]" for path in shown]
    lines += ["    featurize -.-> online[(online store)]", "    train -. candidate .-> registry[(MLflow registry)]"]
    lines += ["    evaluate -. production, or a refusal .-> registry", "```"]
    return "\n".join(lines)


def _node(path: Path) -> str:
    return re.sub(r"\W", "_", str(path))


def figures() -> str:
    """The committed figures as a table."""
    evaluated, trained = _metrics()
    test, baseline = evaluated["test"], evaluated["baseline"]
    names = ("roc_auc", "pr_auc", "log_loss", "ece", "calibration_slope", "lift_at_10", "profit_per_customer")
    lines = ["| on the test customers | model | logistic regression |", "|---|---|---|"]
    lines += [f"| {name} | {test[name]:.4f} | {baseline[name]:.4f} |" for name in names]
    cv, baseline_cv = trained["cv"], trained["baseline_cv"]
    lines += [f"| cross-validated roc_auc | {_spread(cv)} | {_spread(baseline_cv)} |"]
    return "\n".join(lines)


def quality() -> str:
    """The model's figure that the README shows, beside the baseline's."""
    _, trained = _metrics()
    return (
        f"ROC-AUC, cross-validated: {_spread(trained['cv'])}; a logistic regression has {_spread(trained['baseline_cv'])}. "
        "[docs/model.md](docs/model.md) has every figure and plot."
    )


def quoted(text: str) -> str:
    """The text with the committed figures where it quotes what `make repro` prints."""
    evaluated, trained = _metrics()
    cv, test = trained["cv"], evaluated["test"]
    text = re.sub(r"CV ROC-AUC \S+ ± \S+, log loss \S+", f"CV ROC-AUC {_spread(cv)}, log loss {cv['log_loss']:.4f}", text)
    listed = "".join(rf"\g<{part + 1}>{test[name]:.4f}" for part, name in enumerate(("roc_auc", "log_loss", "ece")))
    return re.sub(r"(candidate, production +)\S+( +)\S+( +)\S+( +passed)", listed + r"\g<4>", text)


def _metrics() -> Iterator[Any]:
    return (json.loads((ROOT / path).read_text()) for path in (paths.EVALUATE_METRICS, paths.TRAIN_METRICS))


def _spread(scores: dict[str, float]) -> str:
    return f"{scores['roc_auc']:.4f} ± {scores['roc_auc_sd']:.4f}"


def benchmark(name: str) -> str:
    """A table of the benchmark, as `make bench-pipeline` last printed it; `bars` are the promises, held or missed."""
    sys.path.append(str(ROOT / "benchmarks"))
    from bench_pipeline import TABLES, bars_table

    return (TABLES | {"bars": bars_table})[name](json.loads((RESULTS / "pipeline.json").read_text())[name])


def serve_benchmark(name: str) -> str:
    """A table of the server's benchmark, as `make bench-serve` last printed it; `how` says how it was measured."""
    sys.path.append(str(ROOT / "benchmarks"))
    from bench_pipeline import bars_table
    from serve_tables import TABLES, how_text

    found = json.loads((RESULTS / "serve.json").read_text())
    return how_text(found["machine"]) if name == "how" else (TABLES | {"bars": bars_table})[name](found[name])


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
- The server answers {mlflow:.1f} × as many single predictions per second as `mlflow models serve`, at 64 connections.
- It answers {bare:.2f} × as many as an ASGI application that returns a constant."""


def largest() -> str:
    """The largest table that each stage was measured with."""
    sys.path.append(str(ROOT / "benchmarks"))
    from bench_pipeline import sized_table

    found = json.loads((RESULTS / "pipeline.json").read_text())
    return sized_table(list({row["name"]: row for row in (*found["stages"], *found["score"]) if not row["problem"]}.values()))


def monitor_benchmark(name: str) -> str:
    """A table of the watcher's benchmark, as `make bench-monitor` last printed it."""
    sys.path.append(str(ROOT / "benchmarks"))
    from bench_monitor import checks_table, month_table
    from bench_pipeline import bars_table

    return {"checks": checks_table, "month": month_table, "bars": bars_table}[name](
        json.loads((RESULTS / "monitor.json").read_text())[name]
    )


def compose_benchmark(name: str) -> str:
    """A table of the stack's benchmark, as `make bench-compose` last printed it."""
    sys.path.append(str(ROOT / "benchmarks"))
    from bench_compose import images_table, stack_table

    return {"images": images_table, "stack": stack_table}[name](json.loads((RESULTS / "compose.json").read_text())[name])


def gate_benchmark(name: str) -> str:
    """A table of the gate's benchmark, as `make bench-gate` last printed it; `how` says how it was measured."""
    sys.path.append(str(ROOT / "benchmarks"))
    from gate_tables import TABLES, how_text

    found = json.loads((RESULTS / "gate.json").read_text())
    return how_text(found["how"]) if name == "how" else TABLES[name](found[name])


PARTS: dict[str, Callable[[], str]] = {
    **{each.__name__: each for each in (columns, rules, derived, pipeline, figures, quality, speed, largest)},
    **{f"bench_{name}": partial(benchmark, name) for name in ("stages", "score", "notebook", "imports", "starts", "dvc", "bars")},
    **{
        f"serve_{name}": partial(serve_benchmark, name)
        for name in ("how", "start", "load", "ratios", "memory", "reader", "attack", "bars")
    },
    **{f"monitor_{name}": partial(monitor_benchmark, name) for name in ("checks", "month", "bars")},
    **{f"gate_{name}": partial(gate_benchmark, name) for name in ("how", "refused", "rules", "champion", "leaks", "tables")},
    **{f"compose_{name}": partial(compose_benchmark, name) for name in ("images", "stack")},
}


def rendered(text: str) -> str:
    """The text with every marked part written anew, and the figures in what it quotes of `make repro`.

    Raises:
        KeyError: a marker names no part.
    """
    marked = re.compile(r"(<!-- render: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return quoted(marked.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", text))


def documents() -> list[Path]:
    """Every Markdown file with a marker."""
    pages = [
        ROOT / "README.md",
        ROOT / "data" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
    return [page for page in pages if "<!-- render: " in page.read_text()]


def main() -> None:
    """Render every document, and copy the last run's plots to docs/images."""
    for page in documents():
        page.write_text(rendered(page.read_text()))
    for folder, names in zip((paths.EVALUATE_REPORTS, paths.TRAIN_REPORTS), PICTURES, strict=True):
        for name in names:
            if (picture := ROOT / folder / f"{name}.png").exists():
                shutil.copy(picture, ROOT / "docs" / "images")


if __name__ == "__main__":
    main()
