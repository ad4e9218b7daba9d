"""`python -m demo [--scenario S] [--folder F]`: pipeline → server → months of traffic → drift → retraining → new version.

The shipped customers have a world of their own (price-rise, surge, concept, bad-data, none). Any other table gets one made of its
rows, where `raise`, `surge` or `flip` happens to the column that says most of leaving, or to the one that the option names:
`--raise monthly_charges=1.2`, `--surge term=Month-to-month`, `--flip tenure_months`.

With `--attach URL --records FOLDER` the system runs already, elsewhere, with its time scaled by what `--settings` prints.

Everything is real: the processes, the clocks, the log, the registry. Only time is scaled: a month lasts `MONTH_S` seconds, and
every duration of the watcher with it. The month's clock waits while a retraining runs, as a month is long beside it.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import requests

from churn.adapters.startup import prepare_process
from churn.contract import BY_NAME
from churn.errors import ChurnError, ContractError
from churn.paths import EVALUATE_REPORTS
from churn.settings import load_settings
from demo import story, table_world
from demo.company import Company
from demo.director import Director, stage_teller, wait_for
from demo.page import write_page
from demo.reality import TELCO, Scenario
from demo.table import table_of
from demo.table_world import Table, TableWorld
from demo.workspace import DemoError, differences, free_port, made
from demo.world import World

MONTH_S = 12.0
CUSTOMERS = 7043
SEED = 7
DRIFT_MONTH = 3
RECORDS = Path("data/monitoring")
READY_S = 60


@dataclass(frozen=True)
class Play:
    """A scenario: the world, what happens in it, which months bill in cents, and whether a new and better version is expected."""

    world: Callable[[], World | TableWorld]
    what: str
    bad_months: frozenset[int] = frozenset()
    retrains: bool = True
    better: bool = True


def _telco(scenario: Scenario) -> Callable[[], World]:
    return lambda: World(CUSTOMERS, SEED, scenario, DRIFT_MONTH)


TELCO_PLAYS = {
    "price-rise": Play(_telco(Scenario.PRICE_RISE), "prices rise by a fifth"),
    "concept": Play(_telco(Scenario.CONCEPT), "leaving depends on other things"),
    "surge": Play(_telco(Scenario.SURGE), "many new customers join"),
    "none": Play(_telco(Scenario.NONE), "nothing changes", retrains=False),
    "bad-data": Play(
        _telco(Scenario.PRICE_RISE), "a part of the data comes in cents", frozenset(range(DRIFT_MONTH, 99)), retrains=False
    ),
}
IS_TELCO = all(name in BY_NAME for name in TELCO)


def scenarios() -> list[str]:
    """The scenarios of the contract's table."""
    return list(TELCO_PLAYS) if IS_TELCO else list(table_world.Kind)


def plan_of(wanted: argparse.Namespace) -> Play:
    """The scenario that the options name, or the default one.

    Raises:
        ContractError: the table or the contract does not allow it.
        SourceError: the rows cannot be read.
    """
    change = _change(wanted)
    if IS_TELCO and change is None:
        return TELCO_PLAYS["price-rise" if wanted.scenario == "default" else wanted.scenario]
    table = Table()
    if change is None:
        change = (
            _default(table) if wanted.scenario == "default" else table_world.proposed(table, table_world.Kind(wanted.scenario))
        )
    elif not change.column or (change.kind is table_world.Kind.SURGE and not change.value):
        change = table_world.proposed(table, change.kind)
    table_world.checked(change, table)
    if change.kind is not table_world.Kind.NONE:
        table.require_predictable()
    return Play(
        lambda: TableWorld(CUSTOMERS, SEED, change, DRIFT_MONTH, table=table),
        str(change),
        retrains=change.kind is not table_world.Kind.NONE,
        better=change.kind in {table_world.Kind.RAISE, table_world.Kind.FLIP},
    )


def _default(table: Table) -> table_world.Change:
    """A raise, or a flip where no number can be raised."""
    try:
        return table_world.proposed(table, table_world.Kind.RAISE)
    except ContractError:
        return table_world.proposed(table, table_world.Kind.FLIP)


