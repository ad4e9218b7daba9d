"""Who is measured: our server in an environment of its own, and its peers, on the same model and the same customers."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import measure
import servers
from projects import ROOT, BenchmarkError, Workshop
from servers import Command, Server

from churn import paths
from churn.contract import BY_NAME, ENTITY, RAW_FEATURES

HERE = Path(__file__).parent
OURS, OURS_REDIS, BARE, PLAIN, MLFLOW, BENTO = "ours", "ours, Redis", "bare ASGI", "FastAPI + pickle", "mlflow", "BentoML"
BY_ASGI, NO_LOG = "ours, by ASGI", "ours, no log"
SETTINGS = {BY_ASGI: {"CHURN_FAST_PATH": "false"}, NO_LOG: {"CHURN_LOG_CAPACITY_ROWS": "0"}}
"""Our server without its fast path, and without its prediction log: what each does to speed and latency."""
BY_ID = "/predict/by-id"
PEERS = (BARE, PLAIN, MLFLOW, BENTO)

SINGLES, BATCHES, BATCH = 100, 10, 100
"""Different requests of a case, in turns; and the customers of a batch."""

FEW, SOME, MANY = 1, 8, 64
"""Connections."""

SAME = 1e-5
"""How far probabilities of one model may differ: ONNX computes in single precision."""
SIMILAR = 0.05
"""… and on average those of the notebook's model, which is fitted on other encodings of all the rows."""


@dataclass(frozen=True)
class Case:
    """One kind of request to one server; `rows` customers each. `probabilities` reads them from an answer."""

    server: str
    name: str
    path: str
    bodies: list[bytes]
    rows: int
    probabilities: Callable[[Any], list[float]]
    tolerance: float = SAME

    @property
    def connections(self) -> tuple[int, ...]:
        """How many at once."""
        return (FEW, SOME, MANY)


