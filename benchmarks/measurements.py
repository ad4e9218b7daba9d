"""The measurements of the pipeline: each yields rows of figures, by size where it has one."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import measure
from projects import ROOT, SHIPPED, Workshop, count

from churn import paths
from churn.pipeline import STAGES

Row = dict[str, Any]

LONG = 4
"""How many times the usual timeout `featurize` may take on ten million rows."""

ROUNDS = 5
"""How often each way runs in one process, for the median seconds of each step; its start is measured in a process of its own."""
LIGHT = (
    ("      - {max_leaf_nodes: 15, max_features: 0.5}\n", ""),
    ("large_models: [hist_gradient_boosting, logistic_regression]", "large_models: [hist_gradient_boosting]"),
    ("cv_folds: 5", "cv_folds: 2"),
)
"""What makes training as light as it can be: for a table on which the full one takes too long."""


def stages(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """Each stage up to a million rows, in order, and `featurize` on ten million."""
    for size in sizes:
        if size == "10m":
            timeout_s = LONG * workshop.timeout_s
            done = measure.run(_command("featurize"), cwd=workshop.prepared(size), timeout_s=timeout_s)
            yield _sized("featurize", size, done)
            continue
        project = workshop.project(size, f"stages-{size}")
        for stage in STAGES:
            done = measure.repeat(_command(stage), cwd=project, timeout_s=workshop.timeout_s)
            yield _sized(stage, size, done)
            if done.problem and stage == "train":
                _lighten(project)
                done = measure.run(measure.churn(stage), cwd=project, timeout_s=workshop.timeout_s)
                yield _sized("train (1 candidate, 2 folds)", size, done)


def _command(stage: str) -> list[str]:
    """The stage with all of its work: a second `featurize` would find nothing new for the online store."""
    return measure.churn(stage, *(["--full"] if stage == "featurize" else []))


def _lighten(project: Path) -> None:
    params = (project / paths.PARAMS).read_text()
    for full, light in LIGHT:
        assert full in params, f"params.yaml no longer has {full!r}: update LIGHT"
        params = params.replace(full, light)
    (project / paths.PARAMS).write_text(params)


def score(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """`churn score` by size, with the start of its process."""
    for size in sizes:
        command = measure.churn("score", str(workshop.rows(size)), str(workshop.folder / "scored.parquet"))
        yield _sized("score", size, measure.repeat(command, cwd=workshop.trained, timeout_s=workshop.timeout_s))


def imports(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """How much of a first run's time on the shipped rows goes into importing modules: the median of three."""
    found: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}
    for repeat in range(3):
        project = workshop.project(SHIPPED, f"imports-{repeat}")
        for stage, times in found.items():
            python, *words = _command(stage)
            done = measure.run([python, "-X", "importtime", *words], cwd=project, timeout_s=workshop.timeout_s)
            microseconds = re.findall(r"^import time:\s+(\d+) \|", done.err, re.MULTILINE)
            times.append((done.wall_s, sum(map(int, microseconds)) / 1e6))
    split = {stage: tuple(median(each) for each in zip(*times, strict=True)) for stage, times in found.items()}
    for stage, (wall_s, importing_s) in split.items():
        yield {"stage": stage, "wall_s": wall_s, "importing_s": importing_s, "working_s": wall_s - importing_s}


def starts(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """What a command takes before it does anything."""
    helps = [[], ["score"], *([stage] for stage in STAGES)]
    for words in (*([*each, "--help"] for each in helps), ["models"]):
        done = measure.repeat(measure.churn(*words), cwd=workshop.trained, timeout_s=workshop.timeout_s, repeats=5)
        yield {"command": f"churn {' '.join(words)}", "wall_s": done.wall_s, "peak_mb": done.peak_mb, "problem": done.problem}


def dvc(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """`dvc repro` that finds nothing to do against `dvc status`, in turns."""
    project = workshop.project(SHIPPED, "dvc")
    command = [sys.executable, "-m", "dvc"]
    workshop.must([*command, "init", "--no-scm"], project)
    shutil.copy(ROOT / ".dvc" / "config", project / ".dvc" / "config.local")
    workshop.must([*command, "repro"], project)
    runs: dict[str, list[measure.Run]] = {"status": [], "repro": []}
    for _ in range(9):
        for word, found in runs.items():
            found.append(workshop.must([*command, word], project))
    for word, found in runs.items():
        done = measure.together(found)
        yield {"command": f"dvc {word}", "wall_s": done.wall_s, "peak_mb": done.peak_mb}


def notebook(workshop: Workshop, sizes: list[str]) -> Iterator[Row]:
    """pandas and a scikit-learn pipeline against `churn score` on the same rows, in turns: seconds of each step."""
    pipeline = workshop.folder / "pipeline.pickle"
    workshop.must(_notebook("fit", pipeline, paths.TRAIN_METRICS), workshop.trained)
    for size in (each for each in sizes if each in {"100k", "1m"}):
        source = str(workshop.as_exported(size))
        outs = {name: workshop.folder / f"{name}.parquet" for name in ("sklearn", "churn")}
        ours, sklearn = (source, str(outs["churn"])), (source, str(outs["sklearn"]), str(pipeline))
        runs: dict[str, list[Row]] = {name: [] for name in outs}
        for _ in range(3):
            for name, start, steps in (
                ("sklearn", _notebook("sklearn", 1, *sklearn), _notebook("sklearn", ROUNDS, *sklearn)),
                ("churn", measure.churn("score", *ours), _notebook("churn", ROUNDS, *ours)),
            ):
                started, done = (workshop.must(command, workshop.trained) for command in (start, steps))
                runs[name].append(json.loads(done.out) | {"with_start": started.wall_s, "peak_mb": started.peak_mb})
        took = {name: {key: median(each[key] for each in found) for key in found[0]} for name, found in runs.items()}
        ratios = {key: took["sklearn"][key] / took["churn"][key] for key in ("end_to_end", "predict", "with_start")}
        yield {"size": size, **took, "ratio": ratios, "mean_difference": _mean_difference(*outs.values())}


def _notebook(*words: object) -> list[str]:
    return [sys.executable, str(Path(__file__).parent / "notebook.py"), *map(str, words)]


def _mean_difference(*scored: Path) -> float:
    """How far apart the probabilities of two files of the same rows are, on average."""
    import pyarrow.parquet as pq

    one, other = (pq.read_table(path)["churn_probability"].to_numpy() for path in scored)
    return float(abs(one - other).mean())


def _sized(name: str, size: str, done: measure.Run) -> Row:
    rows = count(size)
    return {
        "name": name,
        "size": size,
        "rows": rows,
        "wall_s": done.wall_s,
        "rows_per_s": rows / done.wall_s,
        "cpu_s": done.cpu_s,
        "peak_mb": done.peak_mb,
        "problem": done.problem,
    }


MEASUREMENTS = {each.__name__: each for each in (stages, score, notebook, imports, starts, dvc)}
"""By the name that `--only` takes."""