def _change(wanted: argparse.Namespace) -> table_world.Change | None:
    for kind in (table_world.Kind.RAISE, table_world.Kind.SURGE, table_world.Kind.FLIP):
        if (text := getattr(wanted, kind)) is not None:
            column, _, value = text.partition("=")
            return table_world.Change(kind, column, value or ("1.2" if kind is table_world.Kind.RAISE else ""))
    return None


def scaled(month_s: float) -> dict[str, str]:
    """The environment that scales time to months of that many seconds; everything else keeps its default but for one limit.

    The world's new customers are in no source and in no online store: a quarter of the first month's, half of the fourth's.
    """
    durations = {
        "INTERVAL": month_s / 2,
        "WINDOW": month_s,
        "LONG_WINDOW": 2 * month_s,
        "PERFORMANCE_WINDOW": 2 * month_s,
        "LABEL_HORIZON": month_s,
        "COOLDOWN": 3 * month_s,
        "BUDGET": 12 * month_s,
        "POLL": 1,
        "LOG_FLUSH": 0.5,
        "DRAIN": 0,
    }
    return {f"CHURN_{name}_S": f"{value:g}" for name, value in durations.items()} | {"CHURN_MAX_UNKNOWN_SHARE": "1"}


def main() -> int:
    """Play, print the table, write the page; 1 if the loop did not end as the scenario promises."""
    prepare_process()
    wanted = _arguments()
    warnings.simplefilter("ignore")
    if wanted.settings:
        print("\n".join(f"{name}={value}" for name, value in scaled(wanted.month_s).items()))
        return 0
    try:
        if wanted.attach:
            return attach(wanted)
        return play(plan_of(wanted), wanted.folder, wanted.month_s)
    except (ChurnError, requests.RequestException) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def play(plan: Play, folder: Path, month_s: float) -> int:
    """One scenario from an empty workspace to the page; returns the exit code."""
    tell, world = _clocked(), plan.world()
    if changed := differences():
        tell(f"not as committed, and played as it is here: {', '.join(changed)}")
    port, monitor_port = free_port(), free_port()
    places = {"CHURN_PORT": str(port), "CHURN_MONITOR_PORT": str(monitor_port), "CHURN_TRIGGER": "command"}
    workspace = made(folder.absolute(), places | scaled(month_s))
    tell(f"from month {DRIFT_MONTH} on {plan.what}; a month lasts {month_s:g} s; the workspace is {folder}")
    with ExitStack() as running:
        watcher = running.enter_context(workspace.process(sys.executable, "-m", "monitoring", log="watcher.log"))
        tell("pipeline: raw rows → version 1")
        workspace.command("dvc", "repro", log=workspace.folder / "pipeline.log", on_line=stage_teller(tell))
        _require_promoted(workspace.folder)
        server = running.enter_context(workspace.process(sys.executable, "-m", "serving", log="server.log"))
        company = Company(f"http://127.0.0.1:{port}", world, plan.bad_months)

        def is_ready() -> bool:
            workspace.require_running("watcher", watcher)
            workspace.require_running("server", server)
            return _serves(company)

        wait_for(is_ready, READY_S, "the server to be ready")
        tell(f"serving version {company.serving()} on {company.url}, watching on http://127.0.0.1:{monitor_port}")
        records = workspace.folder / RECORDS
        failure = _directed(Director(records, company, month_s, tell), company, plan)
        for name, process in (("server", server), ("watcher", watcher)):
            if process.poll() is not None:
                failure = f"the {name} ended by itself; its log is {workspace.folder}/{name}.log"
        tell("the months are over: comparing the versions on the final labels")
        found = story.read(workspace.settings, records, plan.what, company.months, timedelta(seconds=month_s))
    return _told(found, plan, workspace.folder, tell, failure, changed)


