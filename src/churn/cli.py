"""`churn STAGE|models|promote|…`: the command line. It parses, calls and prints."""

import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from churn.adapters.startup import prepare_process
from churn.errors import ChurnError

if TYPE_CHECKING:
    from churn.adapters.mlflow.registry import Registry

app = typer.Typer(
    name="churn",
    help="Customer churn, from raw rows to a promoted model. Run it in the project's root.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)

Number = Annotated[str, typer.Argument(metavar="V", help="A version's number, as `churn models` lists it.")]


@app.command()
def prepare() -> None:
    """Validate the raw rows by the contract, type them, split them by customer."""
    _run("prepare")


@app.command()
def featurize(
    full: Annotated[bool, typer.Option("--full", help="Write every row to the online store, not just the new ones.")] = False,
) -> None:
    """Typed rows → derived features → Feast's offline file, registry and online store."""
    _run("featurize", full=full)


@app.command()
def train() -> None:
    """Point-in-time frame → model and baseline → ONNX → a registered version, alias `candidate`."""
    _run("train")


@app.command()
def evaluate() -> None:
    """Candidate against baseline and champion → the gate → alias `production` moves, or a refusal with its reasons."""
    _run("evaluate")


@app.command()
def trial(
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="A key of `train`, of the named model's section, or MODEL.KEY."),
    ] = None,
) -> None:
    """Cross-validate one point: params.yaml with changed parameters. Prints its log loss and ROC-AUC; registers nothing."""
    from churn.pipeline import STAGES, tune

    scores = tune.trial(*STAGES["train"].inputs(), changes or [])
    print(" ".join(f"{name}={value:.6f}" for name, value in scores.items()))


@app.command()
def tune(
    model: Annotated[str, typer.Option(help="The model whose ranges are searched; else that of train.model.")] = "",
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials the study is to have; else tune.trials.")] = None,
) -> None:
    """Search hyperparameters with Optuna; a better point is written to params.yaml. Stopped, it goes on where it was."""
    from churn.pipeline import STAGES
    from churn.pipeline import tune as tuning

    print(tuning.run(*STAGES["train"].inputs(), model=model, trials=trials))


def _run(stage: str, **options: bool) -> None:
    from churn.pipeline import STAGES

    STAGES[stage].run(**options)


@app.command()
def ingest() -> None:
    """New labelled rows from CHURN_SOURCE and from the prediction log into data/raw."""
    from churn.pipeline import ingest as ingesting
    from churn.settings import load_settings

    print(f"{ingesting.run(load_settings())} new rows")


@app.command()
def init(  # noqa: PLR0913, PLR0917 - options of a command line
    location: Annotated[
        str, typer.Argument(metavar="TABLE", help="A CSV or Parquet file, a folder, s3://…, or a database's URL.")
    ],
    table: Annotated[str, typer.Option(help="The table of a database.")] = "customers",
    entity: Annotated[str, typer.Option(help="The column that identifies the customer.")] = "",
    timestamp: Annotated[str, typer.Option(help="The column of the row's time; none for one snapshot without a date.")] = "",
    label: Annotated[str, typer.Option(help="The column that says whether the customer churned.")] = "",
    positive: Annotated[str, typer.Option(help="The label's value that means churned.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Write without confirmation.")] = False,
) -> None:
    """Draft contract.py and features.py for a table of your own, and put the table into data/raw."""
    from churn.domain.reasons import one_line
    from churn.errors import ConfigError
    from churn.settings import load_settings

    try:
        from churn.adopt import init as adopting
        from churn.adopt.roles import Wanted
    except Exception as error:  # contract.py or features.py, which the project may have broken
        raise ConfigError(
            f"churn init: expected a contract.py and a features.py that run, got {one_line(error)}; `churn check` names the line"
        ) from error
    is_terminal = sys.stdin.isatty()
    wanted = Wanted(entity, timestamp, label, positive)
    plan = adopting.plan(location, load_settings(), table=table, wanted=wanted, ask=_ask if is_terminal else None)
    for line in adopting.described(plan):
        print(line)
    if not yes:
        if not is_terminal:
            raise ConfigError("churn init: expected --yes where there is no terminal, got none; read the draft, then give it")
        typer.confirm("Write this?", abort=True)
    for line in adopting.write(plan):
        print(line)


def _ask(option: str, question: str, likely: Sequence[str]) -> str:
    """The person's answer at the terminal."""
    shown = f" ({', '.join(likely[:8])})" if likely else ""
    answer: str = typer.prompt(f"--{option}: {question}{shown}", default=likely[0] if len(likely) == 1 else None)
    return answer


