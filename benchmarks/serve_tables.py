"""The tables of the server's benchmark, in Markdown."""

from collections.abc import Callable

from bench_pipeline import table
from measurements import Row

SECONDS, ROUNDS = 5.0, 3
"""Of each case: with less the figures are not to be quoted."""


def how_text(how: Row) -> str:
    """How it was measured, with whose versions."""
    versions = ", ".join(f"{name} {number}" for name, number in (how["libraries"] | {"wrk": how["wrk"]}).items())
    lasted = f"{how['rounds']} × {how['seconds']:g} s for each case and number of connections"
    quick = "**A quick run, not to be quoted.** " if how["rounds"] < ROUNDS or how["seconds"] < SECONDS else ""
    return f"{quick}{lasted}; {how['cores']} cores, {how['architecture']}, Python {how['python']}; {versions}."


def start_table(rows: list[Row]) -> str:
    """Cold starts, memory, and the size of the environment."""
    head = ("server", "start to ready, s", "memory, MB", "environment, MB", "packages")
    keys = ("environment_mb", "packages")
    cells = [
        (row["server"], f"{row['ready_s']:.2f}", f"{row['rss_mb']:,.0f}", *(f"{row[key]:,.0f}" for key in keys if key in row))
        for row in rows
    ]
    return table(head, cells)


def load_table(rows: list[Row]) -> str:
    """Speed, latency and processor time by case, server and connections."""
    head = ("request", "server", "connections", "requests/s", "rows/s", "p50, ms", "p99, ms", "CPU, µs/request", "failed")
    cells = [
        (
            *(row["case"], row["server"], str(row["connections"])),
            *(f"{row[key]:,.0f}" for key in ("requests_per_s", "rows_per_s")),
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms")),
            *(f"{row['cpu_us']:,.0f}", _failures(row)),
        )
        for row in sorted(rows, key=lambda row: list(dict.fromkeys(each["case"] for each in rows)).index(row["case"]))
    ]
    return table(head, cells)


def _failures(row: Row) -> str:
    """Nothing, or the share that was refused or got no answer; the percentiles are then of quick refusals too."""
    failed = row["refused"] + row["broken"]
    return f"{failed / max(row['requests'] + row['broken'], 1):.1%}" if failed else ""


RATIOS = {"speed": "rows/s", "cpu": "rows per second of CPU", "p99": "p99"}


def ratios_table(rows: list[Row]) -> str:
    """How many times as many rows, by time and by processor time, and how many times the p99, where it was measured."""
    shown = {key: label for key, label in RATIOS.items() if all(key in row for row in rows)}
    cells = [
        (row["name"], str(row["connections"]), *(f"{row[key]:.2f} ×" for key in shown), "" if row["clean"] else "yes")
        for row in rows
    ]
    return table(("ours", "connections", *shown.values(), "with failures"), cells)


def memory_table(rows: list[Row]) -> str:
    """Memory before and after the load."""
    cells = [(row["server"], f"{row['started_mb']:,.0f}", f"{row['loaded_mb']:,.0f}") for row in rows]
    return table(("server", "before the load, MB", "after, MB"), cells)


def reader_table(rows: list[Row]) -> str:
    """The p50 of both readers, and of a bare round trip, by the number of customers."""
    names = ("feast_ms", "ours_ms", "ping_ms")
    cells = [(str(row["customers"]), *(f"{row[name]:.3f}" for name in names), f"{row['ratio']:.1f} ×") for row in rows]
    return table(("customers", "Feast p50, ms", "ours p50, ms", "a bare `PING`, ms", "faster"), cells)


def attack_table(rows: list[Row]) -> str:
    """Memory by the number of bad requests, and what they were answered with."""
    cells = [(f"{row['requests']:,}", f"{row['rss_mb']:,.0f}", f"{row['seconds']:,.0f}") for row in rows]
    answers = ", ".join(f"{count:,} × {status}" for status, count in rows[-1]["answers"].items())
    return f"{table(('bad requests', 'memory, MB', 'after, s'), cells)}\n\nFirst answer of each connection: {answers}."


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "start": start_table,
    "load": load_table,
    "ratios": ratios_table,
    "memory": memory_table,
    "reader": reader_table,
    "attack": attack_table,
}