def _require_promoted(folder: Path) -> None:
    decision = json.loads((folder / EVALUATE_REPORTS / "decision.json").read_text())
    if not decision["promoted"]:
        changed = differences()
        hint = f"; not as committed: {', '.join(changed)} (`git stash` plays the commit)" if changed else ""
        raise DemoError(f"failed: version 1 was not promoted, there is nothing to serve: {decision['reason']}{hint}")


def attach(wanted: argparse.Namespace) -> int:
    """One scenario with a system that runs elsewhere; returns the exit code."""
    tell = _clocked()
    settings, plan = load_settings(), plan_of(wanted)
    if settings.label_horizon_s != wanted.month_s:
        raise DemoError(
            f"environment: CHURN_LABEL_HORIZON_S = {settings.label_horizon_s}: not the {wanted.month_s:g} s that a month lasts; "
            "start the system with what `python -m demo --settings` prints, as `make demo-compose` does"
        )
    keys = _key(wanted.key_file), _key(wanted.outcomes_key_file)
    company = Company(wanted.attach, plan.world(), plan.bad_months, *keys)
    wait_for(lambda: _serves(company), READY_S, "the server to be ready")
    tell(f"from month {DRIFT_MONTH} on {plan.what}; a month lasts {wanted.month_s:g} s")
    tell(f"version {company.serving()} serves on {company.url}")
    failure = _directed(Director(wanted.records, company, wanted.month_s, tell), company, plan)
    tell("the months are over: comparing the versions on the final labels")
    found = story.read(settings, wanted.records, plan.what, company.months, timedelta(seconds=wanted.month_s))
    return _told(found, plan, wanted.folder, tell, failure)


def _directed(director: Director, company: Company, plan: Play) -> str:
    """Play the months; returns why they could not be played to their end. Empty: they were.

    Raises:
        DemoError: not one was played: there is nothing to tell of.
    """
    try:
        director.play(retrains=plan.retrains)
    except (ChurnError, requests.RequestException) as error:
        if not company.months:
            raise DemoError(str(error)) from error
        return str(error)
    return ""


def _told(
    found: story.Story, plan: Play, folder: Path, tell: Callable[[str], None], failure: str, changed: Sequence[str] = ()
) -> int:
    """Print the table, write the page, and say why the demonstration failed, if it did; returns the exit code."""
    failure = failure or story.failure(found, retrains=plan.retrains, better=plan.better)
    if failure and changed:
        failure += f"; not as committed: {', '.join(changed)} (`git stash` plays the commit)"
    page = folder / "demo.html"
    write_page(found, page, failure)
    print(table_of(found))
    tell(f"the page: {os.path.relpath(page)}")
    if failure:
        print(f"demo: failed: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _clocked() -> Callable[[str], None]:
    """Prints lines with the seconds since now."""
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:4.0f} s  {text}", flush=True)

    return tell


def _key(file: Path | None) -> str:
    return file.read_text().strip() if file else ""


def _serves(company: Company) -> bool:
    try:
        return bool(company.serving())
    except requests.RequestException:
        return False


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", choices=["default", *scenarios()], default="default")
    parser.add_argument("--raise", metavar="COLUMN=FACTOR", nargs="?", const="", help="a number rises by that factor")
    parser.add_argument("--surge", metavar="COLUMN=VALUE", nargs="?", const="", help="more customers with that value join")
    parser.add_argument("--flip", metavar="COLUMN", nargs="?", const="", help="the effect of a column turns round")
    parser.add_argument("--folder", type=Path, default=Path("data/demo"))
    parser.add_argument("--month-s", type=float, default=MONTH_S)
    parser.add_argument("--attach", metavar="URL", help="a server that runs already")
    parser.add_argument("--key-file", type=Path, help="with --attach: a file with the API key that may predict")
    parser.add_argument("--outcomes-key-file", type=Path, help="with --attach: a file with the API key that may report outcomes")
    parser.add_argument("--records", type=Path, help="with --attach: the folder of the watcher's records", default=RECORDS)
    parser.add_argument("--settings", action="store_true", help="print the environment that scales time, and end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