@app.command()
def check() -> None:
    """Every mistake of contract.py and features.py, alone and on the rows, one line each; exit code 1 if there is one."""
    from churn.adopt import check as checking
    from churn.settings import load_settings

    settings = load_settings()
    mistakes = checking.run(settings)
    for mistake in mistakes:
        print(mistake)
    if mistakes:
        raise typer.Exit(1)
    print(f"no mistakes: the contract and the features fit the rows of {checking.shown_source(settings)}")


@app.command()
def compact() -> None:
    """Merge the event log's parts of days that are over into one part a day; the watcher does so by itself."""
    from datetime import UTC, datetime, timedelta

    from churn.adapters.events import compaction
    from churn.adapters.events.log import open_sink
    from churn.settings import load_monitoring

    settings = load_monitoring()
    after = timedelta(seconds=settings.compact_after_s)
    print(compaction.compact(open_sink(settings.events), now=datetime.now(UTC), after=after))


@app.command()
def repro() -> None:
    """New rows of CHURN_SOURCE and CHURN_EVENTS, where set → `dvc repro` → DVC's remote, if CHURN_DVC_REMOTE is set."""
    from churn.adopt import check as checking

    checking.before_a_run()
    from churn.pipeline import retrain as retraining
    from churn.settings import load_settings

    print(retraining.reproduce(load_settings()))


@app.command()
def retrain() -> None:
    """What the log has learned since → data/raw → the pipeline → the gate. Trains nothing where there is nothing new."""
    from churn.pipeline import retrain as retraining
    from churn.settings import load_settings

    print(retraining.run(load_settings()))


@app.command()
def workspace(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the pipeline is to run.")],
    project: Annotated[Path, typer.Option(help="The project, which is only read.")] = Path(),
) -> None:
    """Lay the project out where it can be written to; what was made there stays. Rows too, unless CHURN_SOURCE is set."""
    from churn.pipeline.workspace import lay
    from churn.settings import load_settings

    lay(project, folder, rows=not load_settings().source)


@app.command()
def seed(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="A CSV or Parquet file, or a folder of them.")],
    bucket: Annotated[list[str] | None, typer.Option(help="A bucket to make; may be given again.")] = None,
) -> None:
    """Make buckets that are not there, and CHURN_SOURCE's table from the rows unless it is there."""
    from churn.pipeline import seed as seeding
    from churn.settings import load_settings

    seeding.run(load_settings(), rows, buckets=bucket or ())


@app.command()
def models() -> None:
    """List the registered versions: aliases, figures on the test rows, gate, dates."""
    from churn.pipeline.reports import table_of_versions

    print(table_of_versions(_registry().versions()))


@app.command()
def promote(version: Number) -> None:
    """Make a version production, whatever its gate said."""
    from churn.paths import PRODUCTION

    registry = _registry()
    champion = registry.of_alias(PRODUCTION)
    registry.promote(registry.version(version), over=champion, reason="by hand")
    print(f"version {version} is now {PRODUCTION}; it was {champion.number if champion else 'none'}")


@app.command()
def rollback() -> None:
    """Make the version production that the present one replaced."""
    left, restored = _registry().rollback()
    print(f"version {restored.number} is production again; {left.number} is not")


@app.command()
def lineage(version: Number) -> None:
    """What a version came from: code, data, parameters, lock file, feature service, figures."""
    from churn.pipeline.reports import lineage_of

    print(lineage_of(_registry().version(version)))


@app.command()
def card(version: Number) -> None:
    """A version's model card, in Markdown."""
    registry = _registry()
    print(registry.read_artifact(registry.version(version), "evaluation/model_card.md"))


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A CSV or Parquet file, or a folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .csv or .parquet.")],
) -> None:
    """Score a table of any size with the production model, in constant memory."""
    from tqdm import tqdm

    from churn.adapters import sources
    from churn.pipeline import score as scoring

    model = scoring.production(_registry())
    with tqdm(total=sources.count(source), unit=" rows", unit_scale=True, desc=f"version {model.version}", disable=None) as bar:
        rows = scoring.score(source, out, model, on_rows=bar.update)
    print(f"{rows} rows scored by version {model.version} into {out}")


def _registry() -> "Registry":
    from churn.adapters.mlflow.registry import Registry
    from churn.settings import load_settings

    return Registry(load_settings())


def main() -> None:
    """Run the command line; a `ChurnError` is one line on standard error and exit code 1."""
    run(app)


def run(command: typer.Typer) -> None:
    """Run a command line as `main` does."""
    prepare_process()
    # Importing the libraries makes millions of objects: at the default threshold, collecting takes a sixth of that time.
    gc.set_threshold(100_000, 50, 50)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("churn").setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it announces each retry; the error says it at the end
    try:
        command()
    except ChurnError as error:
        print(f"churn: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