@dataclass(frozen=True)
class Contest:
    """A trained project with what the servers are started from."""

    workshop: Workshop

    @cached_property
    def project(self) -> Path:
        """The project, with the server's code in it."""
        shutil.copytree(
            ROOT / "serving", self.workshop.trained / "serving", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
        return self.workshop.trained

    @cached_property
    def python(self) -> Path:
        """The interpreter of an environment that holds the serving group alone."""
        folder = self.workshop.folder / "serve-environment"
        uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".cache/uv/bin/uv")
        options = ["--frozen", "--quiet", "--no-default-groups", "--group", "serve"]
        self.workshop.must(["env", f"UV_PROJECT_ENVIRONMENT={folder}", uv, "sync", *options], ROOT)
        return folder / "bin" / "python"

    @cached_property
    def pipeline(self) -> Path:
        """The notebook's pipeline, pickled."""
        out = self.workshop.folder / "pipeline.pickle"
        self.workshop.must([sys.executable, str(HERE / "notebook.py"), "fit", str(out), str(paths.TRAIN_METRICS)], self.project)
        return out

    @cached_property
    def customers(self) -> list[dict[str, Any]]:
        """Customers of the test part, as `POST /predict` takes them."""
        import pyarrow.parquet as pq

        names = [ENTITY, *(each.name for each in RAW_FEATURES)]
        return list(pq.read_table(self.project / paths.TEST_ROWS, columns=names).slice(0, BATCHES * BATCH).to_pylist())

    @cached_property
    def raw_customers(self) -> list[dict[str, Any]]:
        """The same customers as the raw file spells them."""
        with (self.project / paths.RAW / "customers.csv").open(newline="") as lines:
            by_id = {row[BY_NAME[ENTITY].sources[0]]: row for row in csv.DictReader(lines)}
        return [_numbered(by_id[each[ENTITY]]) for each in self.customers]

    def command(self, name: str, redis: str = "") -> Command:
        """How the server of that name is started, with one worker."""
        ours = (str(self.python), "-m", "serving")
        uvicorn = ("-m", "uvicorn", "--host", servers.HOST, "--port", "{port}", "--no-access-log")
        limit = ("--loop", "uvloop", "--http", "httptools", "--no-server-header", "--no-proxy-headers")
        binaries = Path(sys.executable).parent
        mlflow = ("models", "serve", "-m", "models:/churn@production", "--env-manager", "local", "-w", "1", "-p", "{port}")
        environment = {"PYTHONPATH": str(HERE)}
        match name:
            case _ if name in {OURS, OURS_REDIS, *SETTINGS}:
                environment = {"CHURN_PORT": "{port}", "PYTHONPATH": "src", **SETTINGS.get(name, {})}
                environment |= {"CHURN_ONLINE_STORE": redis} if redis else {}
                return Command(name, ours, self.project, "/readyz", environment)
            case _ if name == BARE:
                environment["BARE_ANSWERS"] = str(self._answers)
                return Command(name, (str(self.python), *uvicorn, *limit, "peers.bare:app"), HERE, "/single", environment)
            case _ if name == PLAIN:
                environment["PIPELINE"] = str(self.pipeline)
                return Command(name, (sys.executable, *uvicorn, "peers.plain:app"), HERE, "/openapi.json", environment)
            case _ if name == MLFLOW:
                # Without uvicorn's access log, as all servers here.
                environment = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "UVICORN_ACCESS_LOG": "false"}
                return Command(name, (str(binaries / "mlflow"), *mlflow), self.project, "/ping", environment)
            case _:
                home = str(self.workshop.folder / "bentoml")
                environment |= {"PIPELINE": str(self.pipeline), "BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}
                words = (str(binaries / "bentoml"), "serve", "peers.bento:Churn", "--host", servers.HOST, "--port", "{port}")
                return Command(name, words, HERE, "/readyz", environment)

    @property
    def _answers(self) -> Path:
        folder = self.workshop.folder / "answers"
        folder.mkdir(exist_ok=True)
        for name in ("single", "batch"):
            (folder / f"{name}.json").touch()
        return folder

    def log(self, name: str) -> Path:
        """Where the server's output goes."""
        return self.workshop.folder / f"{name.replace(' ', '-')}.log"

    @contextmanager
    def redis(self) -> Iterator[str]:
        """The URL of a Redis server of its own, filled by `churn featurize --full`."""
        port = servers.free_port()
        url = f"redis://{servers.HOST}:{port}/0"
        words = ("redis-server", "--bind", servers.HOST, "--port", str(port), "--save", "", "--appendonly", "no")
        with servers.background(words, self.workshop.folder, port):
            self.workshop.must(["env", f"CHURN_ONLINE_STORE={url}", *measure.churn("featurize", "--full")], self.project)
            yield url

    @contextmanager
    def all_servers(self) -> Iterator[dict[str, Server]]:
        """All servers, running at the same time: an idle server uses almost no CPU."""
        with ExitStack() as stack:
            url = stack.enter_context(self.redis())
            found = {OURS: stack.enter_context(servers.running(self.command(OURS), self.log(OURS)))}
            for name, body in (("single", _ours(self.customers[:1])), ("batch", _ours(self.customers[:BATCH]))):
                (self._answers / f"{name}.json").write_bytes(found[OURS].post("/predict", body))
            for name in (OURS_REDIS, *SETTINGS, *PEERS):
                command = self.command(name, url if name == OURS_REDIS else "")
                found[name] = stack.enter_context(servers.running(command, self.log(name)))
            yield found

    def cases(self) -> list[Case]:
        """Every kind of request; those of one name are of the same customers, our own first."""
        ids = [[each[ENTITY] for each in group] for group in _groups(self.customers, "single")]
        by_id = [_json({"customer_ids": each}) for each in ids]
        singles = [_ours(each) for each in _groups(self.customers, "single")]
        found = [self._case(peer, name) for name in ("single", "batch") for peer in (OURS, *SETTINGS, *PEERS)]
        found += [
            Case(server, name, BY_ID, by_id, 1, _predicted)
            for server, name in ((OURS, "by id, SQLite"), (OURS_REDIS, "by id, Redis"))
        ]
        return [*found, Case(OURS, "explain", "/explain", singles, 1, lambda answer: _of(answer["explanations"]))]

    def _case(self, server: str, name: str) -> Case:
        given, raw = _groups(self.customers, name), _groups(self.raw_customers, name)
        rows = len(given[0])
        match server:
            case _ if server in {OURS, *SETTINGS}:
                return Case(server, name, "/predict", list(map(_ours, given)), rows, _predicted)
            case _ if server == BARE:
                # It returns one constant.
                return Case(server, name, f"/{name}", list(map(_ours, given)), rows, _predicted, tolerance=1)
            case _ if server == MLFLOW:
                bodies = [_json({"dataframe_records": [_without_id(each) for each in group]}) for group in given]
                return Case(server, name, "/invocations", bodies, rows, _predicted)
            case _:
                read = _of if server == BENTO else _predicted
                return Case(server, name, "/predict", [_json({"customers": each}) for each in raw], rows, read, tolerance=SIMILAR)

    def check(self, found: dict[str, Server], cases: list[Case]) -> None:
        """Send every request to every server once, so that no failing server is measured.

        Raises:
            BenchmarkError: an answer is not 200, or its probabilities are not ours.
        """
        ours: dict[int, list[float]] = {}
        for case in cases:
            answers = [found[case.server].post(case.path, body) for body in case.bodies]
            said = [each for answer in answers for each in case.probabilities(json.loads(answer))]
            expected = ours.setdefault(case.rows, said)
            apart = [abs(one - other) for one, other in zip(said, expected, strict=True)]
            # One model: the largest difference; another one: that on average.
            difference = max(apart) if case.tolerance == SAME else sum(apart) / len(apart)
            if difference > case.tolerance:
                raise BenchmarkError(f"{case.server}, {case.name}: its probabilities differ from ours by {difference:.3g}")


def _groups(customers: list[dict[str, Any]], name: str) -> list[list[dict[str, Any]]]:
    size, count = (1, SINGLES) if name == "single" else (BATCH, BATCHES)
    return [customers[start * size : (start + 1) * size] for start in range(count)]


def _numbered(row: dict[str, str]) -> dict[str, Any]:
    """The raw file's row with numbers for what pandas reads as numbers, and None for a blank."""
    charges = {name: float(row[name]) if row[name].strip() else None for name in ("MonthlyCharges", "TotalCharges")}
    return {**row, **charges, **{name: int(row[name]) for name in ("SeniorCitizen", "tenure")}}


def _without_id(customer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in customer.items() if name != ENTITY}


def _ours(customers: list[dict[str, Any]]) -> bytes:
    return _json({"customers": customers})


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _predicted(answer: Any) -> list[float]:
    return _of(answer["predictions"])


def _of(rows: list[dict[str, Any]]) -> list[float]:
    return [row["churn_probability"] for row in rows]
