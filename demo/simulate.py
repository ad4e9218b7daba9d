"""`python -m demo.simulate OUT`: months of simulated customers as Parquet parts, at any size in constant memory."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from churn import cli
from churn.adapters.files import atomic_path
from churn.errors import ConfigError
from demo.reality import Scenario, learn
from demo.world import World

__all__ = ["Scenario", "simulate"]

log = logging.getLogger(__name__)

CHUNK = 100_000
"""Customers who are played at a time: about 100 MB."""


def simulate(  # noqa: PLR0913 - one keyword per option of the command
    out: Path,
    *,
    customers: int,
    months: int,
    seed: int,
    scenario: Scenario = Scenario.NONE,
    scenario_month: int = 3,
    on_rows: Callable[[int], None] = lambda _: None,
) -> int:
    """Play `customers` for `months` and write `out/part-<chunk>-<month>.parquet`; returns the number of rows written.

    The first month is the one after the shipped file's; `scenario` begins with month `scenario_month`, counted from 1.
    Chunks of `CHUNK` customers are independent, each with its own stream of the seed: the same arguments give the same files.
    `on_rows` is called with the number of rows of every part.

    Raises:
        ConfigError: a number is out of range, the scenario begins after the last month, or `out` holds parts already.
        ContractError: the contract is not Telco's, or data/raw/customers.csv breaks it.
        SourceError: data/raw/customers.csv cannot be read.
    """
    _check(customers=customers, months=months, seed=seed, scenario=scenario, scenario_month=scenario_month)
    _check_folder(out)
    from pyarrow import parquet

    reality = learn()
    rows = 0
    streams = np.random.SeedSequence(seed).spawn(-(-customers // CHUNK))
    for chunk, stream in enumerate(streams):
        size = min(CHUNK, customers - chunk * CHUNK)
        world = World(size, stream, scenario, scenario_month, chunk=chunk, reality=reality)
        for month in range(1, months + 1):
            table = world.step()
            with atomic_path(out / f"part-{chunk:04d}-{month:03d}.parquet") as temporary:
                parquet.write_table(table, temporary)
            rows += table.num_rows
            on_rows(table.num_rows)
    log.info("simulate: %d rows of %d customers in %d months, %s, to %s", rows, customers, months, scenario, out)
    return rows


def _check(*, customers: int, months: int, seed: int, scenario: Scenario, scenario_month: int) -> None:
    least = {"customers": (customers, 1), "months": (months, 1), "scenario_month": (scenario_month, 1), "seed": (seed, 0)}
    for name, (value, bound) in least.items():
        if value < bound:
            raise ConfigError(f"simulate: {name} = {value}: must be at least {bound}")
    if scenario is not Scenario.NONE and scenario_month > months:
        raise ConfigError(
            f"simulate: scenario_month = {scenario_month}: {scenario} would begin after the last of {months} months; raise months"
        )


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; simulate writes parts into a folder")
    if parts := sorted(out.glob("part-*.parquet")):
        raise ConfigError(f"{out}: holds parts already (first: {parts[0].name}); remove them or choose another folder")


def scenario_of(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Scenario(name)
    except ValueError as error:
        raise ConfigError(f"simulate: scenario = {name!r}: is none of {', '.join(Scenario)}") from error


def main(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write Parquet parts into.")],
    customers: Annotated[int, typer.Option(help="How many customers the world begins with.")] = 7043,
    months: Annotated[int, typer.Option(help="How many months it plays.")] = 6,
    seed: Annotated[int, typer.Option(help="The same seed plays the same world.")] = 7,
    scenario: Annotated[str, typer.Option(help="none, price-rise, surge or concept.")] = "none",
    scenario_month: Annotated[int, typer.Option(help="The month from which the scenario shows.")] = 3,
) -> None:
    """Play months forward from the real customers, with true labels."""
    from tqdm import tqdm

    with tqdm(total=customers * months, unit=" rows", unit_scale=True, desc=scenario, disable=None) as bar:
        rows = simulate(
            out,
            customers=customers,
            months=months,
            seed=seed,
            scenario=scenario_of(scenario),
            scenario_month=scenario_month,
            on_rows=bar.update,
        )
    print(f"{rows} rows of {months} months in {out}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    cli.run(app)
