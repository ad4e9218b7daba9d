"""Write the generated parts of the documentation: between `<!-- render: NAME -->` and `<!-- end -->`, and docs/images/.

`make render` runs it, and `make repro` without the images; a test proves that what is committed is current.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from churn import paths
from churn.contract import COLUMNS, RULES, Role
from churn.features import FEATURES
from churn.pipeline import STAGES

ROOT = Path(__file__).parents[1]
PICTURES = ("roc", "precision_recall", "calibration", "lift", "confusion"), ("importance", "loss")


def columns() -> str:
    """The contract as a table."""
    lines = ["| column | raw file's name | role | values | description |", "|---|---|---|---|---|"]
    for each in COLUMNS:
        role = "" if each.role is Role.FEATURE else f"**{each.role}**"
        values = f"{each.kind}{'; may be blank' if each.nullable else ''}"
        lines.append(f"| `{each.name}` | {' and '.join(each.sources)} | {role} | {values} | {each.description} |")
    return "\n".join(lines)


def rules() -> str:
    """What must hold between columns, as a table."""
    lines = ["| rule | what must hold | for at least |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{each.name}` | {each.description} | {each.mostly:.0%} of the rows |" for each in RULES])


def derived() -> str:
    """The derived features as a table."""
    lines = ["| feature | values | description |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{each.name}` | {each.kind} | {each.description} |" for each in FEATURES if each.derive])


def raw_files() -> str:
    """The files of data/raw as a table, without the parts that `churn ingest` appends."""
    lines = ["| file | bytes | rows | columns | sha256 |", "|---|---:|---:|---:|---|"]
    for path in sorted((ROOT / paths.RAW).glob("[!._]*")):
        if path.suffix in {".csv", ".parquet"} and not path.name.startswith("ingested-"):
            content = path.read_bytes()
            table = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
            rows, width = table.shape
            digest = hashlib.sha256(content).hexdigest()
            lines.append(f"| `{paths.RAW.name}/{path.name}` | {len(content):,} | {rows:,} | {width} | `{digest}` |")
    return "\n".join(lines)


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


def benchmarks() -> dict[str, Callable[[], str]]:
    """The parts that show figures of the benchmarks."""
    sys.path.append(str(ROOT / "benchmarks"))
    from pages import PARTS

    return PARTS


PARTS: dict[str, Callable[[], str]] = {
    **{part.__name__: part for part in (columns, rules, derived, raw_files, pipeline, figures, quality)},
    **benchmarks(),
}


def rendered(text: str) -> str:
    """The text with every marked part rewritten, and the figures in what it quotes of `make repro`.

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


def main(*, images: bool = True) -> None:
    """Render every document, and with `images` copy the last run's plots to docs/images."""
    for page in documents():
        page.write_text(rendered(page.read_text()))
    if not images:
        return
    for folder, names in zip((paths.EVALUATE_REPORTS, paths.TRAIN_REPORTS), PICTURES, strict=True):
        for name in names:
            if (picture := ROOT / folder / f"{name}.png").exists():
                shutil.copy(picture, ROOT / "docs" / "images")


if __name__ == "__main__":
    main(images="--without-images" not in sys.argv)
