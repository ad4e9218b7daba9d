"""Projects to measure in: a temporary folder with the pipeline's files, and simulated rows of any size."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import measure
import pyarrow as pa

from churn import paths
from churn.adapters.origins import ORIGIN, SOURCE
from churn.pipeline import STAGES

ROOT = Path(__file__).parents[1]
SHIPPED = "7k"
MONTHS = 10
CUSTOMERS = {"100k": 10_000, "1m": 100_000, "10m": 1_000_000}
"""Size → how many customers are played for `MONTHS` months; `SHIPPED` is the shipped table itself."""


class BenchmarkError(Exception):
    """What a measurement needs could not be made."""


@dataclass(frozen=True)
class Workshop:
    """The folder that all projects and rows of one benchmark are made in."""

    folder: Path
    timeout_s: float

    @cached_property
    def trained(self) -> Path:
        """A project with the shipped rows, run through every stage."""
        project = self.project(SHIPPED)
        for stage in STAGES:
            self.must(measure.churn(stage), project)
        return project

    def project(self, size: str, name: str = "") -> Path:
        """A fresh project with the rows of that size in data/raw."""
        project = self.folder / (name or f"project-{size}")
        raw = project / paths.RAW
        raw.parent.mkdir(parents=True)
        for each in (paths.PARAMS, paths.LOCK, Path("dvc.yaml")):
            shutil.copy(ROOT / each, project)
        shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
        if size == SHIPPED:
            raw.mkdir()
            shutil.copy(ROOT / paths.RAW / "customers.csv", raw)
        else:
            raw.symlink_to(self.rows(size))
        return project

    def rows(self, size: str) -> Path:
        """A folder or file with that many rows: the shipped table, or Parquet parts of simulated months."""
        if size == SHIPPED:
            return ROOT / paths.RAW / "customers.csv"
        folder = self.folder / f"rows-{size}"
        if not folder.exists():
            command = measure.module("demo.simulate", str(folder), "--customers", str(CUSTOMERS[size]), "--months", str(MONTHS))
            self.must(command, ROOT)
        return folder

    def as_exported(self, size: str) -> Path:
        """The simulated rows in one Parquet file of texts and numbers, spelled as the raw file does."""
        import pyarrow.parquet as pq

        file = self.folder / f"exported-{size}.parquet"
        if not file.exists():
            parts = sorted(self.rows(size).glob("*.parquet"))
            with pq.ParquetWriter(file, _exported(parts[0]).schema) as writer:
                for part in parts:
                    writer.write_table(_exported(part))
        return file

    def prepared(self, size: str) -> Path:
        """A project with simulated rows as `prepare` leaves them, without running it: it holds all rows in memory."""
        import pyarrow.parquet as pq

        project = self.project(size, f"prepared-{size}")
        *train, test = sorted(self.rows(size).glob("*.parquet"))
        for path, parts in ((paths.TRAIN_ROWS, train), (paths.TEST_ROWS, [test])):
            (project / path).parent.mkdir(exist_ok=True)
            schema = pq.read_schema(test).append(pa.field(ORIGIN, pa.string()))
            with pq.ParquetWriter(project / path, schema) as writer:
                for part in parts:
                    table = pq.read_table(part)
                    writer.write_table(table.append_column(schema.field(ORIGIN), pa.repeat(SOURCE, len(table))))
        return project

    def must(self, command: list[str], cwd: Path) -> measure.Run:
        """Run what the measurements need.

        Raises:
            BenchmarkError: it failed or took too long.
        """
        done = measure.run(command, cwd=cwd, timeout_s=self.timeout_s)
        if done.problem:
            raise BenchmarkError(f"{' '.join(command[2:])}: {done.problem}\n{done.err[-2000:]}")
        return done


def count(size: str) -> int:
    """About how many rows a size has."""
    return 7043 if size == SHIPPED else CUSTOMERS[size] * MONTHS


def _exported(part: Path) -> pa.Table:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from churn.contract import BY_NAME, Category, Flag

    table = pq.read_table(part)
    columns = {}
    for name in table.column_names:
        column, values = BY_NAME[name], table[name]
        match column.kind:
            case Category():
                values = values.cast(pa.string())
            case Flag(yes, no):
                values = pc.if_else(values, yes, no)
                values = values.cast(pa.int64()) if yes.isdigit() else values
        columns[column.sources[0]] = values
    return pa.table(columns)
